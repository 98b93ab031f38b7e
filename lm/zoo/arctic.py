"""Snowflake Arctic (Snowflake 2024, github.com/Snowflake-Labs/snowflake-arctic): LLaMA's layers, beside each of which
128 narrow experts read the layer's own input, a token going to two, so that the dense part hides their exchange between
devices: h = x + attention(x), then h + mlp(h) + experts(x), each of what it reads normed first.

As in the published code (its plain path, without DeepSpeed's capacity) the weights of the chosen experts add up to one,
also if only one is chosen, and the MLP beside experts is as wide as the model."""

from lm.core.param import Normal
from lm.model.attention import Attention, Projections
from lm.model.block import Block, Layer
from lm.model.layers import RMSNorm
from lm.model.masks import Causal, Window
from lm.model.mlp import GatedMLP
from lm.model.moe.dispatch import Dropless
from lm.model.moe.layer import MoE
from lm.model.moe.top_k import TopK
from lm.model.residual import PreNorm
from lm.model.rotary import Rotary, Scaling
from lm.model.special.branch import Branched
from lm.model.transformer import LanguageModel
from lm.zoo.family import Family, Sizes
from lm.zoo.parts import check_choices, decoder, head_size, pre_norm

SIZES: Sizes = {"480b": {"layers": 35, "d_model": 7168, "heads": 56, "kv_heads": 8, "d_ff": 4864}}


def arctic(
    *,
    layers: int,
    d_model: int,
    heads: int,
    d_ff: int,
    experts: int = 128,
    k: int = 2,
    every: int = 1,
    beside: bool = True,
    kv_heads: int | None = None,
    vocab: int = 32000,
    window: int = 0,
    activation: str = "silu",
    theta: float = 10000.0,
    scaling: Scaling | None = None,
    eps: float = 1e-5,
    tied: bool = False,
) -> LanguageModel:
    """An Arctic of any shape. Of `every` layers the last has `experts` of width `d_ff`, of which a token takes `k`,
    `beside` attention and MLP, else in the MLP's place; the others have an MLP of that width. With `window` 0 all
    layers see everything."""
    check_choices(k, experts)
    init, norm = Normal(0.02), RMSNorm(eps)
    attention = Attention(
        heads=heads,
        head_dim=head_size(d_model, heads),
        kv_heads=kv_heads,
        mask=Window(window) if window else Causal(),
        rotary=Rotary(theta=theta, scaling=scaling),
        projections=Projections(init=init, out_init=init),
    )

    def mlp(width: int) -> GatedMLP:
        return GatedMLP(width, activation, init=init, out_init=init)

    moe = MoE(experts, mlp(d_ff), TopK(k, normalize=1.0, init=init), Dropless())
    dense: Layer = pre_norm(attention, mlp(d_ff), norm)
    sparse: Layer = pre_norm(attention, moe, norm)
    if beside:
        block = Block((("attention", attention), ("dense", mlp(d_model))), PreNorm(norm))
        sparse = Branched(block, moe, before=norm)
    blocks = [dense if (i + 1) % every else sparse for i in range(layers)]
    return decoder(blocks, d_model=d_model, vocab=vocab, norm=norm, tied=tied, init=init)


FAMILIES = {"arctic": Family(arctic, SIZES, "Snowflake 2024, github.com/Snowflake-Labs/snowflake-arctic")}
