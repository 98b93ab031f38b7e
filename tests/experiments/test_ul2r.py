"""A causal run goes on as a denoising one, the whole way: another objective, open masks, more tokens."""

import io
import json

import numpy as np
import pytest
from rich.console import Console

from experiments import ul2r
from lm.model.masks import Prefix
from lm.runs.checkpoint import open_model
from lm.train.config import check
from lm.train.loop import train
from lm.zoo.registry import knobs
from tests.train import tiny

CONTEXT = 64


def small(config, folder):
    config.data.update(source=str(folder / "corpus.txt"), cache=str(folder / "cache"), batch_size=8, holdout=0.05)
    config.log.update(every=1, eval_every=0, eval_batches=2, checkpoint_every=20)
    config.optimizer.learning_rate = 3e-3
    config.schedule.warmup = 3
    return config


def losses(folder):
    seen = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [m["objective"] for m in seen if "objective" in m and "grad_norm" in m]


def run(config, folder):
    console = Console(file=io.StringIO(), width=400)
    train(config, folder, console)
    return console.file.getvalue()


def test_the_config_is_sound():
    config = ul2r.get_config()
    check(config)
    assert config.data.length == 189 and config.objective.stream == 256


@pytest.mark.slow
def test_a_causal_run_goes_on_with_denoisers(tmp_path, monkeypatch):
    tiny.use_one_device(monkeypatch)
    causal = small(tiny.config(tmp_path), tmp_path)
    with causal.unlocked():
        causal.model = knobs("gpt2", layers=2, d_model=32, heads=4, vocab=384, context=CONTEXT)
    causal.data.length, causal.train.steps = CONTEXT, 60
    run(causal, tmp_path / "causal")

    config = small(ul2r.get_config(str(CONTEXT)), tmp_path)
    config.train.update(init_from=str(tmp_path / "causal"), steps=60)
    said = run(config, tmp_path / "denoising")
    assert "NonCausal" in said and "GrowVocabulary" in said
    found, before = open_model(tmp_path / "denoising"), open_model(tmp_path / "causal")
    assert found.model.vocab == before.model.vocab + 3 == found.tokenizer.vocab_size
    assert all(block.parts[0][1].mask == Prefix() for block in found.model.body.stack.blocks())
    # It begins with what the causal run knows, and learns.
    curve = losses(tmp_path / "denoising")
    assert np.mean(curve[-5:]) < np.mean(curve[:5]) - 0.1
    assert curve[0] < losses(tmp_path / "causal")[0] - 0.5
