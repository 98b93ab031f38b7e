"""Falcon (Almazrouei et al. 2023, arXiv 2311.16867) in its forms: 7B has multi-query attention beside the MLP, behind
one norm; 40B and 180B grouped queries and two norms; 11B one norm again; Falcon-RW attention with ALiBi before the
MLP."""

from lm.core.errors import UserError
from lm.core.param import Normal
from lm.model.attention import Attention, Projections
from lm.model.attention_bias import Alibi
from lm.model.layers import LayerNorm
from lm.model.mlp import MLP
from lm.model.rotary import Rotary, Scaling
from lm.model.transformer import LanguageModel
from lm.zoo.family import Family
from lm.zoo.parts import decoder, head_size, parallel, pre_norm

SIZES = {
    "7b": {"layers": 32, "d_model": 4544, "heads": 71, "kv_heads": 1, "norms": 1},
    "40b": {"layers": 60, "d_model": 8192, "heads": 128, "kv_heads": 8},
    "180b": {"layers": 80, "d_model": 14848, "heads": 232, "kv_heads": 8},
}
NORMS = {0: "attention, then MLP", 1: "both behind one norm", 2: "both, each behind its own"}


def falcon(
    *,
    layers: int,
    d_model: int,
    heads: int,
    kv_heads: int | None = None,
    d_ff: int | None = None,
    vocab: int = 65024,
    norms: int = 2,
    alibi: bool = False,
    bias: bool = False,
    activation: str = "gelu",
    theta: float = 10000.0,
    scaling: Scaling | None = None,
    eps: float = 1e-5,
    tied: bool = True,
) -> LanguageModel:
    """A Falcon of any shape. `norms` of attention and MLP side by side: 1 or 2; 0 puts one behind the other. Positions
    are rotary or, with `alibi`, linear biases. d_ff defaults to 4 d_model."""
    if norms not in NORMS:
        raise UserError(f"model.norms={norms} must be one of {NORMS}")
    init = Normal(0.02)
    attention = Attention(
        heads=heads,
        head_dim=head_size(d_model, heads),
        kv_heads=kv_heads,
        rotary=None if alibi else Rotary(theta=theta, scaling=scaling),
        bias=(Alibi(scaled=True, rounded=True),) if alibi else (),
        projections=Projections(("q", "k", "v", "o") if bias else (), init=init, out_init=init),
    )
    mlp = MLP(d_ff or 4 * d_model, activation, bias=bias, init=init, out_init=init)
    norm = LayerNorm(eps)
    block = parallel(attention, mlp, norm, norms=norms) if norms else pre_norm(attention, mlp, norm)
    return decoder([block] * layers, d_model=d_model, vocab=vocab, norm=norm, tied=tied, init=init)


FAMILIES = {"falcon": Family(falcon, SIZES, "arXiv 2311.16867")}
