"""What a person gets wrong: one line that names the thing and the remedy, and nothing saved is lost."""

import dataclasses
import io
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from ml_collections.config_dict import ConfigDict
from rich.console import Console

from lm.core.component import component, from_dict
from lm.core.errors import UserError
from lm.runs.checkpoint import Checkpoints, meta_of, open_model
from lm.runs.metrics import read_metrics
from lm.text.tokenizers import ByteTokenizer
from lm.train.config import check, default, knobs_of
from lm.train.loop import train
from lm.train.optim.schedule import ConstantRate
from lm.train.optim.sgd import SGD
from lm.train.override import override
from lm.train.setup import assemble
from lm.train.state import save_state
from lm.zoo.registry import build
from tests.train import tiny

WRONG_DATA = {
    "missing file": (None, {"source": "nowhere.txt"}, r"no file or folder 'nowhere\.txt'; give a path"),
    "empty file": (b"", {}, r"text\.txt is empty; give files with text"),
    "binary file": (b"abc\0def\n" * 9, {}, r"text\.txt is binary \(a NUL at byte 3\); give text files only"),
    "not UTF-8": (b"abc\xff\xfe\n" * 9, {}, r"text\.txt is not UTF-8 at byte 3; .*convert it"),
    "short": (b"a line\nand one\n", {"holdout": 0.5}, r"\d+ tokens, fewer than one sequence of 16; give more text"),
    "one line": (b"a line", {}, r"text\.txt is a single line and too short to be split; name another file as"),
    "unknown tokenizer": (None, {"tokenizer": "bytes"}, r"unknown tokenizer 'bytes'; give byte, bpe-2048"),
}

WRONG_KNOBS = {
    "optimizer.type=adam": r"config\.optimizer\.type='adam' is no optimizer; did you mean 'AdamW'\?",
    "schedule.type=constant": r"config\.schedule\.type='constant' is no schedule; did you mean 'ConstantRate'\?",
    "schedule.type=AdamW": r"config\.schedule\.type='AdamW' is no schedule; known: ConstantRate, Cosine, ",
    "optimizer.learning_rate=-1.0": r"config\.optimizer\.learning_rate=-1\.0 must be at least 0",
    "schedule.final_lr_ratio=-0.1": r"config\.schedule\.final_lr_ratio=-0\.1 must be between 0 and 1",
    "optimizer.b1=2": r"config\.optimizer\.b1=2\.0 must be at least 0 and less than 1",
    "optimizer.b2=1.0": r"config\.optimizer\.b2=1\.0 must be at least 0 and less than 1",
    "optimizer.eps=-1e-8": r"config\.optimizer\.eps=-1e-08 must be greater than 0",
    "optimizer.weight_decay=-0.1": r"config\.optimizer\.weight_decay=-0\.1 must be at least 0",
    "data.holdout=1.0": r"config\.data\.holdout=1\.0 must be greater than 0 and less than 1",
    "seed=4294967296": r"config\.seed=4294967296 must be between 0 and 4294967295",  # which JAX takes for 0
    "train.batch_warmup=(0, 4)": r"config\.train\.batch_warmup\[0\]=0 is a int; it must be tuple",
    "data.reserved=(1,)": r"config\.data\.reserved\[0\]=1 is a int; it must be str",
    "optimizer.lr_multipliers=(('.*', -1.0),)": r"config\.optimizer\.lr_multipliers\[0\]\[1\]=-1\.0 must be at least 0",
    "schedule.warmup=-1": r"config\.schedule\.warmup=-1 must be at least 0",
    "optimizer.lr_multipliers=(('heads', 0.0), ('.*', 1.0))": r"lr_multipliers: 'heads' is in no parameter's path; .*",
    "optimizer.lr_multipliers=(('.*', 0.0),)": r"lr_multipliers and config\.transforms freeze every parameter",
    "optimizer.lr_multipliers=(('norm', 0.0),)": r"lr_multipliers covers body/\S+: add \('\.\*', value\)",
    "train.dtype=float64": r"config\.train\.dtype='float64' must be one of float32, bfloat16, float16",
    "train.attention=bloked": r"config\.train\.attention='bloked' is no kernel; did you mean 'blocked'\?",
    "train.grouped_matmul=bloked": r"config\.train\.grouped_matmul='bloked' is no kernel; did you mean 'blocked'\?",
    "train.cross_entropy=chunks": r"config\.train\.cross_entropy='chunks' is no kernel; did you mean 'chunked'\?",
    "train.steps=0": r"config\.train\.steps=0 must be at least 1",
    "train.accumulate=3": r"config\.data\.batch_size=8 is no multiple of config\.train\.accumulate=3: change",
    "data.length=17": r"config\.data\.length=17 exceeds the model's 16 positions: lower it, or raise",
    "model.vocab=100": r"tokenizer byte has 384 tokens, more than .* 100: set config\.model\.vocab=384 or more",
    "model.family=gtp2": r"model\.family='gtp2' is unknown; did you mean 'gpt2'\?",
    "model.size=smal": r"model\.size='smal' is no size of gpt2; did you mean 'small'\?",
    "model.heads=3": r"model\.d_model=16 is no multiple of model\.heads=3: change one, or set model\.head_dim",
    "model.heads=0": r"model\.heads=0 must be at least 1",
    "mesh.tensor=3": r"mesh data=-1, tensor=3 does not divide over the 8 devices here: make the sizes multiply",
    "mesh.fsdp=16": r"mesh data=-1, fsdp=16 does not divide over the 8 devices here",
    "data.batch_size=12": r"config\.data\.batch_size=12 .* make it a multiple of 8",
}

EXPERIMENT = """
from pathlib import Path
from tests.train import tiny


def get_config():
    return tiny.config(Path(__file__).parent)
"""


def says(pattern: str, config: Any, workdir: Path) -> None:
    """Training ends with this one line."""
    with pytest.raises(UserError, match=pattern) as e:
        train(config, workdir, Console(file=io.StringIO()))
    assert "\n" not in str(e.value)


def changed(config: Any, knob: str) -> Any:
    """As `--config.a.b=value` does."""
    path, value = knob.split("=", 1)
    if knob == "optimizer.type=SGD":  # with the knobs that it has
        override(config, [(path, value)])
        return config
    with config.unlocked():
        config.update_from_flattened_dict({path: eval(value) if value[0] in "(-0123456789" else value})
    return config


@pytest.mark.parametrize("case", WRONG_DATA)
def test_data(case, tmp_path):
    content, knobs, pattern = WRONG_DATA[case]
    config = tiny.config(tmp_path)
    if content is not None:
        (tmp_path / "text.txt").write_bytes(content)
        config.data.source = str(tmp_path / "text.txt")
    config.data.update(knobs)
    says(pattern, config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("knob", WRONG_KNOBS)
def test_values_of_knobs(knob, tmp_path):
    says(WRONG_KNOBS[knob], changed(tiny.config(tmp_path), knob), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def of(config: Any, path: str) -> Any:
    for name in path.split("."):
        config = config[name]
    return config


NUMBERS = [path for path in knobs_of(default()) if type(of(default(), path)) in (int, float)]


@pytest.mark.parametrize("path", [p for p in NUMBERS if type(of(default(), p)) is float])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_no_knob_takes_nan_or_inf(path, value):
    config = default()
    config.update_from_flattened_dict({path: value})
    with pytest.raises(UserError, match=rf"config\.{path}={value} must be a finite number"):
        check(config)
        from_dict(config.objective.to_dict(), "config.objective")


@pytest.mark.parametrize("path", [p for p in NUMBERS if not p.startswith("objective.")])
@pytest.mark.parametrize("value", [True, "3", None, (1,)])
def test_other_types_where_a_number_is_due(path, value):
    section, _, name = path.rpartition(".")
    config = ConfigDict(default().to_dict())  # a config made otherwise than by changing default()
    node = of(config, section) if section else config
    if value is True and type(node[name]) is float:
        pytest.skip("ConfigDict makes 1.0 of it")
    with node.ignore_type():
        node[name] = value
    with pytest.raises(UserError, match=rf"config\.{path}={re.escape(repr(value))} is a \w+; it must be (int|float)"):
        check(config)


def test_knobs_that_are_not_there_or_missing():
    config = default()
    with config.unlocked():
        config.optimizer.lr = 0.1
    with pytest.raises(UserError, match=r"config\.optimizer\.lr is no knob; did you mean config\.optimizer\.learning_"):
        check(config)
    with config.unlocked():
        del config.optimizer.lr, config.data.length
    with pytest.raises(UserError, match=r"config\.data\.length is missing: let get_config\(\) start from lm\.train"):
        check(config)


@component
class SlidingSGD(SGD):
    """An optimizer of an experiment file."""

    nesterov: bool = False


@component
class FlatRate(ConstantRate):
    """A schedule of an experiment file."""


def test_optimizers_and_schedules_of_an_experiment_file():
    config = default()
    notes = override(
        config, [("optimizer.nesterov", None), ("optimizer.type", "SlidingSGD"), ("schedule.type", "FlatRate")]
    )
    check(config)
    assert config.optimizer.nesterov and "momentum" in config.optimizer
    assert notes[0] == "config.optimizer: SlidingSGD in place of AdamW, whose own knobs are dropped: b1, b2, eps"
    config.optimizer.type = "Your"
    with pytest.raises(UserError, match=r"'Your' is no optimizer.*\(one of your own: name its file with --import\)"):
        check(config)


def test_attention_heads_of_another_family():
    with pytest.raises(UserError, match=r"model\.d_model=16 is no multiple of model\.heads=3"):
        build({"family": "llama", "layers": 1, "d_model": 16, "heads": 3})
    assert build({"family": "llama", "layers": 1, "d_model": 16, "heads": 3, "head_dim": 4}).spec()


def test_a_workdir_that_cannot_be(tmp_path):
    (tmp_path / "run").write_text("a file")
    pattern = r"cannot make the folder .*/run: File exists; choose another --workdir"
    says(pattern, tiny.config(tmp_path), tmp_path / "run")


def save(folder: Path) -> None:
    """A checkpoint of step 2 of the tiny run, in `folder`/run."""
    config = tiny.config(folder)
    parts = assemble(config, sharding=None)
    state = parts.abstract_state
    state = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), state)
    checkpoints = Checkpoints(folder / "run")
    meta = meta_of(config, parts.model, ByteTokenizer(), parts.data.digest)
    save_state(checkpoints, dataclasses.replace(state, step=jnp.int32(2)), meta)
    checkpoints.close()


def test_checkpoints_of_another_run(tmp_path):
    save(tmp_path)
    before = tiny.bits(open_model(tmp_path / "run").params)
    for knob, pattern in {
        "model.d_model=32": r"holds a run with model\.body\.d_model=16, not 32: choose another --workdir",
        "model.layers=3": r"holds a run with model\.\S+=\S+, not \S+: choose another --workdir, or give",
        "seed=1": r"holds a run with seed=0, not 1",
        "data.length=8": r"holds a run with data\.length=16, not 8",
        "objective.loss.z_loss=0.5": r"holds a run with objective\.loss\.z_loss=0\.0, not 0\.5",
        "optimizer.type=SGD": r"holds a run with optimizer\.type='AdamW', not 'SGD'",
    }.items():
        says(pattern, changed(tiny.config(tmp_path), knob), tmp_path / "run")
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("one more line\n" + corpus.read_text())
    says(r"holds a run with digest of the tokens of data\.source=", tiny.config(tmp_path), tmp_path / "run")
    assert tiny.bits(open_model(tmp_path / "run").params) == before


def test_a_loss_that_is_no_number(tmp_path):
    config = tiny.config(tmp_path, learning_rate=1e30, schedule=ConstantRate(warmup=0))
    config.log.checkpoint_every = 1
    pattern = r"^step \d+: loss (nan|inf).* the run diverged\. Earlier checkpoints are kept; lower config\.opt"
    says(pattern, config, tmp_path / "run")
    steps = [r["step"] for r in read_metrics(tmp_path / "run/metrics.jsonl")]
    opened = open_model(tmp_path / "run")
    assert steps and opened.step == steps[-1], "what was saved before the loss was lost is there"


@pytest.mark.parametrize(
    "args, message",
    [
        ((), "--config is missing: give --config=FILE, experiment file"),
        (("--workdir=", "--config=@good.py"), "--workdir is missing: give --workdir=DIR, folder of the run"),
        (("--workdir=@run", "--config=@none.py"), "none.py does not exist"),
        (("--workdir=@run", "--config=@good.py", "--config.data.source=@nowhere.txt"), "no file or folder"),
    ],
    ids=["no flags", "no folder", "no file", "no data"],
)
def test_the_command(tmp_path, args, message):
    (tmp_path / "good.py").write_text(EXPERIMENT)
    command = [sys.executable, "-m", "lm.train", *(a.replace("@", f"{tmp_path}/") for a in args)]
    done = subprocess.run(command, env=tiny.one_device(), capture_output=True, text=True)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1, done.stderr
    assert message in done.stderr
    assert not (tmp_path / "run").exists()
