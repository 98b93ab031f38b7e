"""GLaM (Du et al. 2021, arXiv 2112.06905): decoders in which every second layer, from the first, has experts, of which
a token takes two (GShard, Lepikhin et al. 2020, 2006.16668); the other layers have gated linear units.

The paper leaves open what the code of its authors tells (google/praxis, layers/glam.py): each layer has a table of
relative biases of its own, scores are not scaled, norms are RMSNorms, no map has a bias, and the head is the token
table on states over sqrt(d). An expert takes as many tokens of a row as would come to it if all were even. The totals
of all sizes but the largest fit a vocabulary of 32,000, where the text says 256,000. What the paper's table prints of
1.7B with 32 experts does not follow from its shape."""

from lm.core.param import FanIn, Normal
from lm.model.attention_bias import BucketedBias
from lm.model.heads import LMHead
from lm.model.layers import RMSNorm
from lm.model.mlp import MLP, GatedMLP
from lm.model.moe.dispatch import Capacity
from lm.model.moe.layer import MoE
from lm.model.moe.top_k import TopK
from lm.model.transformer import LanguageModel
from lm.zoo.family import Family, Sizes
from lm.zoo.parts import check_choices, decoder, pre_norm
from lm.zoo.t5 import attention_of

_01B = {"layers": 12, "d_model": 768, "heads": 12, "head_dim": 64, "d_ff": 3072}
_17B = {"layers": 24, "d_model": 2048, "heads": 16, "d_ff": 8192}
_8B = {"layers": 32, "d_model": 4096, "heads": 32, "d_ff": 16384}
_64B = {"layers": 64, "d_model": 8192, "heads": 128, "d_ff": 32768, "vocab": 256000}
SIZES: Sizes = {
    "0.1b": _01B,
    "0.1b-64e": {**_01B, "experts": 64},
    "1.7b": _17B,
    **{f"1.7b-{n}e": {**_17B, "experts": n} for n in (32, 64, 128, 256)},
    "8b": _8B,
    "8b-64e": {**_8B, "experts": 64},
    "137b": {"layers": 64, "d_model": 8192, "heads": 128, "d_ff": 65536},
    "64b-64e": {**_64B, "experts": 64},
}


def glam(
    *,
    layers: int,
    d_model: int,
    heads: int,
    d_ff: int,
    head_dim: int = 128,
    experts: int = 0,
    k: int = 2,
    every: int = 2,
    capacity: float = 1.0,
    vocab: int = 32000,
    activation: str = "gelu_tanh",
    buckets: int = 32,
    max_distance: int = 128,
    eps: float = 1e-6,
) -> LanguageModel:
    """A GLaM of any shape. Of each `every` layers the first has `experts` (0: none has), plain layers as wide as the
    gated ones, of which a token takes `k`. An expert takes up to `capacity` times its even share of the choices of a
    row."""
    init, norm = FanIn(), RMSNorm(eps)
    bias = BucketedBias(None, buckets=buckets, max_distance=max_distance, init=Normal(d_model**-0.5))
    attention = attention_of(heads, head_dim)(bias=(bias,))
    dense = routed = pre_norm(attention, GatedMLP(d_ff, activation, init=init, out_init=init), norm)
    if experts:
        check_choices(k, experts)
        expert = MLP(d_ff, activation, bias=False, init=init, out_init=init)
        moe = MoE(experts, expert, TopK(k, normalize=1.0, init=init), Capacity(capacity))
        routed = pre_norm(attention, moe, norm)
    return decoder(
        [dense if i % every else routed for i in range(layers)],
        d_model=d_model,
        vocab=vocab,
        norm=norm,
        tied=True,
        head=LMHead(vocab, scale=d_model**-0.5),
        init=Normal(1.0),
    )


FAMILIES = {"glam": Family(glam, SIZES, "arXiv 2112.06905")}
