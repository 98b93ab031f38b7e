"""Our side of `make bench`: the training step of lm.train and cached decoding of lm.infer."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.protocol import DECODE, MATMUL, SHAPES, serve
from lm.core.ctx import Execution
from lm.core.param import initialize
from lm.core.walk import Unrolled
from lm.infer.generate import Generator
from lm.infer.sampling import Sampler
from lm.model.transformer import LanguageModel
from lm.train.config import default
from lm.train.setup import assemble
from lm.zoo.gpt2 import gpt2


def model_of(shape: str) -> LanguageModel:
    s = SHAPES[shape]
    return gpt2(layers=s.layers, d_model=s.d, heads=s.heads, vocab=s.vocab, context=s.length)


def training(shape: str, dtype: str, **run: Any) -> Callable[[], object]:
    s, config = SHAPES[shape], default()
    config.train.dtype = dtype
    parts = assemble(config, model=model_of(shape), execution=Execution(**run), sharding=None)
    state = parts.trainer.init(parts.hyper)
    step_fn = parts.trainer.jitted(state)
    tokens = np.random.default_rng(0).integers(s.vocab, size=(s.rows, s.length), dtype=np.int32)
    batch = {"tokens": tokens, "targets": tokens, "weights": np.ones(tokens.shape, np.float32)}
    batch = jax.device_put(batch)

    def step() -> None:
        nonlocal state
        state, metrics = step_fn(state, batch)
        float(metrics["loss"].total)

    return step


def decoding(shape: str, rows: int) -> Callable[[], object]:
    s, model = SHAPES[shape], model_of(shape)
    generate = Generator(model, initialize(model.spec(), jax.random.key(0)))
    prompts = list(np.random.default_rng(0).integers(1, s.vocab, size=(rows, DECODE.prompt), dtype=np.int32))
    return lambda: generate(prompts, max_new=DECODE.new, sampler=Sampler(temperature=0.0))


def matmul(n: int = MATMUL) -> Callable[[], object]:
    a, b = jax.random.normal(jax.random.key(0), (2, n, n))
    f = jax.jit(jnp.matmul)
    return lambda: f(a, b).block_until_ready()


MAKERS = {
    "lm float32": lambda shape: training(shape, "float32", walk=Unrolled()),
    "lm bfloat16": lambda shape: training(shape, "bfloat16", walk=Unrolled()),
    **{f"lm decoding, batch {n}": lambda shape, n=n: decoding(shape, n) for n in DECODE.rows},
    "XLA float32 matmul": lambda shape: matmul(),
}

if __name__ == "__main__":
    serve(MAKERS)
