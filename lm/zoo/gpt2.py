"""GPT-2 (Radford et al. 2019), and what was trained in its shape since.

Pre-LayerNorm decoder with learned positions, biases everywhere, tanh GELU, tied head; residual projections start
smaller by 1 / sqrt(2 layers)."""

import functools

from lm.core.param import Normal
from lm.model.attention import Attention, Projections, Softmax
from lm.model.layers import LayerNorm
from lm.model.mlp import MLP
from lm.model.positions import Learned
from lm.model.transformer import LanguageModel
from lm.zoo.family import Family
from lm.zoo.parts import decoder, head_size, pre_norm

SIZES = {
    "small": {"layers": 12, "d_model": 768, "heads": 12},
    "medium": {"layers": 24, "d_model": 1024, "heads": 16},
    "large": {"layers": 36, "d_model": 1280, "heads": 20},
    "xl": {"layers": 48, "d_model": 1600, "heads": 25},
}
# Megatron-LM (Shoeybi et al. 2019) and MT-NLG (Smith et al. 2022): vocabulary padded for 8-way tensor parallelism.
MEGATRON = {
    "1.2b": {"layers": 40, "d_model": 1536, "heads": 16},
    "2.5b": {"layers": 54, "d_model": 1920, "heads": 20},
    "4.2b": {"layers": 64, "d_model": 2304, "heads": 24},
    "8.3b": {"layers": 72, "d_model": 3072, "heads": 32},
    "mt-nlg-530b": {"layers": 105, "d_model": 20480, "heads": 128, "context": 2048},
}
# Lieber et al. 2021; the vocabulary is rounded.
JURASSIC = {
    "large": {"layers": 32, "d_model": 4096, "heads": 32},
    "jumbo": {"layers": 76, "d_model": 13824, "heads": 96},
}
# Kim et al. 2021, table 1. The vocabulary is unpublished: GPT-2's stands in for it.
HYPERCLOVA = {
    "137m": {"layers": 12, "d_model": 768, "heads": 16},
    "350m": {"layers": 24, "d_model": 1024, "heads": 16},
    "760m": {"layers": 24, "d_model": 1536, "heads": 16},
    "1.3b": {"layers": 24, "d_model": 2048, "heads": 16},
    "6.9b": {"layers": 32, "d_model": 4096, "heads": 32},
    "13b": {"layers": 40, "d_model": 5120, "heads": 40},
    "39b": {"layers": 48, "d_model": 8192, "heads": 64},
    "82b": {"layers": 64, "d_model": 10240, "heads": 80},
}
# Wu et al. 2021. Heads are unpublished: heads of 128 are assumed, which no count depends on.
YUAN = {
    "13b": {"layers": 40, "d_model": 5120, "heads": 40},
    "245b": {"layers": 76, "d_model": 16384, "heads": 128},
}
# Chen et al. 2021 (arXiv 2107.03374) fine-tuned GPT-3 models of up to 12B, whose shapes are unpublished; this is 13B's.
CODEX = {"12b": {"layers": 40, "d_model": 5120, "heads": 40}}


def gpt2(
    *,
    layers: int,
    d_model: int,
    heads: int,
    head_dim: int | None = None,
    d_ff: int | None = None,
    vocab: int = 50257,
    context: int = 1024,
    activation: str = "gelu_tanh",
    eps: float = 1e-5,
    scaled: bool = True,
    by_layer: bool = False,
    dropout: float = 0.0,
    tied: bool = True,
) -> LanguageModel:
    """A GPT-2 of any shape; `SIZES` has the published ones. head_dim defaults to d_model / heads, d_ff to 4 d_model.
    Scores are divided by sqrt(head_dim) if `scaled`, and by the layer's number if `by_layer`."""
    init, out_init = Normal(0.02), Normal(0.02, depth=2 * layers)
    attention = Attention(
        heads=heads,
        head_dim=head_dim or head_size(d_model, heads),
        projections=Projections(("q", "k", "v", "o"), init=init, out_init=out_init),
        softmax=Softmax(None if scaled else 1.0, by_layer=by_layer),
        dropout=dropout,
    )
    mlp = MLP(d_ff=d_ff or 4 * d_model, activation=activation, init=init, out_init=out_init)
    return decoder(
        [pre_norm(attention, mlp, LayerNorm(eps), dropout)] * layers,
        d_model=d_model,
        vocab=vocab,
        norm=LayerNorm(eps),
        tied=tied,
        position=Learned(context, init=Normal(0.01)),
        dropout=dropout,
        init=init,
    )


FAMILIES = {
    "gpt2": Family(gpt2, SIZES, "Radford et al. 2019"),
    "megatron": Family(functools.partial(gpt2, vocab=51200), MEGATRON, "arXiv 1909.08053, 2201.11990"),
    "jurassic": Family(functools.partial(gpt2, vocab=256000, context=2048), JURASSIC, "Lieber et al. 2021"),
    "hyperclova": Family(functools.partial(gpt2, context=2048), HYPERCLOVA, "arXiv 2109.04650"),
    "yuan": Family(functools.partial(gpt2, vocab=53228, context=2048), YUAN, "arXiv 2110.04725"),
    "codex": Family(functools.partial(gpt2, context=4096), CODEX, "arXiv 2107.03374"),
}
