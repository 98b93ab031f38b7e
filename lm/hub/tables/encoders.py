"""What BERT and its relatives have in common in config.json, in their classes and in the names of their tensors."""

from collections.abc import Callable

from lm.hub.tables.classes import ANSWERS, token_classifier
from lm.hub.tables.format import (
    ACTIVATIONS,
    Config,
    Field,
    Fixed,
    HFClass,
    Knob,
    Unused,
    activation,
    label_count,
    overridden,
    size_fields,
)
from lm.hub.tables.tensor_names import (
    SAME,
    ModuleNames,
    TensorNames,
    attention_names,
    entries,
    ignored,
    ignored_modules,
    mlp_names,
    norm_names,
    tower_names,
)
from lm.model.heads import Heads, NoHead, SequenceClassifier
from lm.model.masks import Bidirectional, Causal, MaskKind


def _mask(is_decoder: bool) -> MaskKind:
    return Causal() if is_decoder else Bidirectional()


_ENCODER: tuple[Field, ...] = (
    *size_fields("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size"),
    Knob("vocab", "vocab_size"),
    Knob("context", "max_position_embeddings", 512),
    Knob("types", "type_vocab_size", 2),
    activation("hidden_act", "gelu"),
    Knob("eps", "layer_norm_eps", 1e-12),
    Knob("mask", "is_decoder", False, _mask, lambda mask: isinstance(mask, Causal)),
    Knob("tied", "tie_word_embeddings", True),
    Fixed("add_cross_attention", (False,)),
    Fixed("position_embedding_type", ("absolute",)),
    Unused("hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout"),
)


def encoder_fields(*own: Field, without: tuple[str, ...] = ()) -> tuple[Field, ...]:
    """BERT's fields, with a model type's own in place of those that say the same, and without those of some keys."""
    return overridden(_ENCODER, own, without)


# ---------------------------------------------------------------------------------------------------------------------
# Tensors

ATTENTION: ModuleNames = attention_names("attention.", "self.query", "self.key", "self.value", "output.dense")
MLP: ModuleNames = mlp_names("intermediate.dense", "output.dense")
NORMS: ModuleNames = norm_names("attention.output.LayerNorm", "output.LayerNorm")
MLM = ("cls.predictions.transform.dense", "cls.predictions.transform.LayerNorm", "cls.predictions.decoder")
MLM_BIAS = "cls.predictions.bias"


def encoder_names(
    prefix: str,
    norms: ModuleNames = NORMS,
    *,
    attention: ModuleNames = ATTENTION,
    mlp: ModuleNames = MLP,
    layers: str = "encoder.layer",
    norm: str | None = None,
) -> TensorNames:
    """The tensors of an encoder but for its head: BERT's but for what is given. `norm`: a final one."""
    return tower_names(
        "body",
        prefix,
        attention,
        mlp,
        norms,
        layers=layers,
        token="embeddings.word_embeddings",
        position="embeddings.position_embeddings",
        types="embeddings.token_type_embeddings",
        embed_norm="embeddings.LayerNorm",
        norm=norm,
    )


def lm_names(config: Config, decoder: str, bias: str | None = None) -> TensorNames:
    """The table and bias of the head that names tokens. The bias may have a second name, unless the head is untied:
    then it is an unused tensor."""
    tied = config.get("tie_word_embeddings", True)
    biases = (bias, f"{decoder}.bias") if bias and tied else (f"{decoder}.bias",)
    found = ignored_modules(decoder) + (ignored(bias) if bias else ())
    for path in ("head/", "head/lm/", "head/mlm/lm/"):
        found += ((f"{path}w", f"{decoder}.weight", SAME), *((f"{path}b", name, SAME) for name in biases))
    return found


def pretrained_names(
    prefix: str, norms: ModuleNames = NORMS, *, norm: str | None = None
) -> Callable[[Config], TensorNames]:
    """Names of a whole model but for its head, of which files may have more than a class reads."""
    fixed = encoder_names(prefix, norms, norm=norm)
    fixed += ignored_modules(f"{prefix}pooler.dense", "cls.seq_relationship", *MLM[:2])
    return lambda config: (*fixed, *lm_names(config, MLM[2], MLM_BIAS))


# ---------------------------------------------------------------------------------------------------------------------
# Classes

# What the model without a head gives: each token's state, and the first one's behind a dense layer.
POOLED = Heads((("states", NoHead()), ("pooler", SequenceClassifier(activation="tanh"))))
UNPOOLED = Heads(POOLED.parts[:1])


def transform_names(ours: str, dense: str, norm: str) -> TensorNames:
    """What the layer before the masked-LM head's table is called."""
    return entries(ours, "", ("dense", dense), ("norm", norm))


def classifier(activation: str, dense: str = "classifier.dense", out: str = "classifier.out_proj") -> HFClass:
    """A classifier of rows by their first token, behind a dense layer."""
    return HFClass(
        head=lambda config: SequenceClassifier(label_count(config), activation=activation),
        names=entries("head/", "", ("dense", dense), ("out", out)),
    )


def hidden_act_classifier(default: str) -> HFClass:
    """The same with the activation of the layers, `default` where config.json does not say."""

    def head(config: Config) -> SequenceClassifier:
        return SequenceClassifier(label_count(config), activation=ACTIVATIONS[config.get("hidden_act", default)])

    return classifier("")._replace(head=head)


def pooled_classes(stem: str, pooler: str) -> dict[str, HFClass]:
    """Base model and classifiers that pool the first token, by a dense layer that is called `pooler`, and classifiers
    of tokens."""
    rows = classifier("tanh", pooler, "classifier")
    pooled = entries("head/pooler/", "", ("dense", pooler))
    return {
        f"{stem}Model": HFClass(head=lambda config: POOLED, names=pooled, bare=UNPOOLED),
        f"{stem}ForSequenceClassification": rows,
        f"{stem}ForMultipleChoice": rows._replace(head=lambda config: SequenceClassifier(1, activation="tanh")),
        f"{stem}ForTokenClassification": token_classifier("classifier"),
        f"{stem}ForQuestionAnswering": ANSWERS,
    }


def encoder_classes(
    stem: str, prefix: str, lm: str = "ForCausalLM", pooler: str = "pooler.dense"
) -> dict[str, HFClass]:
    """The classes of BERT and those that are named like it."""
    pooler = f"{prefix}{pooler}"
    pair = (("dense", pooler), ("out", "cls.seq_relationship"))
    masked = HFClass({"pretraining": ("mlm",)}, names=transform_names("head/", *MLM[:2]))
    return pooled_classes(stem, pooler) | {
        f"{stem}ForPreTraining": HFClass(
            {"pretraining": ("mlm", "nsp")},
            names=(*transform_names("head/mlm/", *MLM[:2]), *entries("head/nsp/", "", *pair)),
        ),
        f"{stem}ForMaskedLM": masked,
        f"{stem}{lm}": masked,
        f"{stem}ForNextSentencePrediction": HFClass(
            head=lambda config: SequenceClassifier(2, activation="tanh"), names=entries("head/", "", *pair)
        ),
    }
