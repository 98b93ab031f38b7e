"""The protocol of transforms: what is done to a model's tensors before they are trained or served."""

import re
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import jax

from lm.core.errors import UserError
from lm.core.leaf import Leaf
from lm.core.param import Param, Tree, is_matrix, name_of


@runtime_checkable
class Transform(Protocol):
    """A change to a model's spec and parameters that the model's code is unaware of: low-rank adapters, int8 weights, a
    choice of what trains.

    A transform is a component: it holds hyperparameters only, and configs and checkpoints contain it by its stored
    name. A `lm.model.program.Program` is a model with a tuple of transforms. Each works on the output of the previous
    one, so their order matters: `(Int8(), LoRA())` adapts a model with int8 weights.

    It works on spec trees, where it may

    - replace a `Param` by a `lm.core.leaf.Leaf` that holds other `Param`s and reads like the weight it replaces;
    - add tensors, with the logical axes (`lm.core.rules.RULES`) that decide their sharding.

    Batch axes (`layers`, `expert`) stay in front: a transform of one matrix must also work on a stack of them.
    """

    def spec(self, spec: Tree) -> Tree:
        """The spec of the transformed parameters, given the spec before.

        A function of its argument alone. Raises `UserError` if the transform does not fit the model, for example if it
        would change nothing."""
        ...

    def init(self, spec: Tree, params: Tree, key: jax.Array) -> Tree:
        """Parameters of `self.spec(spec)`, given those of `spec`.

        The model's outputs stay the same, exactly or up to the rounding that is the transform's purpose. Traced by
        `jax.jit`, over arrays that may be sharded. `key` is for new tensors; `lm.core.param.initialize` derives a key
        for each from its path."""
        ...

    def trainable(self, path: str, p: Param) -> bool:
        """Whether training may change tensor `p`, at `path` in the spec of the whole program.

        Called for every tensor, including those of other transforms; a tensor is trained only if all transforms agree.
        A frozen tensor has no gradient, optimizer state, weight decay or average, and a frozen buffer
        is not updated. What the model or `config.optimizer.lr_multipliers` freezes stays frozen."""
        ...

    def merge(self, params: Tree) -> Tree:
        """The inverse of `init`: parameters of the spec before the transform that give the same outputs as `params`, up
        to rounding.

        Traced by `jax.jit` too. Raises a one-line `UserError` if there are none; such a program can train and generate,
        but cannot be exported or used as `train.init_from`."""
        ...


def map_tensors(function: Callable, spec: Tree, *params: Tree) -> Tree:
    """`function(path, tensor, *values)` for each tensor of a spec, with the corresponding values of all `params`. A
    tensor is a `Param` or a `Leaf` of them, a value an array or a `Leaf`."""

    def one(path: Any, tensor: Any, *values: Any) -> Any:
        return function(name_of(path), tensor, *values)

    return jax.tree_util.tree_map_with_path(one, spec, *params, is_leaf=_is_leaf)


def map_leaves(kind: type[Leaf], function: Callable, params: Tree) -> Tree:
    """`params` with each leaf `x` of that type replaced by `function(x)`."""
    return jax.tree.map(lambda x: function(x) if isinstance(x, kind) else x, params, is_leaf=_is_leaf)


def _is_leaf(x: Any) -> bool:
    return isinstance(x, Leaf)


def targets(name: str, target: str | None, spec: Tree, leaves: bool) -> frozenset[str]:
    """The paths of the weights that a transform's knob `target` selects: those with two axes, apart from batch axes,
    whose path contains a match of the pattern. None selects every matrix between features, but no vocabulary or
    position table. `leaves`: whether weights already replaced by a leaf may be selected.

    Raises `UserError`, with the transform's `name`, for a broken pattern or an empty selection."""
    try:
        pattern = re.compile(target or "")
    except re.error as e:
        raise UserError(f"{name}.target={target!r} is not a pattern: {e}") from e
    weights: dict[str, bool] = {}

    def look(path: str, tensor: Any) -> None:
        p: Param = tensor.weight if isinstance(tensor, Leaf) else tensor
        if p.kind == "weight" and len(p.shape) - p.batch_dims == 2 and (leaves or tensor is p):
            weights[path] = is_matrix(p) if target is None else bool(pattern.search(path))

    map_tensors(look, spec)
    found = frozenset(path for path, chosen in weights.items() if chosen)
    if not found:
        known = f"they are {', '.join([*weights][:3])} ..." if weights else "there are none left for it"
        raise UserError(f"{name}.target={target!r} is found in no matrix's path; {known}")
    return found
