"""Ring attention (Liu et al. 2023, arXiv 2310.01889): the tokens of a row lie on several devices, and blocks of keys
and values go round them, from one to the next, while each device keeps its own queries. What `jax.shard_map` runs on
each device; `lm.parallel.context` calls it.

Scores of one block of queries with one block of keys are all that exists at once, in the gradient too, which goes round
again with the gradients of keys and values beside them. Of n devices each holds S / n of everything.

Pairs of blocks that the mask's band hides are not computed, and keys that hardly anybody sees are not sent all the way
round. Under a causal mask the last tokens see most: in zig-zag order device i of n has the chunks i and 2 n - 1 - i of
a row of 2 n, and all have as much to do (as in Megatron-LM; compare Brandon et al. 2023, arXiv 2311.09431).

Shapes: B batch, S queries, T keys, K key/value heads, G queries that share one, H = K G; N blocks of s queries, M
blocks of t keys; d width of a key, w of a value."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from lm.core.rows import HIDDEN, Tokens, visible
from lm.kernels.attention.spec import AttentionSpec

Array = jax.Array

BLOCK = 512  # queries, and keys, of which scores exist at once, at most
TINY = 1e-30  # the least sum of weights: of a query that sees nothing at all


def zigzag(device: Any, ways: int) -> list:
    """Of the 2 n chunks of a row, those of a device in zig-zag order, as they lie there."""
    return [device, 2 * ways - 1 - device]


@dataclasses.dataclass(frozen=True)
class Ring:
    """An attention on a ring of devices; nothing of it is traced.

    spec: what is asked for, of which `supports` approves;
    axes: the mesh axes whose devices are the ring;
    ways: their number, n;
    zigzag: device i has the chunks i and 2 n - 1 - i of queries, and of aligned keys; else the i-th n-th;
    block: at most so many queries and keys meet at once."""

    spec: AttentionSpec
    axes: tuple[str, ...]
    ways: int
    zigzag: bool = False
    block: int = BLOCK

    def __call__(
        self, q: Array, k: Array, v: Array, q_tokens: Tokens, k_tokens: Tokens, sinks: Array | None, bias: Any
    ) -> Array:
        """q [B, H, S / n, d], k [B, K, T / n, d], v [B, K, T / n, w] of this device and their tokens; sinks [H] and
        bias, a `jax.tree_util.Partial`, where `spec` has them -> [B, H, S / n, w]."""
        return _ring(self, q, k, v, q_tokens, k_tokens, sinks, bias)

    @property
    def band(self) -> tuple[int | None, int | None]:
        """Of key index minus query index, in the order of the row."""
        return self.spec.mask.band() if self.spec.aligned else (None, None)

    def chunks(self, device: Any) -> list:
        """The numbers of the chunks of a row that a device has."""
        return zigzag(device, self.ways) if self.zigzag else [device]

    def sees(self, query: Any, queries: int, key: Any, keys: int) -> Any:
        """Whether the band shows any of so many keys from index `key` on to any of the queries from `query` on."""
        low, high = self.band
        near = True if low is None else key + keys - 1 - query >= low
        return near & (True if high is None else key - query - queries + 1 <= high)

    def hops(self, length: int) -> tuple[int, int]:
        """(first, number): keys and values are needed from the devices that many places behind, of a row of that
        length; the shortest run that covers all of which some device sees something. Static."""
        n = self.ways
        size = length // len(self.chunks(0)) // n

        def needed(hop: int) -> bool:
            pairs = ((a, b) for i in range(n) for a in self.chunks(i) for b in self.chunks((i - hop) % n))
            return any(self.sees(a * size, size, b * size, size) for a, b in pairs)

        useful = [hop for hop in range(n) if needed(hop)]
        # Round the ring, the longest run of hops that nobody needs is left out.
        gaps = [(b - a, b % n) for a, b in zip(useful, [*useful[1:], useful[0] + n], strict=True)]
        longest, first = max(gaps, key=lambda gap: (gap[0], -gap[1]))
        return first, n - longest + 1

    def work(self, length: int) -> list[int]:
        """How many pairs of a query and a key each device computes, by blocks, of rows of that length."""
        size = self.block_of(length // self.ways)
        own = [[int(start) for start in self.starts(i, length // self.ways)] for i in range(self.ways)]
        every = [start for starts in own for start in starts]
        return [size**2 * sum(bool(self.sees(a, size, b, size)) for a in starts for b in every) for starts in own]

    def starts(self, device: Any, tokens: int) -> Array:
        """The index in its row at which each block of a device with so many tokens begins, [N]."""
        chunks = jnp.stack([jnp.asarray(c) for c in self.chunks(device)])
        each, size = tokens // len(chunks), self.block_of(tokens)
        return (chunks[:, None] * each + jnp.arange(each // size) * size).reshape(-1)

    def block_of(self, tokens: int) -> int:
        """The largest block that divides the chunks of a device with so many tokens."""
        each = tokens // len(self.chunks(0))
        return max(size for size in range(1, min(self.block, each) + 1) if each % size == 0)


def supports(spec: AttentionSpec) -> str | None:
    """None, or what stands against an attention on a ring, in a few words."""
    if spec.probs:
        return "probabilities are dropped out or recorded, which needs them all at once"
    if spec.own or spec.extra:
        return "there are keys beside those of the row"
    return "a bias needs all queries and keys at once" if spec.bias == "whole" else None


class Queries(NamedTuple):
    """Blocks of a device's queries, and what is known of each: a leading axis N."""

    q: Array  # [N, B, K, G, s, d]
    tokens: Tokens  # [N, B, s]
    start: Array  # [N] index in the row


class Keys(NamedTuple):
    """Blocks of keys, on their way round: a leading axis M."""

    k: Array  # [M, B, K, t, d]
    v: Array  # [M, B, K, t, w]
    tokens: Tokens  # [M, B, t]


class SoftmaxSums(NamedTuple):
    """What an online softmax knows of each query: float32 [N, B, K, G, s, ...]."""

    out: Array  # [..., w] the sum of exp(score - top) times values
    top: Array  # [..., 1] the highest score so far
    total: Array  # [..., 1] the sum of exp(score - top)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _ring(ring: Ring, q: Array, k: Array, v: Array, q_tokens: Tokens, k_tokens: Tokens, sinks: Any, bias: Any) -> Array:
    return _forward(ring, q, k, v, q_tokens, k_tokens, sinks, bias)[0]


def _forward(
    ring: Ring, q: Array, k: Array, v: Array, q_tokens: Tokens, k_tokens: Tokens, sinks: Any, bias: Any
) -> tuple[Array, tuple]:
    queries, keys = _blocks(ring, q, k, v, q_tokens, k_tokens)
    empty = jnp.zeros((*queries.q.shape[:-1], 1), jnp.float32)
    if sinks is None:
        sums = SoftmaxSums(jnp.zeros((*empty.shape[:-1], v.shape[-1]), jnp.float32), empty + HIDDEN, empty)
    else:  # a key of its own score and no value comes first
        first = empty + sinks.astype(jnp.float32).reshape(*queries.q.shape[2:4], 1, 1)
        sums = SoftmaxSums(jnp.zeros((*empty.shape[:-1], v.shape[-1]), jnp.float32), first, empty + 1)

    def meet(sums: SoftmaxSums, keys: Keys, device: Array) -> SoftmaxSums:
        """All blocks of queries with those of keys that come from a device."""

        def one(_: None, of: tuple[Queries, SoftmaxSums]) -> tuple[None, SoftmaxSums]:
            own, sums = of

            def add(sums: SoftmaxSums, keys: Keys) -> SoftmaxSums:
                scores = _hide(_seen(ring, own, keys), _scores(ring, own, keys, bias))
                top = jnp.maximum(sums.top, scores.max(axis=-1, keepdims=True))
                weights, kept = jnp.exp(scores - top), jnp.exp(sums.top - top)
                read = jnp.einsum("bkgst,bktw->bkgsw", weights.astype(v.dtype), keys.v, **_F32)
                return SoftmaxSums(sums.out * kept + read, top, sums.total * kept + weights.sum(axis=-1, keepdims=True))

            def each(sums: SoftmaxSums, of: tuple[Keys, Array]) -> tuple[SoftmaxSums, None]:
                keys, start = of
                step = lambda sums: add(sums, keys)  # noqa: E731
                return _if_seen(ring, own, keys, start, step, sums), None

            return None, jax.lax.scan(each, sums, (keys, ring.starts(device, k.shape[2])))[0]

        return jax.lax.scan(one, None, (queries, sums))[1]

    sums, _ = _round(ring, q.shape[2], sums, keys, None, lambda sums, keys, _, device: (meet(sums, keys, device), None))
    total = jnp.maximum(sums.total, TINY)
    out = _joined((sums.out / total).astype(v.dtype))
    return out, (q, k, v, q_tokens, k_tokens, sinks, bias, out, sums.top, total)


def _backward(ring: Ring, saved: tuple, d_out: Array) -> tuple:
    q, k, v, q_tokens, k_tokens, sinks, bias, out, top, total = saved
    queries, keys = _blocks(ring, q, k, v, q_tokens, k_tokens)
    d_out, out = (_cut(x.reshape(*q.shape[:1], k.shape[1], -1, *x.shape[2:]), top.shape[0]) for x in (d_out, out))
    # d scores = probs * (d probs - this), the derivative of a softmax
    common = jnp.sum(out.astype(jnp.float32) * d_out.astype(jnp.float32), axis=-1, keepdims=True)
    leaves, treedef = jax.tree.flatten(bias)
    real = [i for i, leaf in enumerate(leaves) if jnp.issubdtype(leaf.dtype, jnp.inexact)]

    def bias_of(real_leaves: list[Array], own: Queries, keys: Keys) -> Array:
        found = list(leaves)
        for i, leaf in zip(real, real_leaves, strict=True):
            found[i] = leaf
        shape = (*own.q.shape[:-1], keys.k.shape[2])
        return jnp.broadcast_to(_biased(own, keys, jax.tree.unflatten(treedef, found)), shape)

    def meet(state: tuple, keys: Keys, d_keys: tuple, device: Array) -> tuple[tuple, tuple]:
        d_q, d_bias = state
        starts = ring.starts(device, k.shape[2])

        def one(carry: tuple, of: tuple) -> tuple[tuple, Array]:
            (d_k, d_v, d_bias), (own, d_own, top, total, common, d_q) = carry, of

            def add(into: tuple, keys: Keys) -> tuple:
                d_q, d_bias, d_k, d_v = into
                seen, capped = _seen(ring, own, keys), _scores(ring, own, keys, bias)
                probs = jnp.exp(_hide(seen, capped) - top) / total
                d_probs = jnp.einsum("bkgsw,bktw->bkgst", d_own, keys.v, **_F32)
                d_scores = jnp.where(seen, probs * (d_probs - common), 0.0)
                if ring.spec.cap:
                    d_scores = d_scores * (1 - jnp.square(capped / ring.spec.cap))
                if real:
                    (more,) = jax.vjp(lambda g: bias_of(g, own, keys), [leaves[i] for i in real])[1](d_scores)
                    d_bias = jax.tree.map(jnp.add, d_bias, more)
                d_scores = (d_scores * ring.spec.scale).astype(q.dtype)
                d_q = d_q + jnp.einsum("bkgst,bktd->bkgsd", d_scores, keys.k, **_F32)
                d_k = d_k + jnp.einsum("bkgst,bkgsd->bktd", d_scores, own.q, **_F32)
                d_v = d_v + jnp.einsum("bkgst,bkgsw->bktw", probs.astype(v.dtype), d_own, **_F32)
                return d_q, d_bias, d_k, d_v

            def each(carry: tuple, of: tuple) -> tuple[tuple, tuple]:
                keys, start, d_k, d_v = of
                step = lambda into: add(into, keys)  # noqa: E731
                d_q, d_bias, *d_keys = _if_seen(ring, own, keys, start, step, (*carry, d_k, d_v))
                return (d_q, d_bias), tuple(d_keys)

            (d_q, d_bias), (d_k, d_v) = jax.lax.scan(each, (d_q, d_bias), (keys, starts, d_k, d_v))
            return (d_k, d_v, d_bias), d_q

        blocks = (queries, d_out, top, total, common, d_q)
        (d_k, d_v, d_bias), d_q = jax.lax.scan(one, (*d_keys, d_bias), blocks)
        return (d_q, d_bias), (d_k, d_v)

    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, jnp.float32), (queries.q, (keys.k, keys.v)))
    d_bias = [jnp.zeros_like(leaves[i]) for i in real]
    (d_q, d_bias), d_keys = _round(ring, q.shape[2], (zeros[0], d_bias), keys, zeros[1], meet)
    d_k, d_v = (jnp.moveaxis(x, 0, 2) for x in d_keys)
    d_leaves: list[Array | None] = [None] * len(leaves)
    for i, d in zip(real, d_bias, strict=True):
        d_leaves[i] = d
    d_sinks = None
    if sinks is not None:
        score = sinks.astype(jnp.float32).reshape(*top.shape[2:4], 1, 1)
        of_queries = jnp.exp(score - top) / total * common
        d_sinks = -of_queries.sum(axis=(0, 1, 4, 5)).reshape(sinks.shape).astype(sinks.dtype)
    return (
        _joined(d_q.astype(q.dtype)),
        d_k.reshape(k.shape).astype(k.dtype),
        d_v.reshape(v.shape).astype(v.dtype),
        None,
        None,
        d_sinks,
        jax.tree.unflatten(treedef, d_leaves),
    )


_ring.defvjp(_forward, _backward)
_F32: dict[str, Any] = {"preferred_element_type": jnp.float32}


def _round(ring: Ring, tokens: int, state: Any, keys: Keys, beside: Any, meet: Callable) -> tuple[Any, Any]:
    """`state`, after `meet(state, keys, beside, device) -> (state, beside)` with the keys of each device that is
    needed; `beside` travels with the keys it belongs to, and comes home. `tokens`: queries of a device."""
    n, (first, number) = ring.ways, ring.hops(tokens * ring.ways)
    here = jax.lax.axis_index(ring.axes)

    def sent(x: Any, places: int) -> Any:
        if places % n == 0:
            return x
        pairs = [(i, (i + places) % n) for i in range(n)]
        return jax.tree.map(lambda leaf: jax.lax.ppermute(leaf, ring.axes, pairs), x)

    def hop(carry: tuple, step: Array) -> tuple[tuple, None]:
        state, keys, beside = carry
        following = sent(keys, 1)  # before it is needed, so that it can go while blocks meet
        state, beside = meet(state, keys, beside, (here - first - step) % n)
        return (state, following, sent(beside, 1)), None

    carry = (state, sent(keys, first), sent(beside, first))
    last = number - 1
    if last:
        carry, _ = jax.lax.scan(hop, carry, jnp.arange(last))
    state, keys, beside = carry
    state, beside = meet(state, keys, beside, (here - first - last) % n)
    return state, sent(beside, -(first + last))


def _blocks(ring: Ring, q: Array, k: Array, v: Array, q_tokens: Tokens, k_tokens: Tokens) -> tuple[Queries, Keys]:
    # Else JAX would make masks, which need but tokens, ahead of all loops, those over layers included: [S, T] of them.
    q, k, v, q_tokens, k_tokens = jax.lax.optimization_barrier((q, k, v, q_tokens, k_tokens))
    s, t = q.shape[2], k.shape[2]
    n, m = (size // ring.block_of(size) for size in (s, t))
    grouped = q.reshape(q.shape[0], k.shape[1], -1, *q.shape[2:])
    starts = ring.starts(jax.lax.axis_index(ring.axes), s)
    own = Queries(_cut(grouped, n), jax.tree.map(lambda x: _cut(x, n, 1), q_tokens), starts)
    return own, Keys(_cut(k, m), _cut(v, m), jax.tree.map(lambda x: _cut(x, m, 1), k_tokens))


def _cut(x: Array, blocks: int, axis: int = -2) -> Array:
    """[..., S, d] -> [N, ..., s, d], or along another axis."""
    axis %= x.ndim
    shape = (*x.shape[:axis], blocks, x.shape[axis] // blocks, *x.shape[axis + 1 :])
    return jnp.moveaxis(x.reshape(shape), axis, 0)


def _joined(x: Array) -> Array:
    """[N, B, K, G, s, d] -> [B, H, S, d]"""
    n, b, kv, g, s, d = x.shape
    return jnp.moveaxis(x, 0, 3).reshape(b, kv * g, n * s, d)


def _if_seen(ring: Ring, own: Queries, keys: Keys, start: Array, step: Callable[[Any], Any], into: Any) -> Any:
    """`step(into)`, unless the mask's band hides these keys, which begin at an index of their row, from the queries."""
    if ring.band == (None, None):
        return step(into)
    some = ring.sees(own.start, own.q.shape[3], start, keys.k.shape[2])
    return jax.lax.cond(some, step, lambda into: into, into)


def _seen(ring: Ring, own: Queries, keys: Keys) -> Array:
    """bool [B, 1, 1, s, t]"""
    return visible(ring.spec.mask, own.tokens, keys.tokens)[:, None, None]


def _hide(seen: Array, scores: Array) -> Array:
    """Scores, those of hidden keys as good as minus infinity. A choice between them and a constant would have JAX make
    that constant for all pairs of blocks ahead of the loops."""
    return scores + (seen.astype(jnp.float32) - 1) * -HIDDEN


def _scores(ring: Ring, own: Queries, keys: Keys, bias: Any) -> Array:
    """float32 [B, K, G, s, t], biased and capped; hidden ones too."""
    scores = jnp.einsum("bkgsd,bktd->bkgst", own.q, keys.k, **_F32) * ring.spec.scale
    scores = scores + _biased(own, keys, bias) if bias is not None else scores
    return ring.spec.cap * jnp.tanh(scores / ring.spec.cap) if ring.spec.cap else scores


def _biased(own: Queries, keys: Keys, bias: Any) -> Array:
    """What is added to scores, float32 [B or 1, K or 1, G or 1, s, t]"""
    added = bias(own.tokens, keys.tokens).astype(jnp.float32)
    heads = own.q.shape[1:3] if added.shape[1] > 1 else (1, 1)
    return added.reshape(added.shape[0], *heads, *added.shape[2:])
