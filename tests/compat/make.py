"""Makes the frozen runs that `test_frozen_runs` opens. From the top of a checkout that writes format N:

    python tests/compat/make.py tests/compat/format-N [RUN ...]

It says no more than all formats so far understand, so that it runs on the commits that wrote the earlier ones too
(format 0: 7d02341). Tiny runs on the same text, each with `expected.npz`, by the code that wrote it: logits, a
greedy continuation, and the losses of the steps with which it would have gone on."""

import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

os.environ["JAX_PLATFORMS"] = "cpu"
sys.path.insert(0, os.getcwd())

import numpy as np
from ml_collections.config_dict import ConfigDict

from lm.core.component import from_dict, to_dict
from lm.infer.generate import Generator
from lm.objectives.denoising import MixtureOfDenoisers
from lm.runs.checkpoint import open_model
from lm.train.config import default
from lm.train.loop import train
from lm.zoo.registry import build, knobs

try:
    from lm.zoo.switch import switch_decoder
except ImportError:  # commits that wrote formats 0 to 3
    from experiments.switch_toy import switch_decoder

STEPS, MORE, LENGTH = 6, 3, 24
WORDS = ("mast", "sail", "keel", "oar", "tide", "rope", "wind")


def text() -> str:
    lines = (" ".join(WORDS[(i * j + j) % 7] for j in range(1, 7)) for i in range(60))
    return "\n\n".join(lines) + "\n"


def configs() -> dict[str, ConfigDict]:
    """By name: a published family, averaged, under AdamW; experts under Muon; towers, denoising, under Adafactor; and
    since format 2 the first with int8 weights and adapters."""
    shape = {"layers": 2, "d_model": 8, "heads": 2, "vocab": 384}
    experts = switch_decoder(**shape, d_ff=16, experts=2)
    towers = build({"family": "ul2", **shape, "head_dim": 4, "d_ff": 16, "tied": True})
    dense = _config("adamw", knobs("llama", **shape, kv_heads=1, d_ff=16), ema=0.5)
    made = {} if "transforms" not in dense else {"adapted": dense.copy_and_resolve_references()}
    for adapted in made.values():
        adapted.transforms = ({"type": "Int8", "target": "attention"}, {"type": "LoRA", "rank": 2})
    return made | {
        "dense": dense,
        "experts": _config("muon", ConfigDict(to_dict(experts)), balance=0.01),
        "towers": _config("adafactor", ConfigDict(to_dict(towers)), MixtureOfDenoisers.of(LENGTH)),
    }


def _config(optimizer: str, model: ConfigDict, objective=None, ema: float = 0.0, balance: float | None = None):
    c = default()
    with c.unlocked():
        c.model = model
        if objective is not None:
            c.objective = ConfigDict(to_dict(objective))
        if balance is not None:  # as it was first stored, in the words of the commit that this runs on
            loss = {"type": "TokenLoss", "balance": balance}
            c.objective = ConfigDict(to_dict(from_dict({"type": "NextToken", "loss": loss})))
    c.data.update(source="corpus.txt", holdout=0.1, tokenizer="byte", length=LENGTH, batch_size=8, cache="cache")
    if "name" in c.optimizer:  # formats 0 and 1
        c.optimizer.update(name=optimizer, learning_rate=1e-2, schedule="constant", warmup=2, eps=1e-5, ema=ema)
    else:
        from lm.train.override import override

        kinds = {"adamw": "AdamW", "muon": "Muon", "adafactor": "Adafactor"}
        override(c, [("optimizer.type", kinds[optimizer]), ("schedule.type", "ConstantRate"), ("schedule.warmup", "2")])
        c.optimizer.update(learning_rate=1e-2, ema=ema, **({} if optimizer == "adafactor" else {"eps": 1e-5}))
    c.train.steps = STEPS
    c.log.update(every=1, eval_every=0, eval_batches=2, checkpoint_every=0, keep=1)
    return c


def batch_for(two_towers: bool) -> dict[str, np.ndarray]:
    """Two rows that a model scores, the second one with two documents and padding at its end."""
    tokens = np.frombuffer((text()[:16] + text()[40:56]).encode(), np.uint8).astype(np.int32).reshape(2, 16) + 3
    positions = np.stack([np.arange(16), np.r_[0:6, 0:6, [0] * 4]]).astype(np.int32)
    segments = np.stack([np.ones(16), np.r_[[1] * 6, [2] * 6, [0] * 4]]).astype(np.int32)
    own = {"tokens": tokens, "positions": positions, "segments": segments}
    return own | {f"encoder/{k}": v for k, v in own.items()} if two_towers else own


def answers(run: Path) -> dict[str, np.ndarray]:
    """What the model of a run says: every eighth logit [tokens, V / 8] of `batch_for` where a row has text, and a
    continuation [8] of its first row."""
    opened = open_model(run)
    two = hasattr(opened.model, "encoder")
    batch = batch_for(two)
    logits = np.asarray(opened.model(opened.params, batch), np.float32)
    prompt, encoder = ([batch["tokens"][0, :1]], [batch["tokens"][0]]) if two else ([batch["tokens"][0]], None)
    written = Generator(opened.model, opened.params)(prompt, max_new=8, encoder=encoder)[0]
    return {"logits": logits[batch["segments"] > 0][:, ::8], "written": written}


def losses(run: Path, after: int) -> list[float]:
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [r["loss"] for r in lines if "loss" in r and r["step"] > after]


def make(out: Path, chosen: list[str]) -> None:
    out.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as scratch:
        os.chdir(scratch)  # paths in a checkpoint are those of the config: none of this machine's
        Path("corpus.txt").write_text(text())
        for name, config in configs().items():
            if chosen and name not in chosen:
                continue
            run = Path(name)
            train(config, run)
            shutil.copytree(run, out / name)
            for unneeded in ("loss.png", "lock"):
                (out / name / unneeded).unlink(missing_ok=True)
            expected = answers(run)
            config.train.steps += MORE
            validation = train(config, run)["loss"]
            expected |= {"losses": np.array(losses(run, STEPS)), "validation": np.float64(validation)}
            np.savez_compressed(out / name / "expected.npz", **expected)
        shutil.copy("corpus.txt", out)


if __name__ == "__main__":
    make(Path(sys.argv[1]).resolve(), sys.argv[2:])
