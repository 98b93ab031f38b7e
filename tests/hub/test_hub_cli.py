"""`python -m lm.hub`: inspect, import, export; what is imported is a run like any other."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from absl import flags
from absl.testing import flagsaver

from lm.commands import hub as hub
from lm.core.errors import UserError
from lm.data.tokenizer import open_tokenizer
from lm.hub.open import open_folder
from lm.hub.save import save_folder
from lm.hub.text import read_text
from lm.infer.generate import Generator
from lm.infer.prompt import prompt_of
from lm.infer.sampling import Sampler
from lm.open import open_any
from lm.runs.checkpoint import open_model
from lm.train.initial import initial_params
from lm.zoo.registry import build
from tests import toys

pytest.importorskip("safetensors", reason="the package safetensors is not installed")
pytest.importorskip("tokenizers", reason="the package tokenizers is not installed")
from tests.hub.chat_model import KNOBS, TEMPLATE, text

flags.FLAGS.mark_as_parsed()
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A Hugging Face folder with tokenizer and chat template."""
    path = tmp_path_factory.mktemp("hf")
    save_folder(path, KNOBS, toys.values(build(KNOBS).spec()), text(), length=64)
    return path


@pytest.fixture(scope="module")
def run(folder, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("runs") / "run"
    hub.main(["", "import", str(folder), str(path)])
    return path


def same(got: Any, want: Any) -> None:
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(np.asarray(a), np.asarray(b)), got, want)


def test_inspect(folder, capsys):
    hub.main(["", "inspect", str(folder)])
    shown = capsys.readouterr().out
    for word in (
        "LlamaForCausalLM",
        "llama",
        "8,720",
        "2 × Block(residual=PreNorm",
        "attention: Attention(",
        "w = body/embed/token",
        "yes",
    ):
        assert word in shown, shown


@pytest.mark.parametrize(
    ("rows", "said"), [(257, "has 258 tokens and the model rows for 257"), (301, "and the tokenizer 258")]
)
def test_a_tokenizer_of_another_size_is_told(tmp_path, capsys, caplog, rows, said):
    knobs = KNOBS | {"vocab": rows, "layers": 1}
    save_folder(tmp_path / "hf", knobs, toys.values(build(knobs).spec()), text())
    hub.main(["", "inspect", str(tmp_path / "hf")])
    assert said in " ".join(capsys.readouterr().out.split())
    open_any(tmp_path / "hf")
    hub.main(["", "import", str(tmp_path / "hf"), str(tmp_path / "run")])
    assert [said in message for message in caplog.messages] == [True, True]


def test_inspect_tells_what_has_no_place(folder, tmp_path, capsys):
    config = json.loads((folder / "config.json").read_text()) | {"num_hidden_layers": 3, "intermediate_size": 25}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    with pytest.raises(SystemExit) as info:
        hub.main(["", "inspect", str(tmp_path)])
    shown = capsys.readouterr().out
    assert info.value.code == 1 and "opens: no" in shown
    assert "missing: model.layers.2." in shown and "gate_proj.weight is [24, 16], the model's [25, 16]" in shown
    assert "... and" in shown


def test_what_is_imported_is_a_run(folder, run):
    opened, there = open_model(run), open_folder(folder)
    assert opened.step == 0 and opened.model == there.model and opened.config.data.length == 64
    same(opened.params, there.params)
    assert opened.text.template == TEMPLATE and opened.text.ends == (0, 1) == read_text(folder).ends
    assert opened.tokenizer.fingerprint == read_text(folder).tokenizer.fingerprint
    same(initial_params(run, there.model), there.params)
    assert open_tokenizer(opened.config.data.tokenizer).fingerprint == opened.tokenizer.fingerprint
    assert open_any(run).step == 0 and open_any(folder).step is None


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_out_and_in_again(folder, run, tmp_path, dtype):
    """To the bit in float32; tokenizer, ends and template too."""
    with flagsaver.flagsaver(dtype=dtype, max_shard_size="2KB"):
        hub.main(["", "export", str(run / "checkpoints" / "0"), str(tmp_path / "out")])
    assert (tmp_path / "out" / "model.safetensors.index.json").is_file()
    there, again = open_folder(folder), open_folder(tmp_path / "out")
    assert again.model.spec() == there.model.spec()
    if dtype == "float32":
        same(again.params, there.params)
    left, right = read_text(folder), read_text(tmp_path / "out")
    assert left[1:] == right[1:] and left.tokenizer.fingerprint == right.tokenizer.fingerprint
    assert again.config["max_position_embeddings"] == 64


def test_what_is_neither_run_nor_folder(tmp_path):
    with pytest.raises(UserError, match=r"holds neither checkpoints/ nor config.json: give the --workdir"):
        open_any(tmp_path)
    with pytest.raises(UserError, match="is no folder: give the --workdir"):
        open_any(tmp_path / "gone")


def test_wrong_commands(folder, run, tmp_path):
    for argv, match in (
        ([], "'' is no command; known: export, import, inspect"),
        (["exprt"], r"did you mean 'export'\?"),
        (["import", "a"], "import takes PATH and OUT, not 1 arguments"),
        (["import", str(folder), str(run)], "holds a run already"),
        (["import", str(tmp_path / "no"), str(tmp_path / "out")], "no does not exist: give a Hugging Face"),
        (["inspect", str(run)], "is a training run: `python -m lm.hub export"),
        (["export", str(folder), str(tmp_path / "out")], "holds no checkpoints"),
        (["export", str(run), str(run)], "holds a run: choose another folder"),
    ):
        with pytest.raises(UserError, match=match):
            hub.main(["", *argv])
    with flagsaver.flagsaver(max_shard_size="5 apples"), pytest.raises(UserError, match="=5 apples is no size"):
        hub.main(["", "export", str(run), str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("text", "size"), [("500", 500), ("2KB", 2000), ("1.5gb", 1_500_000_000), ("1MiB", 2**20)])
def test_sizes(text, size):
    assert hub.size_of(text) == size


def call(module: str, *args: str, said: str = "") -> subprocess.CompletedProcess:
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, "-m", module, *args]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=env, input=said)


@pytest.mark.slow
def test_a_folder_generates_and_chats(folder):
    pytest.importorskip("jinja2", reason="the package jinja2 is not installed")
    done = call("lm.generate", f"--checkpoint={folder}", "--prompt=hi", "--max_new=3", "--temperature=0")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("hi")
    flags = [f"--checkpoint={folder}", "--chat", "--max_new=3", "--temperature=0"]
    done = call("lm.generate", *flags, "--system=short", said="hi\nand you\n")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count(" read the prompt\n") == 2
    done = call("lm.generate", *flags, "--prompt=hi<|end|>")
    assert done.returncode == 2 and "a special token of this model" in done.stderr
    done = call("lm.generate", f"--checkpoint={folder}", "--max_new=3")
    assert done.returncode == 2 and "--prompt is empty" in done.stderr


def test_an_encoder_decoder_reads_the_prompt(tmp_path):
    """Its output alone is printed; the decoder begins as config.json says."""
    knobs = {"family": "t5", "layers": 1, "d_model": 16, "heads": 2, "head_dim": 8, "d_ff": 24, "vocab": 300}
    words = text()._replace(start=1, after=(0,), template=None)
    config = save_folder(tmp_path, knobs, toys.values(build(knobs).spec()), words)
    assert config["decoder_start_token_id"] == 1
    done = call("lm.generate", f"--checkpoint={tmp_path}", "--prompt=hi there", "--max_new=3", "--temperature=0")
    assert done.returncode == 0, done.stderr
    opened, read = open_any(tmp_path), read_text(tmp_path)
    prompt = prompt_of(opened.model, read, read.tokenizer.encode("hi there"))
    assert prompt.ids.tolist() == [1]
    new = Generator(opened.model, opened.params)(
        [prompt.ids], encoder=[prompt.encoder], max_new=3, sampler=Sampler(temperature=0), eos_id=read.ends
    )
    assert done.stdout == read.tokenizer.decode(new[0]) + "\n"


def test_help_teaches():
    done = call("lm.hub", "--help")
    assert done.returncode == 0
    assert all(word in done.stdout for word in ("inspect", "import", "export", "--max_shard_size", "--dtype"))
    done = call("lm.hub", "inspect", "nowhere")
    assert done.returncode == 2
    assert done.stderr == "error: nowhere does not exist: give a Hugging Face folder or a .gguf file\n"
