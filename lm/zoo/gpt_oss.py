"""gpt-oss 20b and 120b (OpenAI 2025, arXiv 2508.10925): each token goes to four experts, whose weights are a softmax
over their logits. Experts are gated by x sigmoid(1.702 x), bounded, with one added to what is gated; all linear maps
have biases. Every head may attend to nothing, by a learned score (a sink); the first layer and every second one after
it has a window; positions are stretched by YaRN."""

from typing import Any

from lm.core.param import Normal
from lm.model.attention import Attention, Projections, Softmax
from lm.model.block import Block
from lm.model.layers import RMSNorm
from lm.model.masks import Causal, Window
from lm.model.mlp import GatedMLP
from lm.model.moe.dispatch import Dropless
from lm.model.moe.layer import MoE
from lm.model.moe.top_k import TopK
from lm.model.rotary import Rotary, Scaling, YarnScaling
from lm.model.transformer import LanguageModel
from lm.zoo.family import Family, Sizes
from lm.zoo.parts import LOCAL, check_choices, decoder, head_size, layers_of, pre_norm

PUBLISHED = YarnScaling(32.0, 4096, rounded=False)
_ALL: dict[str, Any] = {
    "d_model": 2880,
    "heads": 64,
    "kv_heads": 8,
    "head_dim": 64,
    "d_ff": 2880,
    "scaling": PUBLISHED,
}
SIZES: Sizes = {
    "20b": {"layers": 24, "experts": 32, **_ALL},
    "120b": {"layers": 36, "experts": 128, **_ALL},
}


def gpt_oss(
    *,
    layers: int,
    d_model: int,
    heads: int,
    d_ff: int,
    experts: int,
    k: int = 4,
    kv_heads: int | None = None,
    head_dim: int | None = None,
    vocab: int = 201088,
    layer_types: tuple[str, ...] = (),
    pattern: int = 2,
    window: int = 128,
    activation: str = "quick_gelu",
    limit: float = 7.0,
    theta: float = 150000.0,
    scaling: Scaling | None = None,
    attention_bias: bool = True,
    eps: float = 1e-5,
    tied: bool = False,
) -> LanguageModel:
    """A gpt-oss of any shape: `k` of `experts` for each token, each as wide as `d_ff`; what multiplies in them is
    bounded by `limit`. Of `pattern` layers all but the last have a window, unless `layer_types` says otherwise."""
    init, norm = Normal(0.02), RMSNorm(eps)
    check_choices(k, experts)
    expert = GatedMLP(d_ff, activation, bias=True, limit=limit, shift=1.0, init=init, out_init=init)
    moe = MoE(experts, expert, TopK(k, normalize=1.0, bias=True, init=init), Dropless())

    def block(kind: str) -> Block:
        attention = Attention(
            heads=heads,
            head_dim=head_dim or head_size(d_model, heads),
            kv_heads=kv_heads,
            mask=Window(window) if kind == LOCAL else Causal(),
            rotary=Rotary(theta=theta, scaling=scaling),
            softmax=Softmax(sinks=True),
            projections=Projections(("q", "k", "v", "o") if attention_bias else (), init=init, out_init=init),
        )
        return pre_norm(attention, moe, norm)

    blocks = [block(kind) for kind in layers_of(layer_types, layers, pattern)]
    return decoder(blocks, d_model=d_model, vocab=vocab, norm=norm, tied=tied, init=init)


FAMILIES = {"gpt_oss": Family(gpt_oss, SIZES, "arXiv 2508.10925")}
