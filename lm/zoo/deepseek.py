"""The dense layers of DeepSeek-V2 (DeepSeek-AI 2024, arXiv 2405.04434) and V3 (2412.19437): LLaMA's, with multi-head
latent attention: keys and values of all heads are read from one latent per token, and a part of each head's query and
one key for all heads carry the (interleaved) rotary positions. Norms of latents have an eps of their own.

The published models have a few such layers in front, then layers with experts; configs with those are refused."""

from lm.core.param import Normal
from lm.model.layers import RMSNorm
from lm.model.mlp import GatedMLP
from lm.model.rotary import Rotary, Scaling, yarn_magnitude
from lm.model.special.latent import LatentAttention
from lm.model.transformer import LanguageModel
from lm.zoo.family import Family
from lm.zoo.parts import decoder, pre_norm


def deepseek(
    *,
    layers: int,
    d_model: int,
    heads: int,
    d_ff: int,
    kv_rank: int = 512,
    q_rank: int | None = None,
    nope_dim: int = 128,
    rope_dim: int = 64,
    value_dim: int = 128,
    vocab: int = 129280,
    activation: str = "silu",
    theta: float = 10000.0,
    interleaved: bool = True,
    scaling: Scaling | None = None,
    temper: float = 0.0,
    attention_bias: bool = False,
    mlp_bias: bool = False,
    eps: float = 1e-6,
    latent_eps: float = 1e-6,
    tied: bool = False,
) -> LanguageModel:
    """A dense DeepSeek-V2 or V3 of any shape. With a `scaling` by a factor f scores are multiplied by
    (0.1 temper ln f + 1)^2 (YaRN's temperature, there called mscale_all_dim)."""
    init, norm = Normal(0.02), RMSNorm(eps)
    stretch = getattr(scaling, "factor", 1.0)
    attention = LatentAttention(
        heads=heads,
        nope_dim=nope_dim,
        rope_dim=rope_dim,
        value_dim=value_dim,
        kv_rank=kv_rank,
        q_rank=q_rank,
        rotary=Rotary(theta=theta, interleaved=interleaved, scaling=scaling),
        norm=RMSNorm(latent_eps),
        scale=(nope_dim + rope_dim) ** -0.5 * yarn_magnitude(stretch, temper) ** 2,
        bias=attention_bias,
        init=init,
        out_init=init,
    )
    mlp = GatedMLP(d_ff, activation, bias=mlp_bias, init=init, out_init=init)
    blocks = [pre_norm(attention, mlp, norm)] * layers
    return decoder(blocks, d_model=d_model, vocab=vocab, norm=norm, tied=tied, init=init)


FAMILIES = {
    "deepseek_v2": Family(deepseek, {}, "arXiv 2405.04434"),
    "deepseek_v3": Family(deepseek, {}, "arXiv 2412.19437"),
}
