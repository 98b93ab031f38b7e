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
    """A change of a model's spec and parameters that the model's code does not know of: low-rank adapters, int8
    weights, a choice of what trains.

    A transform is a component: it holds hyperparameters only, and is written into configs and checkpoints by its stored
    name. A `lm.model.program.Program` is a model with a tuple of transforms. Each is given what the one before it made,
    so their order matters: `(Int8(), LoRA())` adapts a model of int8 weights.

    It works in terms of spec trees, of which it may

    - replace a `Param` by a `lm.core.leaf.Leaf` that holds other `Param`s, and reads like the weight it stands for;
    - add tensors, with the logical axes (`lm.core.mesh.RULES`) by which they are to be sharded.

    Batch axes (`layers`, `expert`) stay in front: a transform of one matrix is a transform of a stack of them.
    """

    def spec(self, spec: Tree) -> Tree:
        """The spec of the transformed parameters, given that of the parameters before.

        A function of its argument alone. Raises `UserError` where the transform does not suit the model, as when it
        would change nothing."""
        ...

    def init(self, spec: Tree, params: Tree, key: jax.Array) -> Tree:
        """Parameters of `self.spec(spec)`, given those of `spec`.

        The model computes with them what it computed before, exactly or within the rounding that is the transform's
        purpose. Traced by `jax.jit`, over arrays that may be sharded. `key` is for new tensors;
        `lm.core.param.initialize` draws each of them by its path."""
        ...

    def trainable(self, path: str, p: Param) -> bool:
        """Whether training may move tensor `p`, at `path` in the spec of the whole program.

        It is asked about every tensor, those that other transforms made included, and a tensor moves only where all
        transforms agree. One that does not move has no gradient, optimizer state, weight decay or average, and a buffer
        is not updated. What the model or `config.optimizer.lr_multipliers` freezes stays frozen."""
        ...

    def merge(self, params: Tree) -> Tree:
        """The inverse of `init`: parameters of the spec before, with which the model computes what it computes with
        `params`, within rounding.

        Traced by `jax.jit` too. Raises `UserError`, one line that says why, where there are none; then the program
        trains and generates, but is not exported or taken as `train.init_from`."""
        ...


def map_tensors(function: Callable, spec: Tree, *params: Tree) -> Tree:
    """`function(path, tensor, *values)` for each tensor of a spec, with what stands in its place in each of `params`.
    A tensor is a `Param` or a `Leaf` of them, a value an array or a `Leaf`."""

    def one(path: Any, tensor: Any, *values: Any) -> Any:
        return function(name_of(path), tensor, *values)

    return jax.tree_util.tree_map_with_path(one, spec, *params, is_leaf=_is_leaf)


def map_leaves(kind: type[Leaf], function: Callable, params: Tree) -> Tree:
    """`params` with `function(x)` in the place of each leaf `x` of that type."""
    return jax.tree.map(lambda x: function(x) if isinstance(x, kind) else x, params, is_leaf=_is_leaf)


def _is_leaf(x: Any) -> bool:
    return isinstance(x, Leaf)


def targets(name: str, target: str | None, spec: Tree, leaves: bool) -> frozenset[str]:
    """The paths of the weights that a transform's knob `target` stands for: those with two axes, batch axes aside, in
    whose path the pattern is found; None is every matrix between features, but no table of a vocabulary or of
    positions. `leaves`: whether a weight in whose place a leaf stands already may be one of them.

    Raises `UserError`, in which `name` is the transform's, for a broken pattern and where there are none."""
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
