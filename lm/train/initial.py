"""Weights for a new run from elsewhere: the folder of another run, a Hugging Face folder, or a GGUF file."""

import contextlib
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np

from lm.adapt.surgery.surgery import Surgery, operate, result
from lm.core.errors import UserError
from lm.core.mesh import Sharding
from lm.core.param import Tree, abstract, flatten
from lm.hub.folder import is_hf_folder, read_folder
from lm.hub.open import is_gguf, open_folder
from lm.model.transformer import Model
from lm.runs.checkpoint import Checkpoints, program_of
from lm.train.origin import model_at


def initial_params(
    path: str | Path,
    model: Model,
    like: Tree | None = None,
    sharding: Sharding | None = None,
    surgery: Sequence[Surgery] = (),
    seed: int = 0,
) -> Tree:
    """The parameters of `model` from the latest sound checkpoint of a run's folder, from a Hugging Face folder, or from
    a GGUF file. Those of a run with transforms are merged, which needs the `sharding` that `like` was made with. If
    `surgery` makes `model` of the one that is there, so it makes its parameters; `seed` is of new ones.

    Laid out as `like` (arrays or ShapeDtypeStructs, shaped as `model.spec()`; leaves without a sharding, and all of
    them by default: float32 on the first local device).

    Raises `UserError` for a folder of neither kind, one that cannot be read or merged, or whose tree or shapes are not
    those of the model."""
    folder = Path(path).expanduser()
    like = _placed(abstract(model.spec()) if like is None else like)
    if surgery:
        return _operated(path, model, like, sharding, surgery, seed)
    if (folder / "checkpoints").is_dir():
        return _from_run(folder, model, like, sharding)
    if is_hf_folder(folder):
        return jax.tree.map(_laid_out, read_folder(folder, model), like)
    if is_gguf(folder):
        opened = open_folder(folder)
        _check_same(str(folder), opened.model, model)
        return jax.tree.map(_laid_out, opened.params, like)
    raise UserError(
        f"{folder} {'holds neither checkpoints/ nor config.json' if folder.is_dir() else 'is no folder'}: give the "
        "--workdir of a training run, a Hugging Face folder with config.json and model.safetensors, or a .gguf file"
    )


def _operated(
    path: str | Path, model: Model, like: Tree, sharding: Sharding | None, surgery: Sequence[Surgery], seed: int
) -> Tree:
    before = model_at(path)
    _check_same(f"{path} after config.train.surgery", result(surgery, before), model)
    spec = before.spec()
    params = initial_params(path, before, _placed(abstract(spec), sharding and sharding.tree(spec)), sharding)

    def done(params: Tree) -> Tree:
        made = operate(surgery, before, params, jax.random.key(seed))
        return jax.tree.map(lambda x, to: x.astype(to.dtype), made, like)

    return jax.jit(done, out_shardings=jax.tree.map(lambda x: x.sharding, like))(params)


def _placed(like: Tree, layout: Tree | None = None) -> Tree:
    """`like`, laid out by `layout` or else as it says; on the first local device where neither does."""
    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    layout = jax.tree.map(lambda x: x.sharding or device, like) if layout is None else layout
    return jax.tree.map(lambda x, at: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=at), like, layout)


def _laid_out(x: np.ndarray, like: jax.ShapeDtypeStruct) -> jax.Array:
    # From each process its own parts: a device_put would compare the whole of every tensor between processes first.
    x = x.astype(like.dtype, copy=False)
    return jax.make_array_from_callback(x.shape, like.sharding, lambda at: x[at])


def _from_run(folder: Path, model: Model, like: Tree, sharding: Sharding | None) -> Tree:
    with contextlib.closing(Checkpoints(folder, read_only=True)) as checkpoints:
        step = checkpoints.latest
        if step is None:
            raise UserError(f"{folder} has no finished checkpoint yet: wait for its first, or give another folder")
        there = program_of(checkpoints.meta(step), folder)
        _check_same(f"checkpoint {checkpoints.path / str(step)}", there.model, model)
        if not there.transforms:
            return checkpoints.params_of(step, there, like)
        spec = there.spec()
        params = checkpoints.params_of(step, there, _placed(abstract(spec), sharding and sharding.tree(spec)))

        def merged(params: Tree) -> Tree:
            return jax.tree.map(lambda x, to: x.astype(to.dtype), there.merge(params), like)

        return jax.jit(merged, out_shardings=jax.tree.map(lambda x: x.sharding, like))(params)


def _check_same(what: str, there: Model, here: Model) -> None:
    """Raise `UserError` naming the first parameter that only one of the models has, or that differs in shape."""
    theirs, ours = ({path: list(p.shape) for path, p in flatten(model.spec())} for model in (there, here))
    for path in sorted(theirs.keys() | ours.keys()):
        if theirs.get(path) != ours.get(path):
            raise UserError(
                f"{what} does not fit: parameter {path!r} is {theirs.get(path, 'absent')} there and "
                f"{ours.get(path, 'absent')} in the model: make config.model that of the checkpoint"
            )
