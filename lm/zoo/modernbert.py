"""ModernBERT (Warner et al. 2024, arXiv 2412.13663): BERT rebuilt from the parts of recent decoders. Rotary positions,
pre-LayerNorm without biases, gated MLPs; two layers with a window of attention on either side, and a rotary base of
their own, for each one without. The embedding is normed, hence the first layer's attention is not."""

from lm.core.param import Normal
from lm.model.attention import Attention, Projections
from lm.model.block import Block, Parallel
from lm.model.embed import Embed
from lm.model.heads import LMHead, TransformHead
from lm.model.layers import LayerNorm
from lm.model.masks import Bidirectional, Window
from lm.model.mlp import GatedMLP
from lm.model.residual import Plain
from lm.model.rotary import Rotary, Scaling
from lm.model.stack import Stack
from lm.model.transformer import LanguageModel, Transformer
from lm.zoo.family import Family, Sizes
from lm.zoo.parts import LOCAL, head_size, layers_of, pre_norm

SIZES: Sizes = {
    "base": {"layers": 22, "d_model": 768, "heads": 12, "d_ff": 1152},
    "large": {"layers": 28, "d_model": 1024, "heads": 16, "d_ff": 2624},
}


def modernbert(
    *,
    layers: int,
    d_model: int,
    heads: int,
    d_ff: int,
    vocab: int = 50368,
    layer_types: tuple[str, ...] = (),
    pattern: int = 3,
    window: int = 128,
    theta: float = 160000.0,
    scaling: Scaling | None = None,
    local_theta: float = 10000.0,
    local_scaling: Scaling | None = None,
    activation: str = "gelu",
    attention_bias: bool = False,
    mlp_bias: bool = False,
    norm_bias: bool = False,
    eps: float = 1e-5,
    head_activation: str = "gelu",
    head_bias: bool = False,
    lm_bias: bool = True,
    dropout: float = 0.0,
    tied: bool = True,
) -> LanguageModel:
    """A ModernBERT of any shape. Of `pattern` layers the first sees all, unless `layer_types` says otherwise; of the
    others' `window` half lies on either side. `head_bias` is that of the head's dense layer, `lm_bias` of its
    scores."""
    norm = LayerNorm(eps, bias=norm_bias)
    init, out_init = Normal(0.02), Normal(0.02 / (2 * layers) ** 0.5)
    mlp = GatedMLP(d_ff, activation, bias=mlp_bias, dropout=dropout, init=init, out_init=out_init)

    def attention(kind: str) -> Attention:
        local = kind == LOCAL
        return Attention(
            heads=heads,
            head_dim=head_size(d_model, heads),
            mask=Window(window // 2 + 1, window // 2 + 1) if local else Bidirectional(),
            rotary=Rotary(local_theta, scaling=local_scaling) if local else Rotary(theta, scaling=scaling),
            projections=Projections(("q", "k", "v", "o") if attention_bias else (), init=init, out_init=out_init),
            dropout=dropout,
        )

    kinds = layers_of(layer_types, layers, pattern, first=True)
    normed = Parallel((("mlp", mlp),), norms=norm)
    first = Block((("attention", attention(kinds[0])), ("mlp", normed)), Plain(dropout))
    blocks = [first, *(pre_norm(attention(kind), mlp, norm, dropout) for kind in kinds[1:])]
    return LanguageModel(
        Transformer(d_model, Embed(vocab, norm=norm, dropout=dropout, init=init), Stack.of(blocks, norm=norm)),
        TransformHead(LMHead(vocab, bias=lm_bias, init=out_init), norm, head_activation, bias=head_bias, init=out_init),
        ties=(("head/lm/w", "body/embed/token"),) if tied else (),
    )


FAMILIES = {"modernbert": Family(modernbert, SIZES, "arXiv 2412.13663")}
