"""The command lines on a run of two steps: text, figures, and one line for a wrong flag."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from ml_collections.config_dict import ConfigDict

from lm.core.component import to_dict
from lm.objectives.blanks import BlankInfilling
from lm.train.config import default
from lm.train.loop import train
from lm.zoo.registry import knobs

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    text = folder / "text.txt"
    text.write_text("".join(f"{i} times {i} is {i * i}\n" for i in range(100)))
    config = default()
    with config.unlocked():
        config.model = knobs("gpt2", layers=1, d_model=8, heads=2, vocab=384, context=32)
    config.data.update(source=str(text), length=16, batch_size=8, cache=str(folder / "cache"), holdout=0.1)
    config.train.steps = 2
    train(config, folder / "run")
    return folder / "run"


def call(module: str, *args: str) -> subprocess.CompletedProcess:
    env = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "ascii"}
    return subprocess.run([sys.executable, "-m", module, *args], capture_output=True, text=True, cwd=ROOT, env=env)


def test_generate_prints_prompt_and_continuations(run):
    flags = [f"--checkpoint={run}", "--prompt=é 2", "--num=2", "--max_new=3"]
    done = call("lm.generate", *flags)
    assert done.returncode == 0, done.stderr
    one, two = done.stdout.split("\n--- 2 of 2\n")
    assert one.startswith("? 2") and two.startswith("? 2")  # what ASCII makes of it
    opening, compiling, speed = done.stderr.splitlines()[-3:]  # what takes a while is done before it begins
    assert opening == f"opening {run}" and compiling.startswith("compiling") and "tokens/s" in speed


@pytest.mark.slow
def test_generate_fills_in_blanks(tmp_path):
    """A model that was trained to write what is missing does so at both places: letters of the text, and no more."""
    text = tmp_path / "text.txt"
    text.write_text("abcdefgh" * 800)
    names = ("[MASK]", "[gMASK]", "[sop]", "[eop]")
    config = default()
    with config.unlocked():
        config.model = knobs("glm", layers=2, d_model=32, heads=2, vocab=400, context=64)
        config.objective = ConfigDict(to_dict(BlankInfilling()))
        config.optimizer.learning_rate = 1e-2
    config.data.update(source=str(text), length=24, batch_size=16, cache=str(tmp_path / "cache"), holdout=0.1)
    config.data.update(tokenizer="byte", reserved=names)
    config.train.steps = 250
    train(config, tmp_path / "run")
    flags = [f"--checkpoint={tmp_path / 'run'}", "--fill", "--temperature=0", "--max_new=8"]
    done = call("lm.generate", *flags, "--prompt=abc[MASK]ghabcdefgh[MASK]defghabcdefghab")
    assert done.returncode == 0, done.stderr
    assert re.fullmatch("abc[a-h]{1,8}ghabcdefgh[a-h]{1,8}defghabcdefghab\n", done.stdout)
    records = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert next(r["validation_loss"] for r in records if "validation_loss" in r) < 1.5  # of 8 letters: 2.1
    wrong = call("lm.generate", *flags, "--prompt=abc")
    assert wrong.returncode == 2 and "has no blank: write [MASK] or [gMASK]" in wrong.stderr


def test_evaluate_tells_bits_per_byte(run, tmp_path):
    out = tmp_path / "result.json"
    done = call("lm.evaluate", f"--checkpoint={run}", f"--out={out}")
    assert done.returncode == 0, done.stderr
    assert "bits per byte" in done.stdout
    result = json.loads(out.read_text())
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    last = next(r for r in reversed(records) if "validation_loss" in r)
    assert result["nats_per_token"] == pytest.approx(last["validation_loss"], rel=1e-5)
    assert result["bits_per_byte"] == pytest.approx(last["validation_bits_per_byte"], rel=1e-5)
    assert result["step"] == 2


@pytest.mark.parametrize(
    ("module", "flag", "named"),
    [
        ("lm.generate", "--temperature=-1", "temperature=-1.0"),
        ("lm.evaluate", "--batches=0", "--batches=0 must be at least 1"),
    ],
)
def test_wrong_flags_are_one_line(run, module, flag, named):
    prompt = ["--prompt=a"] if module == "lm.generate" else []
    done = call(module, f"--checkpoint={run}", *prompt, flag)
    assert done.returncode == 2
    line = done.stderr.splitlines()[-1]
    assert line.startswith("error: ") and named in line
    assert "Traceback" not in done.stderr
    assert not done.stdout
