"""A run's folder is enough to have its model back, in a process that has seen nothing else of it."""

import dataclasses
import pickle
import re
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lm.core.errors import UserError
from lm.data.learn import train_sentencepiece
from lm.data.sources import Document
from lm.runs.checkpoint import Checkpoints, meta_of, open_model
from lm.text.tokenizers import ByteTokenizer, SentencePieceTokenizer
from lm.train.state import State, save_state, saved_state
from tests import toys
from tests.train import tiny

MODEL = tiny.sparse(toys.balanced())


def state_of(step: int) -> State:
    """A state whose every number tells its step; nothing is compiled for it."""
    trainer, hyper = tiny.trainer(MODEL)
    rng = np.random.default_rng(step)
    draw = lambda x: jnp.asarray(rng.normal(size=x.shape), x.dtype)  # noqa: E731
    shapes = jax.eval_shape(lambda: trainer.init(hyper))
    return dataclasses.replace(jax.tree.map(draw, shapes), step=jnp.int32(step), hyper=hyper)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    text = "the quick brown fox jumps over the lazy dog\n" * 20
    path = tmp_path_factory.mktemp("tokenizer") / "own.model"
    return train_sentencepiece([Document("a", text)], 300, path, sentinels=2)


def save(workdir: Path, tokenizer, *steps: int) -> None:
    config = tiny.config(workdir)
    checkpoints = Checkpoints(workdir, keep=2)
    for step in steps:
        save_state(checkpoints, state_of(step), meta_of(config, MODEL, tokenizer, "digest"))
    checkpoints.close()


@pytest.fixture(scope="module")
def run(tmp_path_factory, tokenizer):
    folder = tmp_path_factory.mktemp("run")
    save(folder, tokenizer, 3, 5, 9)
    return folder


def test_open_model(run, tokenizer):
    opened = open_model(run)
    assert opened.step == 9 and opened.model == MODEL
    assert tiny.bits(opened.params) == tiny.bits(state_of(9).params)
    assert all(isinstance(x.sharding, jax.sharding.SingleDeviceSharding) for x in jax.tree.leaves(opened.params))
    assert opened.config.data.length == tiny.LENGTH and opened.config.objective.type == "NextToken"
    assert opened.tokenizer.fingerprint == tokenizer.fingerprint
    assert opened.tokenizer.encode("the fox").tolist() == tokenizer.encode("the fox").tolist()
    assert tiny.bits(open_model(run, step=5).params) == tiny.bits(state_of(5).params)


def test_a_process_that_knows_no_component_can_open_it(run):
    code = (
        "import sys; from lm.runs.checkpoint import open_model; "
        "opened = open_model(sys.argv[1]); print(opened.step, opened.tokenizer.vocab_size)"
    )
    done = subprocess.run([sys.executable, "-c", code, run], env=tiny.one_device(), capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "9 300\n", "")


def test_state_comes_back_to_the_bit_with_new_hyperparameters(run):
    trainer, hyper = tiny.trainer(MODEL, learning_rate=0.5)
    got = saved_state(Checkpoints(run, read_only=True), 9, trainer.abstract(hyper), hyper)
    want = state_of(9)
    assert jax.tree.structure(got) == jax.tree.structure(want)
    assert tiny.bits((got.params, got.opt)) == tiny.bits((want.params, want.opt))
    assert got.step == 9 and got.step.dtype == jnp.int32 and got.hyper["learning_rate"] == 0.5


def test_the_last_ones_are_kept(run):
    assert Checkpoints(run, read_only=True).steps == [5, 9]


def test_missing_checkpoints(run, tmp_path):
    with pytest.raises(UserError, match=r"has no checkpoint of step 7; there are: 5, 9$"):
        open_model(run, step=7)
    with pytest.raises(UserError, match=r"holds no checkpoints: give the --workdir of a training run$"):
        open_model(tmp_path)
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(UserError, match=r"has no checkpoint; there are: none yet$"):
        open_model(tmp_path)


def largest_file(folder: Path) -> Path:
    return max((f for f in folder.rglob("*") if f.is_file()), key=lambda f: f.stat().st_size)


def truncate(folder: Path) -> str:
    file = largest_file(folder / "params")
    file.write_bytes(file.read_bytes()[:100])
    return rf"{file.name} has 100 bytes, not \d+"


def flip_a_bit(folder: Path) -> str:
    file = largest_file(folder / "opt")
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    return rf"{file.name} has changed since it was written"


def remove(folder: Path) -> str:
    file = largest_file(folder / "params")
    file.unlink()
    return rf"{file.name} is missing"


def leave_unfinished(folder: Path) -> str:
    (folder / "manifest.json").unlink()
    return r"it has no manifest\.json: it was not written to its end"


@pytest.mark.parametrize("harm", [truncate, flip_a_bit, remove, leave_unfinished])
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_used(run, tmp_path, caplog, harm):
    shutil.copytree(run, tmp_path, dirs_exist_ok=True)
    nine = tmp_path / "checkpoints/9"
    wrong = harm(nine)
    message = rf"checkpoint {nine} is damaged \((\S+/)?{wrong}\); that of step 5 is used$"
    assert open_model(tmp_path).step == 5
    assert re.search(message, caplog.messages[-1]) and "\n" not in caplog.messages[-1]
    with pytest.raises(UserError, match=rf"checkpoint {nine} is damaged \(.*{wrong}\): use another of the steps 5, 9$"):
        open_model(tmp_path, step=9)

    # A run that goes on sets it aside, and can save that step again.
    caplog.clear()
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.latest == 5 and re.search(message, caplog.messages[-1])
    assert not nine.exists() and (tmp_path / "checkpoints/9.damaged").is_dir()
    save_state(checkpoints, state_of(9), meta_of(tiny.config(tmp_path), MODEL, ByteTokenizer(), "digest"))
    checkpoints.close()
    assert open_model(tmp_path).step == 9


def test_no_run_starts_over_where_every_checkpoint_is_damaged(run, tmp_path, caplog):
    shutil.copytree(run, tmp_path, dirs_exist_ok=True)
    for step in (5, 9):
        truncate(tmp_path / f"checkpoints/{step}")
    for use in (Checkpoints, open_model):
        with pytest.raises(UserError, match=r"every checkpoint in .* is damaged \(of step 9, .*\): restore one"):
            use(tmp_path)
    assert (tmp_path / "checkpoints/9").is_dir()
    for step in (5, 9):  # but a first save that a kill cut short is nothing to stop for
        leave_unfinished(tmp_path / f"checkpoints/{step}")
    assert Checkpoints(tmp_path).latest is None
    assert "no earlier one" in caplog.messages[-1]


def test_tokenizers_from_bytes(tokenizer):
    for copy in (SentencePieceTokenizer.from_bytes(tokenizer.model), pickle.loads(pickle.dumps(tokenizer))):
        assert copy.fingerprint == tokenizer.fingerprint and copy.model == tokenizer.model
        assert copy.decode(copy.encode("lazy fox ▁ é")) == "lazy fox ▁ é"
        assert copy.sentinel(1) == tokenizer.sentinel(1)
    for broken in (b"", b"not a model"):
        with pytest.raises(UserError, match=r"^the saved tokenizer is"):
            SentencePieceTokenizer.from_bytes(broken)
