"""Components and objectives that an experiment file defines: a run of them can be gone on from, opened, evaluated and
repeated, in processes that have not seen that file."""

import dataclasses
import importlib
import json
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from lm.core import component, imports
from lm.core.component import to_dict
from lm.core.errors import UserError
from lm.core.param import initialize
from lm.runs import components
from lm.runs.checkpoint import Checkpoints, meta_of, open_model
from lm.text.tokenizers import ByteTokenizer
from lm.train.config import default
from lm.train.config_file import read_config
from lm.train.initial import initial_params
from lm.zoo.registry import build
from tests.train import tiny

EXPERIMENT = '''
"""A feed-forward layer and an objective of our own."""

from pathlib import Path

from ml_collections.config_dict import ConfigDict

from lm.core.component import component, to_dict
from lm.core.leaf import dot
from lm.core.param import Normal, Param
from lm.model.attention import Attention
from lm.model.block import Block
from lm.model.embed import Embed
from lm.model.heads import LMHead
from lm.model.layers import RMSNorm
from lm.model.residual import PreNorm
from lm.model.rotary import Rotary
from lm.model.stack import Stack
from lm.model.transformer import LanguageModel, Transformer
from lm.objectives.causal import NextToken
from tests.train import tiny


@component
class Power:
    """(x W) ** power."""

    power: int = 2

    def spec(self, d):
        return {"w": Param((d, d), ("embed", "mlp"), Normal(0.02))}

    def cache(self, d, shape):
        return None

    def __call__(self, p, x, ctx, cache, aux):
        return dot(x, p["w"]) ** self.power, cache


@component
class Scaled(NextToken):
    """A share of the next token's loss."""

    share: float = 0.5

    def __call__(self, *given):
        loss = super().__call__(*given)
        return loss._replace(total=self.share * loss.total)


def get_config():
    c = tiny.config(Path(__file__).parent)
    block = Block((("attention", Attention(2, 8, rotary=Rotary())), ("mlp", Power(3))), PreNorm(RMSNorm()))
    model = LanguageModel(Transformer(16, Embed(384), Stack.of([block] * 2, norm=RMSNorm())), LMHead(384))
    with c.unlocked():
        c.model = ConfigDict(to_dict(model))
        c.objective = ConfigDict(to_dict(Scaled()))
    c.train.steps = 2
    return c
'''


@pytest.fixture
def experiment(tmp_path, monkeypatch):
    """An experiment file with components of its own, which nobody has imported."""
    monkeypatch.setattr(component, "_registry", dict(component._registry))
    monkeypatch.setattr(sys, "path", list(sys.path))
    file = tmp_path / "mine.py"
    file.write_text(EXPERIMENT)
    yield file
    for name in [n for n, m in sys.modules.items() if getattr(m, "__file__", None) == str(file)]:
        del sys.modules[name]


def forget(file: Path) -> None:
    """As in another process."""
    for name in ("Power", "Scaled"):
        del component._registry[name]
    for name in [n for n, m in sys.modules.items() if getattr(m, "__file__", None) == str(file)]:
        del sys.modules[name]


def save(folder: Path, config) -> None:
    """A checkpoint of step 0."""
    model = build(config.model)
    checkpoints = Checkpoints(folder)
    params = initialize(model.spec(), jax.random.key(0))
    checkpoints.write(0, {"params": params}, meta_of(config, model, ByteTokenizer(), ""))
    checkpoints.close()
    (folder / "config.json").write_text(json.dumps(config.to_dict()))


def test_a_checkpoint_tells_where_its_components_are(experiment, tmp_path):
    config = read_config(experiment)
    model = build(config.model)
    save(tmp_path / "run", config)
    assert components.definitions(config.to_dict()) == {
        name: {"module": None, "file": str(experiment)} for name in ("Power", "Scaled")
    }
    forget(experiment)
    named = rf"has the component 'Power', defined in {experiment}: add --import={experiment} \(which runs that file\)"
    for opens in (open_model, read_config, lambda folder: initial_params(folder, model)):
        with pytest.raises(UserError, match=named):
            opens(tmp_path / "run")
    imports.load(str(experiment))
    opened = open_model(tmp_path / "run")
    assert to_dict(opened.model) == to_dict(model)
    assert components.restored(opened.config.objective.to_dict(), opened.defined, "objective", "run").share == 0.5
    assert read_config(tmp_path / "run").to_dict() == config.to_dict()


def test_a_file_that_is_gone_or_never_was(experiment, tmp_path):
    save(tmp_path / "run", read_config(experiment))
    forget(experiment)
    experiment.unlink()
    with pytest.raises(
        UserError, match=rf"defined in {experiment}: which is not there now: add --import=FILE\.py with"
    ):
        open_model(tmp_path / "run")
    defined = {"Cell": {"module": None, "file": None}}
    with pytest.raises(
        UserError, match=r"run has the component 'Cell', defined in a notebook or on a command line: wr"
    ):
        components.restored({"type": "Cell"}, defined, "model", "run")
    with pytest.raises(
        UserError, match=r"model\.type='Cell' is no component.*\(one of your own: name its file with --im"
    ):
        components.restored({"type": "Cell"}, {}, "model", "run")  # of a checkpoint from before such were recorded


def test_a_module_is_found_by_its_name_and_a_file_is_never_run(experiment, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    module = importlib.import_module("mine")
    saved = to_dict(module.Power(4))
    defined = components.definitions(saved)
    assert defined == {"Power": {"module": "mine", "file": str(experiment)}}
    forget(experiment)
    assert dataclasses.asdict(components.restored(saved, defined, "model", "run")) == {"power": 4}
    forget(experiment)
    with pytest.raises(UserError, match="add --import="):
        components.restored(saved, {"Power": {"module": None, "file": str(experiment)}}, "model", "run")
    assert "mine" not in sys.modules


def test_one_file_by_two_names_is_one(experiment, monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(tmp_path)
    read_config(experiment)
    imports.load("mine")  # its components are those of the file, not others of the same names
    other = tmp_path / "other.py"
    other.write_text("from lm.core.component import component\n\n\n@component\nclass Power:\n    pass\n")
    with pytest.raises(
        UserError, match=r"other\.py, line 4: two components are named Power, one in \S+mine\.py, one in"
    ):
        imports.load(str(other))
    other.write_text("from lm.core.component import component\n\n\n@component\nclass NextToken:\n    pass\n")
    with pytest.raises(
        UserError, match=r"two components are named NextToken, one in \S+causal\.py, one in \S+other\.py"
    ):
        imports.load(str(other))


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("nowhere.py", r"file nowhere\.py does not exist: check the path"),
        ("no.such.module", r"--import=no\.such\.module: .*ModuleNotFoundError: No module named 'no'"),
        ("a/folder", r"--import=a/folder is neither a \.py file nor a module"),
    ],
)
def test_what_cannot_be_imported(where, message):
    with pytest.raises(UserError, match=message) as e:
        imports.load(where)
    assert "\n" not in str(e.value)


def test_components_of_this_package_are_not_recorded():
    assert components.definitions(default().to_dict()) == {}


@pytest.mark.slow
def test_trained_resumed_written_with_evaluated_and_repeated(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(EXPERIMENT)

    def call(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", *words]
        return subprocess.run(command, env=tiny.one_device(), cwd=tmp_path, capture_output=True, text=True)

    def fails(line: str, *words: str) -> None:
        done = call(*words)
        assert done.returncode == 2 and line in done.stderr.splitlines()[-1], done.stderr

    def works(*words: str) -> str:
        done = call(*words)
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    works("lm.train", "--config=mine.py", "--workdir=run")
    assert "step 3" in works("lm.train", "--config=mine.py", "--workdir=run", "--config.train.steps=3")
    named, asked = f"has the component 'Power', defined in {file}: add --import={file}", "--import=mine.py"
    generate = ("lm.generate", "--checkpoint=run", "--prompt=the", "--max_new=2")
    evaluate = ("lm.evaluate", "--checkpoint=run")
    for command in (
        generate,
        evaluate,
        ("lm.hub", "export", "run", "out"),
        ("lm.train", "--config=run", "--workdir=b"),
    ):
        fails(named, *command)
    assert works(*generate, asked).startswith("the")
    assert "nats per token" in works(*evaluate, asked)
    fails("a model given as a tree of components", "lm.hub", "export", "run", "out", asked)
    assert "step 2" in works("lm.train", "--config=run", "--workdir=again", "--config.train.steps=2", asked)
