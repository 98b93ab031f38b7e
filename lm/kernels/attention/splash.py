"""For TPUs: splash attention, the Pallas kernel that comes with JAX (after FlashAttention, Dao et al. 2022, arXiv
2205.14135). Blocks that the mask hides are skipped, no scores are kept, and its gradient makes them again.

It knows masks of indices, and segments. So pieces of a text become segments of their own, and keys that all queries see
come a second time, behind the others, for those queries that do not see them by distance."""

import dataclasses
import functools
import importlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lm.core.rows import Mask, Separated, Tokens
from lm.kernels.attention import local
from lm.kernels.attention.spec import AttentionSpec, Bias, OnProbs, Own
from lm.kernels.place import Place

Array = jax.Array

LANES = 128  # lengths are filled up to a multiple of them
BLOCKS = (512, 384, 256, 128)  # queries, and keys, of a block: the largest that divides a length
UNSEEN, SEES_NOTHING = -1, -2  # numbers of segments: of keys that no query sees, and of queries that see no key


def supports(spec: AttentionSpec, q: Array, k: Array, v: Array, place: Place) -> str | None:
    if spec.probs:
        return "probabilities are dropped out or recorded, which needs them all at once"
    if spec.bias or spec.own:
        return "it knows of no biases and no keys of a query's own"
    parts = spec.mask.separated()
    if parts is None:
        return f"{type(spec.mask).__name__} is no mask of distances"
    if parts.near is not None and not spec.aligned:
        return "keys are not the queries' own tokens (a cache, or another text)"
    if parts.near is not None and not parts.near(np.zeros(1, int)).all():
        return "queries do not see themselves"
    if parts.pieces is not None and (parts.shown or spec.extra):
        return "pieces of a text and keys that all of it sees do not go together"
    if q.dtype not in (jnp.float32, jnp.bfloat16):
        return f"it knows float32 and bfloat16, not {q.dtype}"
    if q.shape[2] < LANES:
        return f"{q.shape[2]} queries are less than a block of {LANES}"
    return local.supports(q, k, place)


def splash(
    q: Array,
    k: Array,
    v: Array,
    spec: AttentionSpec,
    q_tokens: Tokens,
    k_tokens: Tokens,
    *,
    place: Place,
    bias: Bias | None = None,
    sinks: Array | None = None,
    own: Own | None = None,
    on_probs: OnProbs | None = None,
    interpret: bool = False,
) -> Array:
    """See `Attend`. `interpret`: by the interpreter of Pallas, which runs anywhere."""
    attend = functools.partial(_attend, spec, interpret)
    return local.on_each_device(attend, q, k, v, q_tokens, k_tokens, sinks, place)


def _attend(
    spec: AttentionSpec,
    interpret: bool,
    q: Array,
    k: Array,
    v: Array,
    q_tokens: Tokens,
    k_tokens: Tokens,
    sinks: Array | None,
) -> Array:
    (_, h, s, _), own = q.shape, k.shape[2] - spec.extra
    q_ids, k_ids = segments(spec, q_tokens, k_tokens)
    twice = k_ids.shape[1] > k.shape[2]
    if twice:
        k, v = (jnp.concatenate([x, x[:, :, :own]], axis=2) for x in (k, v))
    q, k, v = (_filled(x, 2) for x in (q * jnp.asarray(spec.scale, q.dtype), k, v))
    q_ids, k_ids = _filled(q_ids, 1, SEES_NOTHING), _filled(k_ids, 1, UNSEEN)
    mask = IndexMask(spec.mask, own, spec.extra, twice, (q.shape[2], k.shape[2]))
    block_q, block_k = (next(block for block in BLOCKS if length % block == 0) for length in mask.shape)
    kernels, masks, lazy = _library()
    kernel = kernels.make_splash_mha(
        masks.MultiHeadMask([lazy(mask)] * h),
        block_sizes=kernels.BlockSizes(
            block_q=block_q,
            block_kv=block_k,
            block_q_dkv=block_q,
            block_kv_dkv=block_k,
            block_q_dq=block_q,
            block_kv_dq=block_k,
        ),
        head_shards=1,
        q_seq_shards=1,
        attn_logits_soft_cap=spec.cap,
        interpret=interpret,
    )
    out = jax.vmap(kernel, in_axes=(0, 0, 0, 0, None))(q, k, v, kernels.SegmentIds(q_ids, k_ids), sinks)
    return out[:, :, :s].astype(v.dtype)


def segments(spec: AttentionSpec, q: Tokens, k: Tokens) -> tuple[Array, Array]:
    """Numbers [B, S] and [B, T] that are equal where a query may see a key, whatever their distance. Where some keys
    are shown to all queries, the numbers of a second copy of all but the extra keys follow: `UNSEEN` for the rest."""
    parts = _parts(spec.mask)
    of_q, of_k = (jnp.ones_like(x.positions) if x.segments is None else x.segments for x in (q, k))
    if parts.pieces is not None:
        pieces = parts.pieces(q), parts.pieces(k)
        most = 1 + jnp.maximum(pieces[0].max(), pieces[1].max())
        of_q, of_k = of_q * most + pieces[0], of_k * most + pieces[1]
    shown = None if parts.shown is None else parts.shown(k)
    if shown is None or parts.near is None:
        return of_q, of_k
    again = jnp.where(shown, of_k, UNSEEN)[:, : of_k.shape[1] - spec.extra]
    return of_q, jnp.concatenate([of_k, again], axis=1)


@dataclasses.dataclass(frozen=True)
class IndexMask:
    """Which keys a query sees if their segments are equal: by indices, so that the library may ask for some blocks, and
    its kernel for those at hand. `own` keys are seen by their distance, `extra` ones behind them at any, and, if they
    come `twice`, the own ones again by queries that do not see them by distance. Keys that only fill up are not."""

    mask: Mask
    own: int
    extra: int
    twice: bool
    shape: tuple[int, int]

    def __call__(self, queries: Any, keys: Any) -> Any:
        """Two arrays of indices that broadcast to one shape -> bool."""
        near, behind = _parts(self.mask).near, self.own + self.extra
        if near is None:
            return (keys < behind) & (queries >= 0)
        ok = (keys < self.own) & near(keys - queries)
        ok |= (keys >= self.own) & (keys < behind) & (queries >= 0) if self.extra else False
        again = (keys >= behind) & (keys < behind + self.own)
        return ok | again & ~near(keys - behind - queries) if self.twice else ok


def _parts(mask: Mask) -> Separated:
    parts = mask.separated()
    assert parts is not None
    return parts


def _filled(x: Array, axis: int, value: int = 0) -> Array:
    """With whole blocks along an axis."""
    fill = [(0, 0)] * x.ndim
    fill[axis] = (0, -x.shape[axis] % LANES)
    return jnp.pad(x, fill, constant_values=value)


@functools.cache
def _library() -> tuple[Any, Any, Any]:
    """Its modules for kernels and masks, and the class of an `IndexMask` there. Imported when first used: it takes half
    a second, and only TPUs need it."""
    where = "jax.experimental.pallas.ops.tpu.splash_attention.splash_attention_"
    kernels, masks = (importlib.import_module(where + part) for part in ("kernel", "mask"))
    base: Any = masks.Mask

    @dataclasses.dataclass(frozen=True)
    class Lazy(base):
        mask_function: IndexMask

        @property
        def shape(self) -> tuple[int, int]:
            return self.mask_function.shape

        @property
        def q_sequence(self) -> np.ndarray:
            return np.arange(self.shape[0], dtype=np.int32)

        def __getitem__(self, block: tuple[slice, slice]) -> np.ndarray:
            queries, keys = (np.arange(size)[part] for size, part in zip(self.shape, block, strict=True))
            return self.mask_function(queries[:, None], keys[None])

    return kernels, masks, Lazy
