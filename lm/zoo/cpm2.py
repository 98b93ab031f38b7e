"""CPM-2 (Zhang et al. 2021, arXiv 2106.10715): T5 1.1's XXL, first of Chinese alone, then of English too, and then a
mixture of experts, each feed-forward part of both towers copied 32 times.

As in the published code an expert's weight is 1 and training assigns as many tokens of a row to each, so that a router
learns nothing and needs no loss: it stays the random directions it began with. That there are 32 follows from 198
billion parameters; the code has one for each worker."""

from lm.adapt.surgery.copies import CopyExperts
from lm.core.param import FanIn
from lm.model.moe.balanced import BalancedAssignment
from lm.model.moe.dispatch import Dropless
from lm.model.transformer import Model
from lm.zoo.family import Family, Sizes
from lm.zoo.t5 import FIVE, t5_1_1

ROUTER, DISPATCH = BalancedAssignment(score=None, init=FanIn(0.01)), Dropless()

SIZES: Sizes = {"11b": {**FIVE["xxl"], "vocab": 26240}, "11b-bilingual": {**FIVE["xxl"], "vocab": 51968}}
MOE: Sizes = {"198b": SIZES["11b-bilingual"]}


def cpm2_moe(
    *,
    layers: int,
    d_model: int,
    heads: int,
    d_ff: int,
    experts: int = 32,
    head_dim: int = 64,
    vocab: int = 51968,
    activation: str = "gelu_tanh",
    buckets: int = 32,
    max_distance: int = 128,
    eps: float = 1e-6,
    dropout: float = 0.0,
    tied: bool = False,
) -> Model:
    """A CPM-2-MoE of any shape; see `lm.zoo.t5.t5` for what the knobs mean. All layers have `experts`."""
    model = t5_1_1(
        layers=layers,
        d_model=d_model,
        heads=heads,
        d_ff=d_ff,
        head_dim=head_dim,
        vocab=vocab,
        activation=activation,
        buckets=buckets,
        max_distance=max_distance,
        eps=eps,
        dropout=dropout,
        tied=tied,
    )
    return CopyExperts(experts, tuple(range(layers)), router=ROUTER, dispatch=DISPATCH).model(model)


FAMILIES = {
    "cpm2": Family(t5_1_1, SIZES, "arXiv 2106.10715"),
    "cpm2_moe": Family(cpm2_moe, MOE, "arXiv 2106.10715"),
}
