"""A run that is over in seconds: two layers of width 16, bytes, rows of 16 tokens, a corpus of a few pages."""

import dataclasses
import os
import random
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections.config_dict import ConfigDict

from lm.core.component import to_dict
from lm.core.mesh import Sharding
from lm.core.param import Tree, flatten
from lm.core.transform import Transform
from lm.model.attention import Attention
from lm.model.block import Block
from lm.model.embed import Embed
from lm.model.heads import LMHead
from lm.model.layers import RMSNorm
from lm.model.mlp import GatedMLP
from lm.model.moe.dispatch import Capacity
from lm.model.moe.layer import MoE
from lm.model.moe.routers import Router
from lm.model.residual import PreNorm
from lm.model.rotary import Rotary
from lm.model.stack import Stack
from lm.model.transformer import LanguageModel, Transformer
from lm.objectives.causal import NextToken
from lm.objectives.token_loss import TokenLoss
from lm.train.config import as_config, default
from lm.train.optim.adamw import AdamW
from lm.train.optim.optimizer import Optimizer
from lm.train.optim.schedule import ConstantRate, Cosine, Schedule
from lm.train.setup import Parts, assemble
from lm.train.step import Trainer
from lm.zoo.gpt2 import gpt2
from lm.zoo.registry import knobs

ROOT = Path(__file__).resolve().parents[2]
VOCAB, LENGTH, ROWS = 32, 16, 8


def config(folder: Path, schedule: Schedule = Cosine(warmup=4), **optimizer: Any) -> ConfigDict:
    """A run on `folder`/corpus.txt, which is written here if it is not there; `optimizer` holds knobs of AdamW."""
    corpus = folder / "corpus.txt"
    if not corpus.exists():
        rng = random.Random(0)
        words = ["mast", "sail", "keel", "oar", "tide"]
        corpus.write_text("".join(" ".join(rng.choices(words, k=8)) + "\n" for _ in range(300)))
    c = default()
    with c.unlocked():
        c.model = knobs("gpt2", layers=2, d_model=16, heads=4, vocab=384, context=LENGTH)
        c.optimizer, c.schedule = as_config(AdamW(**{"eps": 1e-4} | optimizer)), as_config(schedule)
    c.data.update(source=str(corpus), holdout=0.05, length=LENGTH, batch_size=ROWS, cache=str(folder / "cache"))
    c.train.steps = 12
    c.log.update(every=1, eval_every=0, eval_batches=2, checkpoint_every=0)
    return c


def one_device() -> dict[str, str]:
    """The environment of a process with one device and these tests' imports."""
    flags = os.environ["XLA_FLAGS"].replace("--xla_force_host_platform_device_count=8", "").strip()
    return os.environ | {"XLA_FLAGS": flags, "PYTHONPATH": str(ROOT)}


def use_one_device(monkeypatch: Any) -> None:
    """Runs of this process take the first device alone."""
    monkeypatch.setattr(Parts, "devices", jax.devices()[:1])


def dense(dropout: float = 0.0) -> LanguageModel:
    return gpt2(layers=2, d_model=16, heads=4, vocab=VOCAB, context=LENGTH, dropout=dropout)


def sparse(router: Router, capacity_factor: float = 1.25, dropout: float = 0.0) -> LanguageModel:
    """Two layers with four experts each."""
    moe = MoE(experts=4, expert=GatedMLP(16), router=router, dispatch=Capacity(capacity_factor))
    parts = (("attention", Attention(4, 4, rotary=Rotary())), ("mlp", moe))
    block = Block(parts, PreNorm(RMSNorm(), dropout=dropout))
    return LanguageModel(Transformer(16, Embed(VOCAB), Stack.of([block] * 2, norm=RMSNorm())), LMHead(VOCAB))


def trainer(
    model: LanguageModel,
    sharding: Sharding | None = None,
    loss: TokenLoss = TokenLoss(),
    accumulate: int = 1,
    dtype: str = "float32",
    transforms: tuple[Transform, ...] = (),
    optimizer: Optimizer = AdamW(eps=1e-4),
    **knobs: Any,
) -> tuple[Trainer, dict]:
    """A trainer and its hyperparameters; `knobs` are some of `optimizer`'s."""
    c = default()
    with c.unlocked():
        c.optimizer = as_config(dataclasses.replace(optimizer, **knobs))
        c.schedule = as_config(ConstantRate(warmup=0))
    c.train.update(accumulate=accumulate, dtype=dtype)
    c.transforms = tuple(map(to_dict, transforms))
    parts = assemble(c, model=model, objective=NextToken(loss), sharding=sharding)
    return parts.trainer, parts.hyper


def batch(seed: int = 0, rows: int = ROWS) -> dict[str, np.ndarray]:
    """Text-like rows: counting upwards with varying strides, one or two documents each, some of which end early."""
    rng = np.random.default_rng(seed)
    examples = []
    for _ in range(rows):
        tokens = (rng.integers(VOCAB) + rng.integers(1, 3) * np.arange(LENGTH + 1)) % VOCAB
        cut, end = sorted(rng.integers(1, LENGTH + 2, 2))
        segments = np.where(np.arange(LENGTH + 1) < cut, 1, 2) * (np.arange(LENGTH + 1) < end)
        row = {"tokens": tokens.astype(np.int32), "segments": segments.astype(np.int32)}
        examples.append(NextToken().examples()(row, rng))
    return {k: np.stack([e[k] for e in examples]) for k in examples[0]}


def bits(tree: Tree) -> dict[str, bytes]:
    return {path: np.asarray(leaf).tobytes() for path, leaf in flatten(tree)}


def leaves(tree: Tree) -> list[np.ndarray]:
    return [np.asarray(leaf) for _, leaf in flatten(tree)]


def at_layer(tree: Tree, leaf: str) -> jax.Array:
    """The one leaf whose path ends so."""
    (found,) = [x for path, x in flatten(tree) if path.endswith(leaf)]
    return found
