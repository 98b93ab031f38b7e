"""The state of a training run: everything a step changes, and how it is saved and restored."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp

from lm.core.param import Tree, flatten
from lm.runs.checkpoint import Checkpoints
from lm.runs.local import Copy
from lm.train.health import monitor
from lm.train.optim.optimizer import Hyper

Array = jax.Array

OPTIONAL = ("ema", "previous")  # items that a run may begin to have


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class State:
    """Everything a step changes, plus the hyperparameters it reads (as leaves, so that runs of one shape can be
    vmapped)."""

    step: Array  # int32
    params: Tree
    opt: Tree
    hyper: Hyper
    monitor: monitor.LossMonitor
    ema: Tree | None = None  # moving average of the parameters that transforms do not freeze
    memory: Tree | None = None  # the model's cache, each leaf [B, ...], if rows continue from step to step
    previous: Tree | None = None  # what trains, as it was a step before, if gradients are taken there


def save_state(checkpoints: Checkpoints, state: State, meta: dict) -> None:
    """Start saving the state of a run; `meta` is from `lm.runs.checkpoint.meta_of`."""
    # The next step donates the state's buffers while the write is still running. Orbax copies them to the host before
    # it returns, but not on a CPU, where host and device are one: it would write what comes next.
    if jax.default_backend() == "cpu":
        state = jax.tree.map(jnp.copy, state)
    checkpoints.write(int(state.step), _items(state), meta)


def saved_state(checkpoints: Checkpoints, step: int, like: State, hyper: Hyper) -> State:
    """The saved state of a step, laid out as `like` (see `Trainer.abstract`) or, without a mesh, on one device.
    Hyperparameters are not restored but passed in, since a resumed run may change them."""
    like = _laid_out(like)
    items = {k: tree for k, tree in _items(like).items() if k not in OPTIONAL or checkpoints.has(step, k)}
    got = checkpoints.restore(step, **{name: ocp.args.StandardRestore(tree) for name, tree in items.items()})
    slow = like.opt, like.monitor, like.memory
    opt, watched, memory = jax.tree.unflatten(jax.tree.structure(slow), [got["opt"][name] for name in _flat(slow)])
    ema = None
    if like.ema is not None:  # a run without an average so far starts one here
        ema = got["ema"] if "ema" in items else jax.tree.map(_copy, like.ema, got["params"], is_leaf=_is_hole)
    previous = None
    if like.previous is not None:  # likewise
        before = got["previous" if "previous" in items else "params"]
        previous = jax.tree.map(_copy, like.previous, before, is_leaf=_is_hole)
    return _at(step, like, hyper, State(like.step, got["params"], opt, hyper, watched, ema, memory, previous))


def copied_state(copy: Copy, like: State, hyper: Hyper) -> State:
    """The state of a local copy, which has the leaves that `wanted(like)` said."""
    got = jax.tree.unflatten(jax.tree.structure(_changing(like)), list(copy.leaves.values()))
    return _at(copy.step, like, hyper, dataclasses.replace(like, **got))


def wanted(like: State) -> dict[str, Any]:
    """What a local copy must have to be restored as `like`, by path."""
    return leaves_of(_laid_out(like))


def leaves_of(state: State) -> dict[str, Any]:
    """What a local copy of a state holds, by path."""
    return _flat(_changing(state))


def _changing(state: State) -> dict[str, Tree]:
    """All but the step, which is known, and the hyperparameters, which a resumed run may change."""
    return {f.name: getattr(state, f.name) for f in dataclasses.fields(state) if f.name not in ("step", "hyper")}


def _laid_out(like: State) -> State:
    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding or device), like)


def _at(step: int, like: State, hyper: Hyper, state: State) -> State:
    """A restored state with its step and hyperparameters on the devices."""
    like = _laid_out(like)
    at = jax.device_put(jnp.int32(step), like.step.sharding)
    hyper = jax.tree.map(lambda x, to: jax.device_put(x, to.sharding), hyper, like.hyper)
    return dataclasses.replace(state, step=at, hyper=hyper)


def _is_hole(x: Any) -> bool:
    return x is None


def _copy(like: Any, x: Array) -> Array | None:
    """A copy of x, or None where `like` is None."""
    return None if like is None else jnp.copy(x)


def _items(state: State) -> dict[str, Tree]:
    """The items of a checkpoint, from a state."""
    items = {"params": state.params, "opt": _flat((state.opt, state.monitor, state.memory))}
    more = {"ema": state.ema, "previous": state.previous}
    return items | {name: tree for name, tree in more.items() if tree is not None}


def _flat(tree: Tree) -> dict[str, Any]:
    """Leaves by dotted path: orbax would not restore optimizer states, tuples with holes, in their original form."""
    return {path.replace("/", "."): leaf for path, leaf in flatten(tree)}
