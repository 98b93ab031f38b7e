"""UL2's mixture of denoisers (Tay et al. 2022, arXiv 2205.05131) on a small encoder-decoder like T5's, over
the bytes of the Python standard library: a few minutes on two CPU cores."""

from typing import Any

from ml_collections.config_dict import ConfigDict

from lm.core.component import to_dict
from lm.core.param import FanIn, Normal
from lm.model.attention import Attention, Projections, Softmax
from lm.model.attention_bias import BiasTable, BucketedBias
from lm.model.block import Block
from lm.model.embed import Embed
from lm.model.heads import LMHead
from lm.model.kv_sources import CrossKV
from lm.model.layers import RMSNorm
from lm.model.masks import Bidirectional, Causal
from lm.model.mlp import GatedMLP
from lm.model.residual import PreNorm
from lm.model.stack import Stack
from lm.model.transformer import EncoderDecoder, Transformer, tied
from lm.objectives.denoising import MixtureOfDenoisers
from lm.train.config import default


def encoder_decoder(*, layers: int, d_model: int, heads: int, d_ff: int, vocab: int) -> EncoderDecoder:
    """Relative biases shared within a tower, RMSNorm before each part, SwiGLU, no biases, one embedding."""
    head_dim = d_model // heads

    def attention(mask: Causal | Bidirectional, **knobs: Any) -> Attention:
        init = FanIn(1 / head_dim)  # in place of 1 / sqrt(head_dim) in the scores
        return Attention(
            heads,
            head_dim,
            mask=mask,
            softmax=Softmax(1.0),
            projections=Projections(init=init, out_init=FanIn()),
            **knobs,
        )

    def tower(mask: Causal | Bidirectional, *cross: tuple[str, Attention]) -> Transformer:
        bias = BucketedBias(bidirectional=isinstance(mask, Bidirectional))
        mlp = GatedMLP(d_ff, init=FanIn(), out_init=FanIn())
        parts = (("attention", attention(mask, bias=(bias,))), *cross, ("mlp", mlp))
        tables = ((bias.name, BiasTable(bias.buckets, heads)),)
        stack = Stack.of([Block(parts, PreNorm(RMSNorm()))] * layers, norm=RMSNorm(), tables=tables)
        return Transformer(d_model, Embed(vocab, init=Normal(1.0)), stack)

    return EncoderDecoder(
        encoder=tower(Bidirectional()),
        decoder=tower(Causal(), ("cross", attention(Bidirectional(), source=CrossKV()))),
        head=LMHead(vocab, scale=d_model**-0.5),
        ties=tied(("decoder/embed/token", "head/w"), "encoder/embed/token"),
    )


def get_config() -> ConfigDict:
    config = default()
    config.data.length = 128
    config.data.batch_size = 16
    with config.unlocked():
        model = encoder_decoder(layers=2, d_model=128, heads=4, d_ff=256, vocab=384)
        config.model = ConfigDict(to_dict(model))
        config.objective = ConfigDict(to_dict(MixtureOfDenoisers.of(config.data.length)))
    config.optimizer.learning_rate = 2e-3
    config.train.steps = 400
    return config
