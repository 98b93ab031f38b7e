"""ModernBERT (Warner et al. 2024, arXiv 2412.13663): BERT rebuilt from the parts of recent decoders. Rotary positions,
pre-LayerNorm without biases, gated MLPs; two layers with a window of attention on either side, and a rotary base of
their own, for each one without. The embedding is normed, hence the first layer's attention is not."""

import functools

from lm.core.errors import UserError
from lm.core.param import Normal
from lm.model.attention import Attention
from lm.model.block import Block, Parallel
from lm.model.embed import Embed
from lm.model.heads import LMHead, SequenceClassifier, TokenClassifier, TransformHead
from lm.model.layers import LayerNorm
from lm.model.masks import Bidirectional, Window
from lm.model.mlp import GatedMLP
from lm.model.residual import Plain
from lm.model.rotary import Rotary, Scaling
from lm.model.stack import Stack
from lm.model.transformer import LanguageModel, Transformer
from lm.zoo.bert import spare
from lm.zoo.dialect import (
    ACTIVATIONS,
    BASE,
    Class,
    Config,
    Custom,
    Dialect,
    Knob,
    Knobs,
    Unused,
    act,
    labels,
    layers_heads,
)
from lm.zoo.family import Family, Sizes
from lm.zoo.names import LAYER, QKV, SAME, TensorNames, rows
from lm.zoo.parts import GLOBAL, LOCAL, head_size, layers_of, pre_norm
from lm.zoo.rope import Rope, RopeByLayer

SIZES: Sizes = {
    "base": {"layers": 22, "d_model": 768, "heads": 12, "d_ff": 1152},
    "large": {"layers": 28, "d_model": 1024, "heads": 16, "d_ff": 2624},
}


def modernbert(
    *,
    layers: int,
    d_model: int,
    heads: int,
    d_ff: int,
    vocab: int = 50368,
    layer_types: tuple[str, ...] = (),
    window: int = 128,
    theta: float = 160000.0,
    scaling: Scaling | None = None,
    local_theta: float = 10000.0,
    local_scaling: Scaling | None = None,
    activation: str = "gelu",
    attention_bias: bool = False,
    mlp_bias: bool = False,
    norm_bias: bool = False,
    eps: float = 1e-5,
    head_activation: str = "gelu",
    head_bias: bool = False,
    lm_bias: bool = True,
    dropout: float = 0.0,
    tied: bool = True,
) -> LanguageModel:
    """A ModernBERT of any shape. Every third layer from the first on sees all, unless `layer_types` says otherwise; of
    the others' `window` half lies on either side. `head_bias` is that of the head's dense layer, `lm_bias` of its
    scores."""
    norm = LayerNorm(eps, bias=norm_bias)
    init, out_init = Normal(0.02), Normal(0.02 / (2 * layers) ** 0.5)
    mlp = GatedMLP(d_ff, activation, bias=mlp_bias, dropout=dropout, init=init, out_init=out_init)

    def attention(kind: str) -> Attention:
        local = kind == LOCAL
        return Attention(
            heads=heads,
            head_dim=head_size(d_model, heads),
            mask=Window(window // 2 + 1, window // 2 + 1) if local else Bidirectional(),
            rotary=Rotary(local_theta, scaling=local_scaling) if local else Rotary(theta, scaling=scaling),
            biases=("q", "k", "v", "o") if attention_bias else (),
            dropout=dropout,
            init=init,
            out_init=out_init,
        )

    kinds = layers_of(layer_types or tuple(LOCAL if i % 3 else GLOBAL for i in range(layers)), layers)
    normed = Parallel((("mlp", mlp),), norms=norm)
    first = Block((("attention", attention(kinds[0])), ("mlp", normed)), Plain(dropout))
    blocks = [first, *(pre_norm(attention(kind), mlp, norm, dropout) for kind in kinds[1:])]
    return LanguageModel(
        Transformer(d_model, Embed(vocab, norm=norm, dropout=dropout, init=init), Stack.of(blocks, norm=norm)),
        TransformHead(LMHead(vocab, bias=lm_bias, init=out_init), norm, head_activation, bias=head_bias, init=out_init),
        ties=(("head/lm/w", "body/embed/token"),) if tied else (),
    )


FAMILIES = {"modernbert": Family(modernbert, SIZES, "arXiv 2412.13663")}

HEAD = (("dense", "head.dense"), ("norm", "head.norm"))
NAMES: TensorNames = (
    ("body/embed/token", "model.embeddings.tok_embeddings.weight", SAME),
    *rows("body/embed/", "model.embeddings.", ("norm", "norm")),
    *rows(
        LAYER,
        "model.layers.{layer}.",
        ("attention_norm", "attn_norm"),
        (QKV, "attn.Wqkv"),
        ("attention/o", "attn.Wo"),
        ("mlp_norm", "mlp_norm"),
        (("mlp/gate", "mlp/up"), "mlp.Wi"),
        ("mlp/down", "mlp.Wo"),
        # The first layer's MLP norms for itself.
        ("mlp/mlp_norm", "mlp_norm"),
        (("mlp/mlp/gate", "mlp/mlp/up"), "mlp.Wi"),
        ("mlp/mlp/down", "mlp.Wo"),
    ),
    *rows("body/stack/", "model.", ("norm", "final_norm")),
    *spare("head.dense", "head.norm", "decoder"),
)


def _dense(config: Config) -> Knobs:
    """The hidden layer that all its heads have."""
    name = config.get("classifier_activation", "gelu")
    if name not in ACTIVATIONS:
        raise UserError(f"classifier_activation={name!r} is an unknown activation")
    norm = LayerNorm(config.get("norm_eps", 1e-5), bias=config.get("norm_bias", False))
    return {"activation": ACTIVATIONS[name], "norm": norm, "dense_bias": config.get("classifier_bias", False)}


def _pooled(config: Config, outputs: int | None = None) -> SequenceClassifier:
    return SequenceClassifier(
        outputs or labels(config), at=POOLING[config.get("classifier_pooling", "cls")], **_dense(config)
    )


def _tokens(config: Config, outputs: int | None = None) -> TokenClassifier:
    return TokenClassifier(outputs or labels(config), **_dense(config))


POOLING = {"cls": "first", "mean": "mean"}
SCORES = rows("head/", "", *HEAD, ("out", "classifier"))
CLASSES = {
    "ModernBertModel": BASE,
    "ModernBertForMaskedLM": Class(
        names=(
            *rows("head/", "", *HEAD),
            ("head/lm/w", "decoder.weight", SAME),
            ("head/lm/b", "decoder.bias", SAME),
        )
    ),
    "ModernBertForSequenceClassification": Class(head=_pooled, names=SCORES),
    "ModernBertForMultipleChoice": Class(head=functools.partial(_pooled, outputs=1), names=SCORES),
    "ModernBertForTokenClassification": Class(head=_tokens, names=SCORES),
    "ModernBertForQuestionAnswering": Class(head=functools.partial(_tokens, outputs=2), names=SCORES),
}


def _read_kinds(config: Config) -> Knobs:
    period, kinds = config.get("global_attn_every_n_layers", 3), config.get("layer_types")
    if kinds is None:
        kinds = [LOCAL if i % period else GLOBAL for i in range(config["num_hidden_layers"])]
    return {"layer_types": tuple(kinds)}


def _write_kinds(knobs: Knobs) -> dict:
    return {"layer_types": list(knobs["layer_types"] or (LOCAL if i % 3 else GLOBAL for i in range(knobs["layers"])))}


def _read_pooling(config: Config) -> Knobs:
    """Of the class's head, which reads it itself."""
    if (told := config.get("classifier_pooling", "cls")) not in [*POOLING]:
        raise UserError(f"classifier_pooling={told!r} is not supported, only {' or '.join(map(repr, POOLING))}")
    return {}


def _write_pooling(knobs: Knobs) -> dict:
    return {"classifier_pooling": "mean" if getattr(knobs["head"], "at", None) == "mean" else "cls"}


DIALECTS = {
    "modernbert": Dialect(
        "modernbert",
        CLASSES,
        (
            *layers_heads("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size"),
            Knob("vocab", "vocab_size", 50368),
            Custom(("layer_types", "global_attn_every_n_layers"), _read_kinds, _write_kinds),
            Knob("window", "local_attention", 128),
            RopeByLayer(
                Rope(160000.0, longest=8192, theta_name="global_rope_theta"),
                Rope(10000.0, longest=8192, theta_name="local_rope_theta"),
            ),
            act("activation", "hidden_activation", "gelu"),
            Knob("attention_bias", "attention_bias", False),
            Knob("mlp_bias", "mlp_bias", False),
            Knob("norm_bias", "norm_bias", False),
            Knob("eps", "norm_eps", 1e-5),
            act("head_activation", "classifier_activation", "gelu"),
            Knob("head_bias", "classifier_bias", False),
            Knob("lm_bias", "decoder_bias", True),
            Knob("tied", "tie_word_embeddings", True),
            Custom(("classifier_pooling",), _read_pooling, _write_pooling),
            Unused("attention_dropout", "embedding_dropout", "mlp_dropout", "classifier_dropout"),
            Unused("initializer_cutoff_factor", "deterministic_flash_attn", "reference_compile"),
            Unused("sparse_prediction", "sparse_pred_ignore_index"),  # where scores are computed, not what they are
        ),
        NAMES,
    )
}
