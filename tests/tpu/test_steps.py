"""What is compiled for pods, compiled for this machine's simulated devices: the generator's own programs, with
arguments that lie as its results do."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lm.core.param import initialize
from lm.infer.generate import Generator
from lm.infer.sampling import Sampler
from lm.train.config import default
from lm.train.setup import assemble
from lm.zoo.registry import knobs
from tpu import steps

ROWS, LENGTH = 8, 16


@functools.cache
def parts(family="llama", **mesh):
    config = default()
    with config.unlocked():
        own = {"kv_heads": 2} if family == "llama" else {"d_ff": 64}
        config.model = knobs(family, layers=2, d_model=32, heads=4, vocab=64, **own)
    config.data.batch_size, config.data.length = ROWS, LENGTH
    config.mesh.update(mesh)
    return assemble(config, devices=jax.devices()[: 8 if mesh else 1])


def shapes(tree):
    return jax.tree.map(lambda x: (x.shape, x.dtype), tree)


@pytest.mark.parametrize("step", [steps.train, steps.prefill, steps.decode])
def test_arguments_by_kind_are_all_arguments(step):
    found = step(parts(data=2, fsdp=2, tensor=2))
    given, taken = (
        sum(math.prod(x.shape) for x in jax.tree.leaves(tree)) for tree in (found.arguments, found.lowered.args_info)
    )
    few = 32 if step is steps.train else 0  # counters and traced knobs, which are of no kind
    assert given <= taken <= given + few
    assert found.tokens == (ROWS if step is steps.decode else ROWS * LENGTH) and found.flops > 0


def test_a_cache_lies_as_prefill_leaves_it():
    """Cut by rows over data and fsdp, by heads over tensor."""
    of = parts(data=2, fsdp=2, tensor=2)
    made = steps.prefill(of).lowered.compile().output_shardings[1]
    cache = steps.decode(of).arguments["cache"]
    for x, sharding in zip(jax.tree.leaves(cache), jax.tree.leaves(made), strict=True):
        if len(x.shape) == 4:
            assert x.sharding.shard_shape(x.shape) == sharding.shard_shape(x.shape) == (ROWS // 4, 1, LENGTH, 8)


def test_these_are_the_programs_that_generate():
    """On one device, with values: the token after a prompt, and the one after that."""
    of = parts()
    params = initialize(of.model.spec(), jax.random.key(0))
    prompts = np.arange(ROWS * (LENGTH - 2)).reshape(ROWS, -1) % 64
    generator = Generator(of.model, params)
    expected = np.array(generator(list(prompts), max_new=2, sampler=Sampler(temperature=0)))
    read, add = steps.prefill(of), steps.decode(of)
    assert shapes(read.arguments["parameters"]) == shapes(generator.params)
    tokens = np.pad(prompts, ((0, 0), (2, 0)))
    segments = np.pad(np.ones_like(prompts), ((0, 0), (2, 0)))
    batch = {"tokens": tokens, "segments": segments, "positions": np.maximum(segments.cumsum(1) - 1, 0)}
    keys = jax.random.split(jax.random.key(0), ROWS)
    batch = {k: jnp.asarray(v, jnp.int32) for k, v in batch.items()}
    # Sampled, not greedy: so only shapes are compared, and that the compiled programs take each other's results.
    token, cache = read.lowered.compile()(generator.params, batch, keys)
    assert token.shape == expected[:, 0].shape and shapes(cache) == shapes(add.arguments["cache"])
    token, _ = add.lowered.compile()(generator.params, cache, token, jnp.full(ROWS, LENGTH - 2), keys)
    assert token.shape == expected[:, 1].shape


def test_an_encoder_decoder_is_served():
    of = parts("t5")
    batch = steps.prefill(of, rows=2, length=8).arguments["batch"][0]
    assert batch["encoder/tokens"].shape == batch["tokens"].shape == (2, 8)
    assert steps.decode(of, rows=2, length=8).tokens == 2
