"""OLMoE (Muennighoff et al. 2024, arXiv 2409.02060): 64 small experts in each layer, of which a token goes to eight,
weighted by a softmax over all; norms of all queries and of all keys at once, as in OLMo 2, but norms before the
sub-layers."""

from lm.core.param import Normal
from lm.model.attention import Attention, Projections, QKNorm
from lm.model.layers import RMSNorm
from lm.model.mlp import GatedMLP
from lm.model.moe.dispatch import Dropless
from lm.model.moe.layer import MoE
from lm.model.moe.top_k import TopK
from lm.model.rotary import Rotary, Scaling
from lm.model.transformer import LanguageModel
from lm.zoo.family import Family, Sizes
from lm.zoo.olmo import BIASES
from lm.zoo.parts import decoder, head_size, pre_norm, with_experts

SIZES: Sizes = {"1b-7b": {"layers": 16, "d_model": 2048, "heads": 16, "d_ff": 1024}}


def olmoe(
    *,
    layers: int,
    d_model: int,
    heads: int,
    d_ff: int,
    experts: int = 64,
    k: int = 8,
    normalize: bool = False,
    kv_heads: int | None = None,
    head_dim: int | None = None,
    vocab: int = 50304,
    activation: str = "silu",
    theta: float = 10000.0,
    scaling: Scaling | None = None,
    attention_bias: bool = False,
    clip: float | None = None,
    eps: float = 1e-5,
    tied: bool = False,
) -> LanguageModel:
    """An OLMoE of any shape: `k` of `experts` for each token, each as wide as `d_ff`, their weights divided by their
    sum if `normalize`. `clip` bounds values, and queries and keys after their norms."""
    init, norm = Normal(0.02), RMSNorm(eps)
    attention = Attention(
        heads=heads,
        head_dim=head_dim or head_size(d_model, heads),
        kv_heads=kv_heads,
        rotary=Rotary(theta=theta, scaling=scaling),
        projections=Projections(BIASES if attention_bias else (), clip=clip, init=init, out_init=init),
        qk_norm=QKNorm(norm, norm, over="whole", clip_after=True),
    )
    expert = GatedMLP(d_ff, activation, init=init, out_init=init)
    moe = MoE(experts, expert, TopK(k, normalize=1.0 if normalize else None, init=init), Dropless())
    blocks = [pre_norm(attention, expert, norm)] * layers
    model = decoder(blocks, d_model=d_model, vocab=vocab, norm=norm, tied=tied, init=init)
    return with_experts(model, moe, range(layers))


FAMILIES = {"olmoe": Family(olmoe, SIZES, "arXiv 2409.02060")}
