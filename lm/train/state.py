"""The state of a training run: everything a step changes, and how it is saved and restored."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp

from lm.core.param import Tree, flatten
from lm.runs.checkpoint import Checkpoints
from lm.train.health import monitor
from lm.train.optim.optimizer import Hyper

Array = jax.Array


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


def save_state(checkpoints: Checkpoints, state: State, meta: dict) -> None:
    """Start saving the state of a run; `meta` is from `lm.runs.checkpoint.meta_of`."""
    # A copy, because the next step donates the state's buffers while the write is still running.
    state = jax.tree.map(jnp.copy, state)
    checkpoints.write(int(state.step), _items(state), meta)


def saved_state(checkpoints: Checkpoints, step: int, like: State, hyper: Hyper) -> State:
    """The saved state of a step, laid out as `like` (see `Trainer.abstract`) or, without a mesh, on one device.
    Hyperparameters are not restored but passed in, since a resumed run may change them."""
    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding or device), like)
    items = _items(like)
    if not checkpoints.has_average(step):
        items.pop("ema", None)
    got = checkpoints.restore(step, **{name: ocp.args.StandardRestore(tree) for name, tree in items.items()})
    slow = like.opt, like.monitor, like.memory
    opt, watched, memory = jax.tree.unflatten(jax.tree.structure(slow), [got["opt"][name] for name in _flat(slow)])
    at = jax.device_put(jnp.int32(step), like.step.sharding)
    hyper = jax.tree.map(lambda x, to: jax.device_put(x, to.sharding), hyper, like.hyper)
    ema = None
    if like.ema is not None:  # a run without an average so far starts one here
        ema = got["ema"] if "ema" in items else jax.tree.map(_copy, like.ema, got["params"], is_leaf=_is_hole)
    return State(at, got["params"], opt, hyper, watched, ema, memory)


def _is_hole(x: Any) -> bool:
    return x is None


def _copy(like: Any, x: Array) -> Array | None:
    """A copy of x, or None where `like` is None."""
    return None if like is None else jnp.copy(x)


def _items(state: State) -> dict[str, Tree]:
    """The items of a checkpoint, from a state."""
    items = {"params": state.params, "opt": _flat((state.opt, state.monitor, state.memory))}
    return items if state.ema is None else items | {"ema": state.ema}


def _flat(tree: Tree) -> dict[str, Any]:
    """Leaves by dotted path: orbax would not restore optimizer states, tuples with holes, in their original form."""
    return {path.replace("/", "."): leaf for path, leaf in flatten(tree)}
