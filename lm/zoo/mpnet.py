"""MPNet (Song et al. 2020, arXiv 2004.09297): BERT with positions of two kinds, a learned table that begins behind the
padding's row and T5's biases by distance, from one table for all layers; no types. It is trained on masked and permuted
text at once."""

from lm.core.param import Normal
from lm.model.attention_bias import BiasTable, BucketedBias
from lm.model.layers import LayerNorm
from lm.model.positions import Learned
from lm.model.stack import Stack
from lm.model.transformer import LanguageModel
from lm.zoo import roberta
from lm.zoo.bert import BASE, encoder, layer
from lm.zoo.dialect import Config, Dialect, Fixed, Knob, Unused, act, layers_heads
from lm.zoo.family import Family
from lm.zoo.names import LAYER, SAME, TensorNames, rows

OFFSET = 2  # of the first position: the padding's row is 1


def mpnet(
    *,
    layers: int,
    d_model: int,
    heads: int,
    d_ff: int | None = None,
    vocab: int = 30527,
    context: int = 512,
    buckets: int = 32,
    activation: str = "gelu",
    eps: float = 1e-5,
    dropout: float = 0.0,
    tied: bool = True,
) -> LanguageModel:
    """An MPNet of any shape. d_ff defaults to 4 d_model; distances from 128 on share the last of `buckets`."""
    init, norm = Normal(0.02), LayerNorm(eps)
    distance = BucketedBias(buckets=buckets, bidirectional=True)
    block = layer(d_model, heads, d_ff, activation, norm, dropout=dropout, terms=(distance,))
    return encoder(
        Stack.of([block] * layers, tables=(("relative_bias", BiasTable(buckets, heads, init=init)),)),
        d_model=d_model,
        vocab=vocab,
        position=Learned(context + OFFSET, OFFSET, init),
        types=0,
        embed_norm=norm,
        norm=norm,
        activation="gelu",
        pretraining=("mlm",),
        dropout=dropout,
        tied=tied,
    )


FAMILIES = {"mpnet": Family(mpnet, {"base": BASE}, "arXiv 2004.09297")}

NAMES: TensorNames = (
    ("body/embed/token", "mpnet.embeddings.word_embeddings.weight", SAME),
    ("body/embed/position/w", "mpnet.embeddings.position_embeddings.weight", SAME),
    *rows("body/embed/", "mpnet.embeddings.", ("norm", "LayerNorm")),
    ("body/stack/tables/relative_bias/w", "mpnet.encoder.relative_attention_bias.weight", SAME),
    *rows(
        LAYER,
        "mpnet.encoder.layer.{layer}.",
        *((f"attention/{x}", f"attention.attn.{x}") for x in "qkvo"),
        ("attention_norm", "attention.LayerNorm"),
        ("mlp/up", "intermediate.dense"),
        ("mlp/down", "output.dense"),
        ("mlp_norm", "output.LayerNorm"),
    ),
)


def names(config: Config) -> TensorNames:
    return (*NAMES, *roberta.head_names(config, "mpnet."))


CLASSES = {  # it does not write
    name: known._replace(knobs={})
    for name, known in roberta.classes("MPNet", "mpnet.").items()
    if name != "MPNetForCausalLM"
}
DIALECTS = {
    "mpnet": Dialect(
        "mpnet",
        CLASSES,
        (
            *layers_heads("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size"),
            Knob("vocab", "vocab_size"),
            Knob("context", "max_position_embeddings", 512, lambda many: many - OFFSET, lambda many: many + OFFSET),
            Fixed("relative_attention_num_buckets", (32,)),  # theirs counts 32 whatever the field says
            act("activation", "hidden_act", "gelu"),
            Knob("eps", "layer_norm_eps", 1e-12),
            Knob("tied", "tie_word_embeddings", True),
            Unused("hidden_dropout_prob", "attention_probs_dropout_prob"),
        ),
        names,
        "mpnet.",
    )
}
