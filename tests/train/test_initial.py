"""A new run's weights from another run's folder or a Hugging Face folder, on one device and on meshes."""

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from lm.core.errors import UserError
from lm.core.mesh import Sharding, make_mesh
from lm.core.param import flatten
from lm.hub.binding import Binding
from lm.hub.folder import write_folder
from lm.hub.model_types import MODEL_TYPES
from lm.model.transformer import LanguageModel
from lm.runs.checkpoint import Checkpoints, meta_of
from lm.text.tokenizers import ByteTokenizer
from lm.train.initial import initial_params
from lm.train.state import State, save_state
from lm.zoo.gpt2 import gpt2
from tests import toys
from tests.train import tiny

MODEL = tiny.dense()
KINDS = pytest.mark.parametrize("kind", ["run", "hf"])


def params_at(step: int) -> Any:
    return toys.values(MODEL.spec(), step)


def save_run(folder: Path, *steps: int) -> None:
    trainer, hyper = tiny.trainer(MODEL)
    shapes = jax.eval_shape(lambda: trainer.init(hyper))
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    checkpoints = Checkpoints(folder)
    for step in steps:
        state = dataclasses.replace(zeros, step=jnp.int32(step), params=params_at(step))
        save_state(checkpoints, state, meta_of(tiny.config(folder), MODEL, ByteTokenizer(), "digest"))
    checkpoints.close()


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    """One of each kind, both with the parameters of step 5."""
    pytest.importorskip("safetensors")
    run, hf = tmp_path_factory.mktemp("run"), tmp_path_factory.mktemp("hf")
    save_run(run, 3, 5)
    write_folder(hf, Binding(MODEL, MODEL_TYPES["gpt2"].names), params_at(5))
    (hf / "config.json").write_text(json.dumps({"model_type": "gpt2"}))
    return {"run": run, "hf": hf}


def files(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@KINDS
def test_on_one_device(folders, kind):
    before = files(folders[kind])
    got = initial_params(folders[kind], MODEL)
    assert jax.tree.structure(got) == jax.tree.structure(MODEL.spec())
    assert tiny.bits(got) == tiny.bits(params_at(5))
    assert {x.dtype for x in jax.tree.leaves(got)} == {jnp.dtype("float32")}
    assert {frozenset(x.devices()) for x in jax.tree.leaves(got)} == {frozenset(jax.local_devices()[:1])}
    assert files(folders[kind]) == before, "a folder is read, never changed"


@KINDS
@pytest.mark.parametrize("sizes", [{"fsdp": 8}, {"data": 2, "fsdp": 2, "tensor": 2}], ids=str)
def test_laid_out_as_asked(folders, kind, sizes):
    trainer, hyper = tiny.trainer(MODEL, Sharding(make_mesh(sizes)))
    like = trainer.abstract(hyper).params
    got = initial_params(str(folders[kind]), MODEL, like)
    assert tiny.bits(got) == tiny.bits(params_at(5))
    for (path, x), (_, want) in zip(flatten(got), flatten(like), strict=True):
        assert (x.sharding, x.dtype) == (want.sharding, want.dtype), path
    assert not tiny.at_layer(got, "attention/q/w").sharding.is_fully_replicated


@KINDS
@pytest.mark.parametrize("sizes", [{}, {"data": 2, "fsdp": 4}], ids=str)
def test_a_run_goes_on_from_them(folders, kind, sizes):
    """The step, which takes over the buffers that it is given, does with them as with any others."""
    sharding = Sharding(make_mesh(sizes)) if sizes else None
    trainer, hyper = tiny.trainer(MODEL, sharding, learning_rate=1e-2)
    first = trainer.init(hyper)
    like = trainer.abstract(hyper).params
    batch = tiny.batch()
    step = trainer.jitted(first)

    def after(params: Any) -> State:
        state = dataclasses.replace(trainer.init(hyper), params=params)
        return step(step(state, batch)[0], batch)[0]

    got = after(initial_params(folders[kind], MODEL, like))
    placed = jax.tree.map(lambda x, to: jnp.copy(jax.device_put(x, to.sharding)), params_at(5), like)
    assert tiny.bits(got.params) == tiny.bits(after(placed).params)
    assert tiny.bits(got.params) != tiny.bits(params_at(5))


@KINDS
def test_of_another_dtype(folders, kind):
    like = jax.tree.map(lambda p: jax.ShapeDtypeStruct(p.shape, jnp.bfloat16), MODEL.spec())
    want = jax.tree.map(lambda x: x.astype(jnp.bfloat16), params_at(5))
    assert tiny.bits(initial_params(folders[kind], MODEL, like)) == tiny.bits(want)


def test_a_damaged_checkpoint_is_passed_over(tmp_path, caplog):
    save_run(tmp_path, 3, 5)
    file = max((tmp_path / "checkpoints/5/params").rglob("*"), key=lambda f: f.stat().st_size * f.is_file())
    file.write_bytes(file.read_bytes()[:-1])
    assert tiny.bits(initial_params(tmp_path, MODEL)) == tiny.bits(params_at(3))
    assert "that of step 3 is used" in caplog.messages[-1]
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["3", "5"]


def dense(**changes: Any) -> LanguageModel:
    shape: dict[str, Any] = {"layers": 2, "d_model": 16, "heads": 4, "vocab": tiny.VOCAB, "context": tiny.LENGTH}
    return gpt2(**(shape | changes))


@pytest.mark.parametrize(
    "changes, path, there, here",
    [
        ({"context": 8}, "body/embed/position/w", [16, 16], [8, 16]),
        ({"vocab": 40}, "body/embed/token", [32, 16], [40, 16]),
        ({"d_ff": 32}, "body/stack/0/0/mlp/down/w", [2, 64, 16], [2, 32, 16]),
        ({"tied": False}, "head/w", "absent", [32, 16]),
    ],
    ids=str,
)
def test_the_first_parameter_that_differs_is_named(folders, changes, path, there, here):
    wrong = (
        rf"checkpoints/5 does not fit: parameter '{path}' is {re.escape(f'{there} there and {here}')} in the model: "
    )
    refused(wrong, folders["run"], dense(**changes))
    refused(r"tensor '[\w.]+' (is|has) .*: \w+", folders["hf"], dense(**changes))


def test_what_a_run_changes_without_a_tensor_is_no_hindrance(folders):
    assert tiny.bits(initial_params(folders["run"], tiny.dense(dropout=0.1))) == tiny.bits(params_at(5))


def refused(match: str, folder: Path, model: LanguageModel = MODEL) -> None:
    with pytest.raises(UserError, match=match) as info:
        initial_params(folder, model)
    assert "\n" not in str(info.value) and str(folder) in str(info.value)


def test_folders_of_neither_kind(tmp_path):
    refused("is no folder: give the --workdir of a training run, a Hugging Face folder", tmp_path / "nowhere")
    refused("holds neither checkpoints/ nor config.json: give the --workdir", tmp_path)
    (tmp_path / "file").touch()
    refused("is no folder: ", tmp_path / "file")
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    refused("has neither model.safetensors nor", tmp_path)
    (tmp_path / "checkpoints").mkdir()
    refused("has no finished checkpoint yet: wait", tmp_path)
