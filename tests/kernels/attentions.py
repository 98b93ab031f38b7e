"""What kernels of attention are tried on: texts in rows, and arrays of small sizes."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lm.core.rows import Tokens
from lm.kernels.attention.reference import reference
from lm.kernels.attention.spec import Attend, AttentionSpec
from lm.kernels.place import Place

CPU = Place("cpu")


class Asked(NamedTuple):
    """The arguments of a kernel. `real` [B, S]: queries whose result is read, which are those that see a key."""

    qkv: tuple
    spec: AttentionSpec
    tokens: tuple[Tokens, Tokens]
    sinks: jax.Array | None
    real: np.ndarray


def texts(length: int, cuts: list[int], padding: int = 0, prefix: int = 3) -> Tokens:
    """A row [1, length] of texts that end at `cuts` and at its end, where there is padding."""
    index = np.arange(length)
    segments = np.searchsorted(cuts, index, side="right") + 1
    segments[length - padding :] = 0
    starts = np.r_[True, segments[1:] != segments[:-1]]
    positions = index - np.maximum.accumulate(np.where(starts, index, 0))
    seen = np.random.default_rng(length).integers(0, 9, length) == 0
    row = {"positions": positions, "segments": segments, "prefix": positions < prefix, "globals": seen.astype(int)}
    return Tokens(**{name: jnp.asarray(values)[None] for name, values in row.items()})


def asked(spec: AttentionSpec, q: Tokens, k: Tokens, heads=(2, 1), widths=(8, 16), dtype=jnp.float32, rows=1) -> Asked:
    rng = np.random.default_rng(0)
    draw = lambda *shape: jnp.asarray(rng.standard_normal((rows, *shape)), dtype)  # noqa: E731
    q, k = (jax.tree.map(lambda x: jnp.tile(x, (rows, 1)), tokens) for tokens in (q, k))
    s, t = q.positions.shape[1], k.positions.shape[1]
    (h, kv), (d, w) = heads, widths
    sinks = draw(h)[0].astype(jnp.float32) if spec.sinks else None
    real = np.ones((rows, s), bool)
    if q.segments is not None:
        real = np.isin(q.segments, k.segments) & (np.asarray(q.segments) > 0)
    return Asked((draw(h, s, d), draw(kv, t, d), draw(kv, t, w)), spec, (q, k), sinks, real)


def both(attend: Attend, a: Asked, **own) -> tuple:
    """What a kernel gives for real queries, and its gradients by queries, keys, values and sinks where those are."""
    shape = (*a.qkv[0].shape[:3], a.qkv[2].shape[3])
    target = np.random.default_rng(1).standard_normal(shape) * a.real[:, None, :, None]

    def loss(qkv: tuple, sinks: jax.Array | None) -> tuple:
        y = attend(*qkv, a.spec, *a.tokens, sinks=sinks, **{"place": CPU} | own)
        return (y * target).sum(), y

    gradients, y = jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True))(a.qkv, a.sinks)
    assert jnp.isfinite(y).all()  # of padding too
    return y * a.real[:, None, :, None], gradients


def agrees(attend: Attend, a: Asked, close: float, **own) -> None:
    """With the reference: differences are less than `close` of the largest value of each array."""
    for mine, exact in zip(*(jax.tree.leaves(r) for r in (both(attend, a, **own), both(reference, a))), strict=True):
        assert mine.dtype == exact.dtype and mine.shape == exact.shape
        mine, exact = (np.asarray(x, np.float32) for x in (mine, exact))
        np.testing.assert_allclose(mine, exact, atol=close * (np.abs(exact).max() + 1e-2))
