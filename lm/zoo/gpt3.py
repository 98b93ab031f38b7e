"""GPT-3 (Brown et al. 2020, arXiv 2005.14165, table 2.1): GPT-2's architecture in eight sizes, context 2048.

Two rows of the published table do not give the published totals; as elsewhere, 13B has d = 5120 (printed: 5140) and XL
16 heads of 128 (printed: 24). Layers alternate between dense and sparse attention (Child et al. 2019, 1904.10509),
which has no parameters of its own."""

from lm.core.param import Normal
from lm.model.attention import Attention, Projections
from lm.model.layers import LayerNorm
from lm.model.masks import Causal, MaskKind, Strided
from lm.model.mlp import MLP
from lm.model.positions import Learned
from lm.model.transformer import LanguageModel
from lm.zoo.family import Family
from lm.zoo.parts import decoder, head_size, pre_norm

SIZES = {
    "small": {"layers": 12, "d_model": 768, "heads": 12},
    "medium": {"layers": 24, "d_model": 1024, "heads": 16},
    "large": {"layers": 24, "d_model": 1536, "heads": 16},
    "xl": {"layers": 24, "d_model": 2048, "heads": 16},
    "2.7b": {"layers": 32, "d_model": 2560, "heads": 32},
    "6.7b": {"layers": 32, "d_model": 4096, "heads": 32},
    "13b": {"layers": 40, "d_model": 5120, "heads": 40},
    "175b": {"layers": 96, "d_model": 12288, "heads": 96},
}


def gpt3(
    *,
    layers: int,
    d_model: int,
    heads: int,
    head_dim: int | None = None,
    d_ff: int | None = None,
    vocab: int = 50257,
    context: int = 2048,
    sparse: MaskKind | None = Strided(128),
    eps: float = 1e-5,
    dropout: float = 0.0,
    tied: bool = True,
) -> LanguageModel:
    """A GPT-3 of any shape; `SIZES` has the published ones. Every second layer sees what the mask `sparse`
    lets it see; None makes all layers dense. The paper speaks of locally banded sparse patterns like the Sparse
    Transformer's, and gives no numbers: the default sees the last 128 tokens and every 128th before; `Window(w)` is a
    band alone."""
    init, out_init = Normal(0.02), Normal(0.02, depth=2 * layers)
    mlp = MLP(d_ff=d_ff or 4 * d_model, activation="gelu_tanh", init=init, out_init=out_init)
    blocks = [
        pre_norm(
            Attention(
                heads=heads,
                head_dim=head_dim or head_size(d_model, heads),
                mask=sparse if sparse and i % 2 else Causal(),
                projections=Projections(("q", "k", "v", "o"), init=init, out_init=out_init),
                dropout=dropout,
            ),
            mlp,
            LayerNorm(eps),
            dropout,
        )
        for i in range(layers)
    ]
    return decoder(
        blocks,
        d_model=d_model,
        vocab=vocab,
        norm=LayerNorm(eps),
        tied=tied,
        position=Learned(context, init=Normal(0.01)),
        dropout=dropout,
        init=init,
    )


FAMILIES = {"gpt3": Family(gpt3, SIZES, "arXiv 2005.14165")}
