"""YaLM-100B (Yandex 2022, github.com/yandex/YaLM-100B): a pre-norm decoder with rotary positions, GEGLU and biases.

Its token table is narrow: rows are normed and filled up with zeros, and the tied head comes behind a dense layer of
that width with an activation and a norm, as BERT's. The first attention reads the embeddings without a norm."""

from lm.core.param import Normal
from lm.model.attention import Attention, Projections
from lm.model.block import Block
from lm.model.embed import Embed
from lm.model.heads import LMHead, TransformHead
from lm.model.layers import LayerNorm
from lm.model.mlp import GatedMLP
from lm.model.residual import Plain, PreNorm
from lm.model.rotary import Rotary
from lm.model.stack import Stack
from lm.model.transformer import LanguageModel, Transformer
from lm.zoo.family import Family
from lm.zoo.parts import head_size, pre_norm

SIZES = {"100b": {"layers": 80, "d_model": 10240, "heads": 128, "d_ff": 27308, "embed_width": 2048}}


def yalm(
    *,
    layers: int,
    d_model: int,
    heads: int,
    d_ff: int,
    embed_width: int,
    head_dim: int | None = None,
    vocab: int = 128000,
    activation: str = "gelu",
    theta: float = 10000.0,
    eps: float = 1e-5,
    dropout: float = 0.0,
    tied: bool = True,
) -> LanguageModel:
    """A YaLM of any shape."""
    init, out_init, norm = Normal(0.02), Normal(0.02, depth=2 * layers), LayerNorm(eps)
    attention = Attention(
        heads=heads,
        head_dim=head_dim or head_size(d_model, heads),
        rotary=Rotary(theta=theta),
        projections=Projections(("q", "k", "v", "o"), init=init, out_init=out_init),
        dropout=dropout,
    )
    mlp = GatedMLP(d_ff, activation, bias=True, init=init, out_init=out_init)
    # The first layer's halves are wired differently, which takes two blocks.
    first = [Block((("attention", attention),), Plain(dropout)), Block((("mlp", mlp),), PreNorm(norm, dropout))]
    blocks = first + [pre_norm(attention, mlp, norm, dropout)] * (layers - 1)
    embed = Embed(vocab, norm=norm, width=embed_width, project="pad", dropout=dropout, init=init)
    return LanguageModel(
        body=Transformer(d_model, embed, Stack.of(blocks, norm=norm)),
        head=TransformHead(LMHead(vocab, bias=True, init=init), norm, "gelu", width=embed_width, init=init),
        ties=(("head/lm/w", "body/embed/token"),) if tied else (),
    )


FAMILIES = {"yalm": Family(yalm, SIZES, "github.com/yandex/YaLM-100B")}
