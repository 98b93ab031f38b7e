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
from absl import flags
from ml_collections import config_flags
from rich.console import Console

from lm import cli
from lm.core.errors import UserError
from lm.data.tokenizers import ByteTokenizer
from lm.objectives.causal import NextToken
from lm.train.checkpoint import Checkpoints, meta_of, open_model
from lm.train.feed import open_data_of
from lm.train.loop import train
from lm.train.metrics import read_metrics
from lm.train.optimizer import hyper_of
from lm.train.setup import trainer_of
from lm.zoo.build import build
from tests.train import tiny

WRONG_DATA = {
    "missing file": (None, {"source": "nowhere.txt"}, r"no file or folder 'nowhere\.txt'; give a path"),
    "empty file": (b"", {}, r"text\.txt is empty; give files with text"),
    "binary file": (b"abc\0def\n" * 9, {}, r"text\.txt is binary \(a NUL at byte 3\); give text files only"),
    "not UTF-8": (b"abc\xff\xfe\n" * 9, {}, r"text\.txt is not UTF-8 at byte 3; .*convert it"),
    "short": (b"a line\nand one\n", {"holdout": 0.5}, r"\d+ tokens, fewer than one sequence of 16; give more text"),
    "one line": (b"a line", {}, r"text\.txt is a single line and cannot be split; name another file as validation"),
    "unknown tokenizer": (None, {"tokenizer": "bytes"}, r"unknown tokenizer 'bytes'; give byte, bpe-2048"),
}

WRONG_KNOBS = {
    "optimizer.name=adam": r"config\.optimizer\.name='adam' is unknown; did you mean 'adamw'\?",
    "optimizer.schedule=cosin": r"config\.optimizer\.schedule='cosin' must be one of cosine, linear, inverse_sqrt, ",
    "optimizer.learning_rate=-1.0": r"config\.optimizer\.learning_rate=-1\.0 must not be negative",
    "optimizer.final=-0.1": r"config\.optimizer\.final=-0\.1 must be between 0 and 1",
    "optimizer.cooldown=1.5": r"config\.optimizer\.cooldown=1\.5 must be between 0 and 1",
    "optimizer.rates=(('heads', 0.0), ('.*', 1.0))": r"config\.optimizer\.rates: 'heads' is in no parameter's path; .*",
    "optimizer.rates=(('.*', 0.0),)": r"config\.optimizer\.rates freezes every parameter",
    "optimizer.decay=(('norm', 0.0),)": r"no rule of config\.optimizer\.decay covers body/\S+: add \('\.\*', value\)",
    "train.dtype=float64": r"config\.train\.dtype='float64' must be one of float32, bfloat16, float16",
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
    model = build(config.model)
    state = trainer_of(config, model, NextToken(), None).abstract(hyper_of(config.optimizer))
    state = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), state)
    checkpoints = Checkpoints(folder / "run")
    meta = meta_of(config, model, ByteTokenizer(), open_data_of(config).digest)
    checkpoints.save(dataclasses.replace(state, step=jnp.int32(2)), meta)
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
        "optimizer.name=sgd": r"holds a run with optimizer\.name='adamw', not 'sgd'",
    }.items():
        says(pattern, changed(tiny.config(tmp_path), knob), tmp_path / "run")
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("one more line\n" + corpus.read_text())
    says(r"holds a run with digest of the tokens of data\.source=", tiny.config(tmp_path), tmp_path / "run")
    assert tiny.bits(open_model(tmp_path / "run").params) == before


def test_a_loss_that_is_no_number(tmp_path):
    config = tiny.config(tmp_path, learning_rate=1e30, schedule="constant")
    config.optimizer.warmup = 0
    config.log.checkpoint_every = 1
    pattern = r"^step \d+: loss (nan|inf).* the run diverged\. Earlier checkpoints are kept; lower config\.opt"
    says(pattern, config, tmp_path / "run")
    steps = [r["step"] for r in read_metrics(tmp_path / "run/metrics.jsonl")]
    opened = open_model(tmp_path / "run")
    assert steps and opened.step == steps[-1], "what was saved before the loss was lost is there"


@pytest.fixture
def command_line(tmp_path, monkeypatch, capsys):
    """Parse flags as `python -m lm.train` does; returns (exit status, standard error), or the config."""
    folder = tmp_path
    (folder / "good.py").write_text(EXPERIMENT)

    def parse(*args: str) -> Any:
        argv = ["train", *(a.replace("@", f"{folder}/") for a in args)]
        known = flags.FlagValues()
        holder = config_flags.DEFINE_config_file("config", None, flag_values=known)
        monkeypatch.setattr(flags, "FLAGS", known)
        monkeypatch.setattr(sys, "argv", argv)
        monkeypatch.delitem(sys.modules, "config_config", raising=False)  # the last config file, by ml_collections
        try:
            cli._parse(argv)
        except SystemExit as e:
            return e.code, capsys.readouterr().err
        return holder.value

    return parse


def test_knobs_on_the_command_line(command_line):
    config = command_line("--config=@good.py", "--config.model.d_model=32", "--config.train.dtype=bfloat16")
    assert (config.model.d_model, config.model.heads, config.train.dtype) == (32, 4, "bfloat16")


@pytest.mark.parametrize(
    "args, pattern",
    [
        (("--config=@none.py",), r"config file \S+/none\.py does not exist: give --config=experiments/<name>\.py"),
        (
            ("--config=@good.py", "--config.model.d_modell=32"),
            r"config\.model\.d_modell is no knob .* mean 'd_model'\?",
        ),
        (("--config=@good.py", "--config.trian.steps=3"), r"config\.trian\S* is no knob .* mean 'train'\?"),
        (("--config=@good.py", "--config.train.steps=many"), r"config\.train\.steps.*many.*int"),
        (("--config=@good.py", "--config.data.batch_size=1.5"), r"config\.data\.batch_size.*1\.5.*int"),
        (("--config=@good.py", "--conifg.data.length=8"), r"[Uu]nknown .*flag 'conifg\.data\.length'.*--help"),
    ],
)
def test_wrong_command_lines(command_line, args, pattern):
    status, told = command_line(*args)
    assert status == 2
    assert told.startswith("error: ") and told.count("\n") == 1, told
    assert re.search(pattern, told), told


@pytest.mark.parametrize(
    "text, pattern",
    [
        ("def get_config(:\n", r"bad\.py is not Python: invalid syntax"),
        ("\0", r"bad\.py is not Python"),
        ("x = 1\n", r"has no attribute 'get_config'"),
    ],
)
def test_wrong_config_files(command_line, tmp_path, text, pattern):
    (tmp_path / "bad.py").write_text(text)
    status, told = command_line("--config=@bad.py")
    assert status == 2 and told.startswith("error: ") and told.count("\n") == 1
    assert re.search(pattern, told), told


@pytest.mark.parametrize(
    "args, told",
    [
        ((), "Flag --config must have a value other than None"),
        (("--workdir=@run", "--config=@none.py"), "none.py does not exist"),
        (("--workdir=@run", "--config=@good.py", "--config.data.source=@nowhere.txt"), "no file or folder"),
    ],
    ids=["no flags", "no file", "no data"],
)
def test_the_command(tmp_path, args, told):
    (tmp_path / "good.py").write_text(EXPERIMENT)
    command = [sys.executable, "-m", "lm.train", *(a.replace("@", f"{tmp_path}/") for a in args)]
    done = subprocess.run(command, env=tiny.one_device(), capture_output=True, text=True)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1, done.stderr
    assert told in done.stderr
    assert not (tmp_path / "run").exists()
