"""PanGu-alpha (Zeng et al. 2021, arXiv 2104.12369): GPT-2's decoder, on top of which stands a query layer: its queries
come from a second table of positions, which says what place is to be predicted, its keys and values from the layers
below.

The final norm stands before the query layer, not after it, and its queries are not normed, as in the published code,
whose GELU is x sigmoid(1.702 x).

PanGu-Sigma (Ren et al. 2023, arXiv 2303.10845) grows out of the 13B, with 640 experts in each of the eight layers on
top. No router learns: a text of one of 40 domains goes to that domain's experts, and of these to one that was drawn for
each token id and layer. The report does not tell all: that the query layer is one of the eight, as the 1.085 trillion
need, that the domains' groups of experts are alike, and that the vocabulary is PanGu-alpha's is assumed here."""

import dataclasses
from typing import Any

from lm.core.errors import UserError
from lm.core.param import Normal
from lm.model.attention import Attention, Projections
from lm.model.layers import LayerNorm
from lm.model.mlp import MLP
from lm.model.moe.dispatch import Dropless
from lm.model.moe.hash import Hash
from lm.model.moe.layer import MoE
from lm.model.positions import Learned
from lm.model.special.query_attention import QueryAttention
from lm.model.transformer import LanguageModel
from lm.zoo.family import Family
from lm.zoo.parts import decoder, head_size, pre_norm, with_experts

SIZES = {
    "2.6b": {"layers": 32, "d_model": 2560, "heads": 32},
    "13b": {"layers": 40, "d_model": 5120, "heads": 40},
    "200b": {"layers": 64, "d_model": 16384, "heads": 128},
}
SIGMA = {"1.085t": {"layers": 40, "d_model": 5120, "heads": 40}}


def pangu(
    *,
    layers: int,
    d_model: int,
    heads: int,
    head_dim: int | None = None,
    d_ff: int | None = None,
    vocab: int = 40000,
    context: int = 1024,
    activation: str = "quick_gelu",
    eps: float = 1e-5,
    dropout: float = 0.0,
    tied: bool = True,
) -> LanguageModel:
    """A PanGu-alpha of any shape. `layers` counts the query layer. d_ff defaults to 4 d_model."""
    init, out_init = Normal(0.02), Normal(0.02, depth=2 * layers)
    norm = LayerNorm(eps)
    attention = Attention(
        heads=heads,
        head_dim=head_dim or head_size(d_model, heads),
        projections=Projections(("q", "k", "v", "o"), init=init, out_init=out_init),
        dropout=dropout,
    )
    mlp = MLP(d_ff or 4 * d_model, activation, init=init, out_init=out_init)
    asking = QueryAttention(attention, Learned(context, init=init))
    last = dataclasses.replace(pre_norm(asking, mlp, norm, dropout), norm=norm)
    return decoder(
        [pre_norm(attention, mlp, norm, dropout)] * (layers - 1) + [last],
        d_model=d_model,
        vocab=vocab,
        norm=None,
        tied=tied,
        position=Learned(context, init=init),
        dropout=dropout,
        init=init,
    )


def pangu_sigma(
    *,
    layers: int,
    d_model: int,
    heads: int,
    sparse: int = 8,
    experts: int = 640,
    domains: int = 40,
    head_dim: int | None = None,
    d_ff: int | None = None,
    vocab: int = 40000,
    context: int = 1024,
    activation: str = "quick_gelu",
    eps: float = 1e-5,
    dropout: float = 0.0,
    tied: bool = True,
) -> LanguageModel:
    """A PanGu-Sigma of any shape. The last `sparse` layers, the query layer among them, have `experts` of width d_ff,
    shared out among `domains`, whose number is the row `source`."""
    if sparse > layers:
        raise UserError(f"model.sparse={sparse} exceeds model.layers={layers}: lower it")
    shape: dict[str, Any] = {"layers": layers, "d_model": d_model, "heads": heads, "head_dim": head_dim, "d_ff": d_ff}
    shape |= {"vocab": vocab, "context": context, "activation": activation, "eps": eps, "dropout": dropout}
    model = pangu(**shape, tied=tied)
    _, expert = model.body.stack.blocks()[0].parts[-1]
    moe = MoE(experts, expert, Hash(domains=domains), Dropless())
    return with_experts(model, moe, range(layers - sparse, layers))


FAMILIES = {
    "pangu": Family(pangu, SIZES, "arXiv 2104.12369"),
    "pangu_sigma": Family(pangu_sigma, SIGMA, "arXiv 2303.10845"),
}
