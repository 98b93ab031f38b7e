"""JetMoE 8B (Shen et al. 2024, arXiv 2404.07413): both the attention and the feed-forward part of a layer are experts,
of which each token takes two: those of the attention share their keys and values. Outputs of either have a bias."""

from lm.core.param import Normal
from lm.model.layers import RMSNorm
from lm.model.mlp import GatedMLP
from lm.model.moe.dispatch import Dropless
from lm.model.moe.layer import MoE
from lm.model.moe.top_k import TopK
from lm.model.rotary import Rotary, Scaling
from lm.model.special.head_experts import HeadExperts
from lm.model.transformer import LanguageModel
from lm.zoo.family import Family, Sizes
from lm.zoo.parts import check_choices, decoder, head_size, pre_norm

SIZES: Sizes = {"8b": {"layers": 24, "d_model": 2048, "heads": 16, "head_dim": 128, "d_ff": 5632, "eps": 1e-5}}


def jetmoe(
    *,
    layers: int,
    d_model: int,
    heads: int,
    d_ff: int,
    experts: int = 8,
    k: int = 2,
    head_dim: int | None = None,
    vocab: int = 32000,
    activation: str = "silu",
    theta: float = 10000.0,
    scaling: Scaling | None = None,
    eps: float = 1e-6,
    tied: bool = True,
) -> LanguageModel:
    """A JetMoE of any shape: `k` of `experts` for each token, of `heads` heads each in the attention, and each as wide
    as `d_ff` behind it. `eps` is the final norm's."""
    init = Normal(0.01)
    check_choices(k, experts)
    router = TopK(k, normalize=1.0, init=init)
    attention = HeadExperts(
        experts,
        heads,
        head_dim or head_size(d_model, heads),
        router,
        rotary=Rotary(theta=theta, scaling=scaling),
        init=init,
        out_init=init,
    )
    moe = MoE(experts, GatedMLP(d_ff, activation, init=init, out_init=init), router, Dropless(), bias=True)
    blocks = [pre_norm(attention, moe, RMSNorm())] * layers
    return decoder(blocks, d_model=d_model, vocab=vocab, norm=RMSNorm(eps), tied=tied, init=init)


FAMILIES = {"jetmoe": Family(jetmoe, SIZES, "arXiv 2404.07413")}
