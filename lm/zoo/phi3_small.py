"""Phi-3-small (Abdin et al. 2024, arXiv 2404.14219): Phi-3 with LayerNorm, biases, a tied head and a GEGLU whose linear
part is 1 + x W, both parts bounded. Every second layer is dense; the others see the last blocks of keys and of those
before every eighth, others in each head. Scores, embeddings and logits are scaled as muP wants it: scores by 1 /
head_dim."""

from lm.core.param import Normal
from lm.model.attention import Attention, Projections, Softmax
from lm.model.block import Block
from lm.model.heads import LMHead
from lm.model.layers import LayerNorm
from lm.model.mlp import GatedMLP
from lm.model.rotary import Rotary, Scaling
from lm.model.special.block_sparse import BlockSparse
from lm.model.transformer import LanguageModel
from lm.zoo.family import Family
from lm.zoo.parts import decoder, head_size, pre_norm

SIZES = {"7b": {"layers": 32, "d_model": 4096, "heads": 32, "kv_heads": 8, "d_ff": 14336}}


def phi3_small(
    *,
    layers: int,
    d_model: int,
    heads: int,
    d_ff: int,
    kv_heads: int | None = None,
    head_dim: int | None = None,
    vocab: int = 100352,
    sparse: BlockSparse | None = BlockSparse(64, 16, 8),
    activation: str = "quick_gelu",
    limit: float = 20.0,
    embed_scale: float = 10.0,
    logits_scale: float = 0.125,
    theta: float = 1000000.0,
    scaling: Scaling | None = None,
    eps: float = 1e-5,
    dropout: float = 0.0,
    tied: bool = True,
) -> LanguageModel:
    """A Phi-3-small of any shape. `sparse`: what the first of every two layers sees; None makes all layers dense."""
    init, out_init, norm = Normal(0.02), Normal(0.02, depth=2 * layers), LayerNorm(eps)
    size = head_dim or head_size(d_model, heads)
    mlp = GatedMLP(d_ff, activation, bias=True, limit=limit, shift=1.0, init=init, out_init=out_init)

    def block(terms: tuple[BlockSparse, ...]) -> Block:
        attention = Attention(
            heads=heads,
            head_dim=size,
            kv_heads=kv_heads,
            rotary=Rotary(theta=theta, scaling=scaling),
            bias=terms,
            projections=Projections(("q", "k", "v", "o"), init=init, out_init=out_init),
            softmax=Softmax(1 / size),
        )
        return pre_norm(attention, mlp, norm, dropout)

    return decoder(
        [block((sparse,) if sparse and i % 2 == 0 else ()) for i in range(layers)],
        d_model=d_model,
        vocab=vocab,
        norm=norm,
        tied=tied,
        embed_scale=embed_scale,
        dropout=dropout,
        head=LMHead(vocab, scale=logits_scale, init=init),
        init=init,
    )


FAMILIES = {"phi3_small": Family(phi3_small, SIZES, "arXiv 2404.14219")}
