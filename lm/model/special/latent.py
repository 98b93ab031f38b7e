"""Multi-head latent attention: keys and values are read from one narrow latent per token, all that is cached."""

import jax
import jax.numpy as jnp

from lm.core.component import component
from lm.core.ctx import Ctx, constrain
from lm.core.errors import UserError
from lm.core.leaf import Leaf
from lm.core.param import Initializer, Normal, Tree
from lm.core.rows import Tokens
from lm.kernels.attention.spec import AttentionSpec
from lm.model.attend import attend
from lm.model.cache import CacheShape, KVCache, KVShape
from lm.model.kv_sources import SelfKV
from lm.model.layers import Norm, RMSNorm, linear, linear_spec
from lm.model.masks import Causal, MaskKind
from lm.model.rotary import Rotary

Array = jax.Array


@component
class LatentAttention:
    """Multi-head latent attention (DeepSeek-V2, arXiv 2405.04434, section 2.1). x [B, S, D] -> [B, S, D].

    A token's latent is c = norm(x W_down). A head's key is [c W_k | k_pe], its value c W_v; k_pe, rotated, is one for
    all heads. A head's query is [q | q_pe], q_pe rotated. The cache holds c and k_pe.

    Keys and values are either made for each head, or W_k is moved to the queries' side and W_v behind the softmax,
    which makes it multi-query attention to the latents themselves: whichever needs fewer multiplications. When one
    token is decoded that is the second.

    heads: H;
    nope_dim, rope_dim: widths of q, which is not rotated, and of q_pe, which is;
    value_dim: width of a head's value;
    kv_rank: width of c;
    q_rank: queries are read from a latent of their own, so wide; None: from x;
    rotary, norm, mask: of q_pe and k_pe, of latents, of keys;
    scale: of scores; None: (nope_dim + rope_dim) ** -0.5;
    bias: of the maps to latents and k_pe, and of the output;
    dropout: rate of probabilities;
    init, out_init: initial weights of all maps but the last, and of that."""

    heads: int
    nope_dim: int
    rope_dim: int
    value_dim: int
    kv_rank: int
    q_rank: int | None = None
    rotary: Rotary = Rotary()
    norm: Norm = RMSNorm()
    mask: MaskKind = Causal()
    scale: float | None = None
    bias: bool = False
    dropout: float = 0.0
    init: Initializer = Normal()
    out_init: Initializer = Normal()

    def __post_init__(self) -> None:
        for name in ("heads", "nope_dim", "rope_dim", "value_dim", "kv_rank"):
            if getattr(self, name) < 1:
                raise UserError(f"{name}={getattr(self, name)} of latent attention must be at least 1")
        if self.rotary.values:
            raise UserError("latent attention does not rotate values: leave rotary.values out")

    @property
    def any_order(self) -> bool:
        return self.rotary.any_order and not self.dropout

    def spec(self, d: int) -> Tree:
        query = self.heads * (self.nope_dim + self.rope_dim)

        def narrow(width: int) -> Tree:
            return linear_spec((d, width), ("embed", None), self.bias, self.init)

        def wide(inputs: int, outputs: int) -> Tree:
            return linear_spec((inputs, outputs), (None, "heads"), False, self.init)

        spec = {
            "latent": narrow(self.kv_rank),
            "latent_norm": self.norm.spec(self.kv_rank),
            "k_pe": narrow(self.rope_dim),
            "k": wide(self.kv_rank, self.heads * self.nope_dim),
            "v": wide(self.kv_rank, self.heads * self.value_dim),
            "o": linear_spec((self.heads * self.value_dim, d), ("heads", "embed"), self.bias, self.out_init),
        }
        if self.q_rank is None:
            return spec | {"q": linear_spec((d, query), ("embed", "heads"), False, self.init)}
        narrowed = {"q_latent": narrow(self.q_rank), "q_latent_norm": self.norm.spec(self.q_rank)}
        return spec | narrowed | {"q_up": wide(self.q_rank, query)}

    def cache(self, d: int, shape: CacheShape) -> KVCache:
        return SelfKV().cache(d, KVShape(1, self.kv_rank, self.rope_dim), shape)

    def __call__(self, p: Tree, x: Array, ctx: Ctx, cache: Tree, aux: dict) -> tuple[Array, Tree]:
        tokens = Tokens.of(ctx.rows)

        def latents(inputs: Array, of: Tokens) -> tuple[Array, Array]:
            """[B, 1, T, rank], [B, 1, T, rope]"""
            c = self.norm(p["latent_norm"], linear(p["latent"], inputs))
            return c[:, None], self.rotary(linear(p["k_pe"], inputs)[:, None], of, True)

        if self.q_rank is None:
            q = linear(p["q"], x)
        else:
            q = linear(p["q_up"], self.norm(p["q_latent_norm"], linear(p["q_latent"], x)))
        q = constrain(self._split(q), ctx, "batch", "heads", "seq", None)
        q_pe = self.rotary(q[..., self.nope_dim :], tokens)
        q = q[..., : self.nope_dim]
        kv = SelfKV()(p, latents, x, ctx, cache)
        c, k_pe = kv.k.astype(x.dtype), kv.v.astype(x.dtype)
        scale = (self.nope_dim + self.rope_dim) ** -0.5 if self.scale is None else self.scale
        spec = AttentionSpec(self.mask, scale, aligned=kv.aligned)

        def read(q: Array, k: Array, v: Array) -> Array:
            return attend(q, k, v, spec, tokens, kv.tokens, ctx, aux, rate=self.dropout)

        if self._absorbs(p, q.shape[2], c.shape[2]):
            w_k, w_v = (p[n]["w"].astype(x.dtype).reshape(self.kv_rank, self.heads, -1) for n in ("k", "v"))
            asked = jnp.concatenate([jnp.einsum("bhsn,rhn->bhsr", q, w_k), q_pe], axis=-1)
            y = read(asked, jnp.concatenate([c, k_pe], axis=-1), c)
            y = jnp.einsum("bhsr,rhv->bhsv", y, w_v)
        else:
            k, v = (self._split(linear(p[n], c[:, 0])) for n in ("k", "v"))
            shared = jnp.broadcast_to(k_pe, (*k.shape[:3], self.rope_dim))
            y = read(jnp.concatenate([q, q_pe], axis=-1), jnp.concatenate([k, shared], axis=-1), v)
        y = jnp.swapaxes(y, 1, 2).reshape(*x.shape[:2], -1)
        return constrain(linear(p["o"], y), ctx, "batch", "seq", "embed"), kv.cache

    def _split(self, y: Array) -> Array:
        """[B, S, heads * size] -> [B, heads, S, size]"""
        return jnp.swapaxes(y.reshape(*y.shape[:2], self.heads, -1), 1, 2)

    def _absorbs(self, p: Tree, s: int, t: int) -> bool:
        """Whether s queries read t latents themselves: by the multiplications per head that differ."""
        if any(isinstance(p[n]["w"], Leaf) for n in ("k", "v")):  # whose matrices are not at hand
            return False
        size = self.nope_dim + self.value_dim
        return s * (self.kv_rank * size + 2 * t * self.kv_rank) < t * (self.kv_rank * size + s * size)
