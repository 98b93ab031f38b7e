"""Cached equals uncached: decoding through cache, in chunks and with left-padded rows, gives the logits of one call."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lm.core.ctx import Execution
from lm.core.walk import Scan, Unrolled
from lm.model.cache import CacheShape, KVCache, for_rows, rewind
from tests import toy_towers, toys

PAD = np.array([0, 3])  # padding on the left of each row
MANY, TWO = (4, 1, 2, 1), (4, 4)  # the first is the prompt: a prefix must lie within it
UNROLLED = {"learned_positions": MANY, "recurrent": TWO}  # through the scan: all others


def shifted(whole: jax.Array) -> dict:
    """Rows [B, S], moved right by PAD: padding has segment 0, positions count from the first real token."""
    positions = np.arange(whole.shape[1]) - PAD[:, None]
    source = np.take_along_axis(np.asarray(whole), np.maximum(positions, 0), axis=1)
    return {
        "tokens": jnp.asarray(np.where(positions < 0, 7, source)),
        "positions": jnp.asarray(np.maximum(positions, 0)),
        "segments": jnp.asarray((positions >= 0).astype(np.int32)),
    }


def in_chunks(
    model, params, batch: dict, cache, chunks=TWO, once: dict | None = None, execution=Execution()
) -> jax.Array:
    """Logits of a batch fed in pieces; `once` are further rows of the first call."""
    found, start = [], 0
    for n in chunks:
        piece = {k: v[:, start : start + n] for k, v in batch.items()} | (once or {} if start == 0 else {})
        logits, cache, _ = toys.forward(model, params, piece, cache=cache, execution=execution)
        found.append(logits)
        start += n
    return jnp.concatenate(found, axis=1)


def compare(cached: jax.Array, whole: jax.Array) -> None:
    """Logits of padded rows equal those of the same tokens without padding."""
    for row, pad in enumerate(PAD):
        toys.close(cached[row, pad:], whole[row, : whole.shape[1] - pad], atol=2e-5)


@pytest.mark.parametrize("name", toys.DECODERS)
def test_decoding_equals_one_call(name):
    model = toys.DECODERS[name]()
    params, whole = toys.values(model.spec()), toys.tokens(2)
    batch, rows = shifted(whole), {"tokens": whole}
    if name == "prefixed":
        batch["prefix"] = (batch["positions"] < 1 + PAD[::-1, None] // 3) & (batch["segments"] > 0)
        rows["prefix"] = jnp.arange(toys.LENGTH) < 1 + PAD[::-1, None] // 3
        assert toys.differ(toys.forward(model, params, {"tokens": whole})[0], toys.forward(model, params, rows)[0])
    expected, _, _ = toys.forward(model, params, rows)
    chunks = UNROLLED.get(name, MANY if name == "grouped_queries" else TWO)
    cache = model.cache(toys.shape(2))
    execution = Execution(walk=Unrolled() if name in UNROLLED else Scan())
    compare(in_chunks(model, params, batch, cache, chunks, execution=execution), expected)


def test_caches_primed_by_the_first_call_stand_in_for_the_encoder():
    model = toy_towers.encoder_decoder()
    params, whole = toys.values(model.spec()), toys.tokens(2)
    source = {"encoder/tokens": toys.tokens(2, 5, 1), "encoder/segments": jnp.array([[1] * 5, [1, 1, 1, 0, 0]])}
    expected, _, _ = toys.forward(model, params, {"tokens": whole, **source})
    cache = model.cache(toys.shape(2, memory=5))
    compare(in_chunks(model, params, shifted(whole), cache, once=source), expected)
    # What stands in the padding of the source does not matter, what stands before it does.
    for where, matters in ((4, False), (1, True)):
        other = source | {"encoder/tokens": source["encoder/tokens"].at[1, where].add(1) % toys.VOCAB}
        assert toys.differ(expected[1], toys.forward(model, params, {"tokens": whole, **other})[0][1]) == matters


def test_caches_keep_their_dtype():
    model = toy_towers.encoder_decoder()
    params = toys.values(model.spec())
    shape = CacheShape(2, toys.LENGTH, 5, jnp.bfloat16)
    batch = {
        "tokens": toys.tokens(2, 4),
        "positions": jnp.tile(jnp.arange(4), (2, 1)),
        "encoder/tokens": toys.tokens(2, 5),
    }
    before = model.cache(shape)
    _, after, _ = jax.eval_shape(lambda p, b, s: toys.forward(model, p, b, cache=s), params, batch, before)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), before) == jax.tree.map(lambda x: (x.shape, x.dtype), after)


def test_rows_have_lengths_of_their_own():
    """A row that was rewound goes on by itself, and a row of another cache takes the place of one of this."""
    model = toys.windows()
    params, whole = toys.values(model.spec()), toys.tokens(2)
    expected = toys.forward(model, params, {"tokens": whole})[0]

    def read(tokens: jax.Array, positions: list[int], cache) -> tuple:
        batch = {"tokens": tokens, "positions": jnp.asarray(positions)[:, None] + jnp.arange(tokens.shape[1])}
        logits, cache, _ = toys.forward(model, params, batch, cache=cache)
        return logits, cache

    _, cache = read(whole[:, :6], [0, 0], model.cache(toys.shape(2)))
    lengths = jnp.array([6, 4])
    cache = rewind(cache, lengths)
    at = lengths[:, None] + jnp.arange(2)
    logits, after = read(jnp.take_along_axis(whole, at, axis=1), [6, 4], cache)
    toys.close(logits, jnp.take_along_axis(expected, at[..., None], axis=1))
    assert [part.lengths.tolist() for layer in after for part in layer.values() if isinstance(part, KVCache)] == [
        [8, 6]
    ] * 7

    _, other = read(toys.tokens(2, 6, seed=9), [0, 0], model.cache(toys.shape(2)))
    mixed = for_rows(jnp.array([False, True]), cache, other)  # the second row as it was, and as long as in `other`
    logits, _ = read(whole[:, 4:6], [6, 4], rewind(mixed, lengths))
    toys.close(logits[1], expected[1, 4:6])
