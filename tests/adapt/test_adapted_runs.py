"""A run with transforms: adapters over int8 weights, from a Hugging Face folder to a Hugging Face folder."""

import dataclasses
import io
from pathlib import Path

import jax
import numpy as np
import pytest
from absl import flags
from ml_collections.config_dict import ConfigDict
from rich.console import Console

from lm.adapt.lora import LoRA
from lm.commands import hub
from lm.compress.int8 import Int8
from lm.core import component as core
from lm.core.component import component, to_dict
from lm.core.errors import UserError
from lm.core.mesh import Sharding, make_mesh
from lm.core.param import abstract, flatten
from lm.hub.open import open_folder
from lm.hub.save import save_folder
from lm.infer.generate import Generator
from lm.model.program import Program
from lm.runs.checkpoint import Checkpoints, meta_of, open_model
from lm.runs.metrics import read_metrics
from lm.train.initial import initial_params
from lm.train.loop import train
from lm.train.optim.schedule import ConstantRate
from lm.zoo.registry import build
from tests import toys
from tests.train import tiny

pytest.importorskip("safetensors", reason="the package safetensors is not installed")
pytest.importorskip("tokenizers", reason="the package tokenizers is not installed")
from tests.hub.chat_model import KNOBS, text

TRANSFORMS = (Int8("attention"), LoRA(4, target="attention|mlp"))


def config_of(folder: Path, init_from: Path, transforms: tuple = TRANSFORMS) -> ConfigDict:
    c = tiny.config(folder, learning_rate=1e-2, schedule=ConstantRate(warmup=4), ema=0.5)
    with c.unlocked():
        c.model = ConfigDict()
    c.data.tokenizer = ""
    c.train.update(init_from=str(init_from), steps=12)
    c.transforms = tuple(map(to_dict, transforms))
    return c


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """hf: the base; run: after 12 steps; said: what the run said."""
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()
    path = tmp_path_factory.mktemp("adapted")
    save_folder(path / "hf", KNOBS, toys.values(build(KNOBS).spec()), text(), length=64)
    said = Console(file=io.StringIO(), width=1000)
    train(config_of(path, path / "hf"), path / "run", said)
    (path / "said").write_text(said.file.getvalue())
    return path


def test_it_learns_and_its_base_stays(folder):
    losses = [r["loss"] for r in read_metrics(folder / "run/metrics.jsonl") if "loss" in r]
    assert losses[-1] < losses[0] - 0.05
    opened, base = open_model(folder / "run"), open_folder(folder / "hf")
    assert opened.program == Program(base.model, TRANSFORMS)
    first = opened.program.transform(base.params, jax.random.key(0))
    moves, stays = map(tiny.bits, opened.program.split(opened.params))
    assert stays == tiny.bits(opened.program.split(first)[1])
    assert moves.keys() == tiny.bits(opened.program.split(first)[0]).keys() and moves
    trains = sum(np.size(x) for path, x in flatten(opened.params) if path in moves)
    assert f" parameters ({trains:,} train), " in (folder / "said").read_text()


def test_it_generates_and_is_exported_as_its_merged_parameters(folder, capsys):
    opened, batch = open_model(folder / "run"), {"tokens": toys.tokens(2)}
    merged = opened.program.merge(opened.params)
    assert jax.tree.structure(merged) == jax.tree.structure(opened.model.spec())
    logits = toys.forward(opened.model, merged, batch)[0]
    toys.close(toys.forward(opened.model, opened.params, batch)[0], logits, atol=1e-4)
    prompt = [np.arange(7, dtype=np.int32)]
    written = [Generator(opened.model, p)(prompt, max_new=4)[0].tolist() for p in (opened.params, merged)]
    assert len(written[0]) == 4 and written[0] == written[1]
    hub.main(["", "export", str(folder / "run"), str(folder / "out")])
    assert "LlamaForCausalLM, float32, of step 12" in capsys.readouterr().out
    again = open_folder(folder / "out")
    assert again.model == opened.model and tiny.bits(again.params) == tiny.bits(merged)


@pytest.mark.parametrize("sizes", [{}, {"fsdp": 4, "tensor": 2}], ids=str)
def test_another_run_begins_with_its_merged_parameters(folder, sizes):
    opened = open_model(folder / "run")
    spec = opened.model.spec()
    like, sharding = abstract(spec), Sharding(make_mesh(sizes)) if sizes else None
    if sharding:
        layout = sharding.tree(spec)
        like = jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), like, layout)
    got = initial_params(folder / "run", opened.model, like, sharding)
    for (path, x), (_, want) in zip(flatten(got), flatten(opened.program.merge(opened.params)), strict=True):
        np.testing.assert_allclose(x, want, atol=1e-6, err_msg=path)
    assert not sizes or all(x.sharding == to.sharding for x, to in zip(*map(jax.tree.leaves, (got, like)), strict=True))


@pytest.mark.parametrize(
    ("transforms", "message"),
    [
        ((Int8("attention"), LoRA(8, target="attention|mlp")), r"holds a run with transforms\[1\]\.rank=4, not 8"),
        ((), r"holds a run with transforms=\[\{.*\}\], not \[\]: choose another --workdir"),
    ],
)
def test_a_run_goes_on_with_its_own_transforms_only(folder, transforms, message):
    config = config_of(folder, folder / "hf", transforms)
    config.train.steps = 13
    with pytest.raises(UserError, match=message):
        train(config, folder / "run", Console(file=io.StringIO()))


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (
            {"type": "RMSNorm"},
            r"^config\.transforms\[0\] is a RMSNorm, which is no transform: give LoRA, Int8, or your",
        ),
        ({"type": "LoRA", "ranks": 3}, r"^config\.transforms\[0\]\.ranks is no knob of LoRA; did you mean 'rank'\?"),
        ({"type": "LoRA", "target": "keel"}, r"^LoRA\.target='keel' is found in no matrix's path; they are body/"),
        ({"type": "Int8", "target": "."}, r"lr_multipliers and config\.transforms freeze every parameter"),
    ],
)
def test_what_is_no_transform_of_this_model(tmp_path, item, message):
    config = tiny.config(tmp_path)
    config.transforms = (item,)
    if item["type"] == "Int8":
        config.optimizer.lr_multipliers = (("norm|/b$|position", 0.0), (".*", 1.0))
    with pytest.raises(UserError, match=message):
        train(config, tmp_path / "run", Console(file=io.StringIO()))


def test_what_cannot_be_merged_is_said_in_a_line(tmp_path, monkeypatch):
    monkeypatch.setattr(core, "_registry", dict(core._registry))

    @component(name="tests.Lossy")
    class Lossy(Int8):
        def merge(self, params):
            raise UserError("Lossy has forgotten what the weights were: train without it")

    config = tiny.config(tmp_path)
    program = Program(build(config.model), (Lossy(),))
    with_transforms = meta_of(config, program.model, text().tokenizer, "", transforms=program.transforms)
    checkpoints = Checkpoints(tmp_path / "run")
    checkpoints.write(0, {"params": program.initialize(jax.random.key(0))}, with_transforms)
    checkpoints.close()
    assert dataclasses.asdict(open_model(tmp_path / "run").transforms[0]) == {"target": None}
    for use in (
        lambda: hub.main(["", "export", str(tmp_path / "run"), str(tmp_path / "out")]),
        lambda: initial_params(tmp_path / "run", program.model),
    ):
        with pytest.raises(UserError) as error:
            use()
        assert str(error.value) == "Lossy has forgotten what the weights were: train without it"
    assert not (tmp_path / "out").exists()
