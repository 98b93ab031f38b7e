"""GPT-NeoX-20B (Black et al. 2022, arXiv 2204.06745) and Pythia (Biderman et al. 2023, 2304.01373): attention and MLP
side by side, each behind a LayerNorm of its own, rotary positions on a quarter of each head, untied head."""

from lm.core.param import Normal
from lm.model.attention import Attention, Projections
from lm.model.layers import LayerNorm
from lm.model.mlp import MLP
from lm.model.rotary import Rotary, Scaling
from lm.model.transformer import LanguageModel
from lm.zoo.family import Family
from lm.zoo.parts import decoder, head_size, parallel, pre_norm

SIZES = {"20b": {"layers": 44, "d_model": 6144, "heads": 64, "vocab": 50432}}
PYTHIA = {
    "70m": {"layers": 6, "d_model": 512, "heads": 8, "vocab": 50304},
    "160m": {"layers": 12, "d_model": 768, "heads": 12, "vocab": 50304},
    "410m": {"layers": 24, "d_model": 1024, "heads": 16, "vocab": 50304},
    "1b": {"layers": 16, "d_model": 2048, "heads": 8, "vocab": 50304},
    "1.4b": {"layers": 24, "d_model": 2048, "heads": 16, "vocab": 50304},
    "2.8b": {"layers": 32, "d_model": 2560, "heads": 32, "vocab": 50304},
    "6.9b": {"layers": 32, "d_model": 4096, "heads": 32, "vocab": 50432},
    "12b": {"layers": 36, "d_model": 5120, "heads": 40, "vocab": 50688},
}


def gpt_neox(
    *,
    layers: int,
    d_model: int,
    heads: int,
    d_ff: int | None = None,
    vocab: int = 50432,
    activation: str = "gelu",
    theta: float = 10000.0,
    fraction: float = 0.25,
    scaling: Scaling | None = None,
    side_by_side: bool = True,
    attention_bias: bool = True,
    eps: float = 1e-5,
    tied: bool = False,
) -> LanguageModel:
    """A GPT-NeoX of any shape; without `side_by_side` the MLP follows the attention. d_ff defaults to 4 d_model."""
    init = Normal(0.02)
    attention = Attention(
        heads=heads,
        head_dim=head_size(d_model, heads),
        rotary=Rotary(theta=theta, fraction=fraction, scaling=scaling),
        projections=Projections(
            ("q", "k", "v", "o") if attention_bias else (), init=init, out_init=Normal(0.02, depth=2 * layers)
        ),
    )
    mlp = MLP(d_ff or 4 * d_model, activation, init=init, out_init=Normal(0.02, depth=2 * layers))
    norm = LayerNorm(eps)
    block = parallel(attention, mlp, norm, norms=2) if side_by_side else pre_norm(attention, mlp, norm)
    return decoder([block] * layers, d_model=d_model, vocab=vocab, norm=norm, tied=tied, init=init)


FAMILIES = {
    "gpt_neox": Family(gpt_neox, SIZES, "arXiv 2204.06745"),
    "pythia": Family(gpt_neox, PYTHIA, "arXiv 2304.01373"),
}
