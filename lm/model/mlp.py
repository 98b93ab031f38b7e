"""Feed-forward sub-layers."""

import jax
import jax.numpy as jnp

from lm.core.component import component
from lm.core.ctx import Ctx, constrain, dropout
from lm.core.param import Initializer, Normal, Tree
from lm.core.remat import named
from lm.model.cache import CacheShape
from lm.model.layers import Norm, activation, linear, linear_spec, linears

Array = jax.Array


@component
class MLP:
    """act(x W_up) W_down, x [B, S, D] -> [B, S, D] (Vaswani et al. 2017, arXiv 1706.03762). `inner_norm` acts on the
    hidden units (sub-LN: Magneto, Wang et al. 2022, arXiv 2210.06423)."""

    d_ff: int
    activation: str = "gelu_tanh"
    bias: bool = True
    dropout: float = 0.0  # of the hidden units
    inner_norm: Norm | None = None
    init: Initializer = Normal()
    out_init: Initializer = Normal()

    def spec(self, d: int) -> Tree:
        return {
            "up": linear_spec((d, self.d_ff), ("embed", "mlp"), self.bias, self.init),
            "down": linear_spec((self.d_ff, d), ("mlp", "embed"), self.bias, self.out_init),
        } | ({"inner_norm": self.inner_norm.spec(self.d_ff)} if self.inner_norm else {})

    @property
    def any_order(self) -> bool:
        return not self.dropout

    def cache(self, d: int, shape: CacheShape) -> Tree:
        return None

    def __call__(self, p: Tree, x: Array, ctx: Ctx, cache: Tree, aux: dict) -> tuple[Array, Tree]:
        h = constrain(activation(self.activation)(named(linear(p["up"], x), "hidden")), ctx, "batch", "seq", "mlp")
        h = self.inner_norm(p["inner_norm"], h) if self.inner_norm else h
        return linear(p["down"], dropout(h, self.dropout, ctx, "hidden")), cache


@component
class GatedMLP:
    """(act(x W_gate) * (x W_up + shift)) W_down; SwiGLU with silu (Shazeer 2020, arXiv 2002.05202). `limit` bounds
    x W_gate above and x W_up on both sides (with shift 1: Phi-3-small, GPT-OSS)."""

    d_ff: int
    activation: str = "silu"
    bias: bool = False
    limit: float | None = None
    shift: float = 0.0
    dropout: float = 0.0
    init: Initializer = Normal()
    out_init: Initializer = Normal()

    def spec(self, d: int) -> Tree:
        return {
            "gate": linear_spec((d, self.d_ff), ("embed", "mlp"), self.bias, self.init),
            "up": linear_spec((d, self.d_ff), ("embed", "mlp"), self.bias, self.init),
            "down": linear_spec((self.d_ff, d), ("mlp", "embed"), self.bias, self.out_init),
        }

    @property
    def any_order(self) -> bool:
        return not self.dropout

    def cache(self, d: int, shape: CacheShape) -> Tree:
        return None

    def __call__(self, p: Tree, x: Array, ctx: Ctx, cache: Tree, aux: dict) -> tuple[Array, Tree]:
        gate, up = named(linears((p["gate"], p["up"]), x), "hidden")
        if self.limit is not None:
            gate, up = jnp.minimum(gate, self.limit), jnp.clip(up, -self.limit, self.limit)
        h = activation(self.activation)(gate) * (up + self.shift if self.shift else up)
        h = constrain(h, ctx, "batch", "seq", "mlp")
        return linear(p["down"], dropout(h, self.dropout, ctx, "hidden")), cache
