"""BERT (Devlin et al. 2019, arXiv 1810.04805) and what was trained in its shape: whole-word masking (Cui et al. 2019,
1906.08101), SpanBERT (Joshi et al. 2020, 1907.10529), MacBERT (Cui et al. 2020, 2004.13922), TinyBERT (Jiao et al.
2020, 1909.10351), small ones (Turc et al. 2019, 1908.08962).

Post-LayerNorm encoder: token, position and type tables, their sum normed; biases everywhere, exact GELU. It is trained
to fill in masked tokens, by a head with a transform before the tied table, and to tell whether two texts follow each
other, by the pooled state of the first token. `lm.zoo` has its relatives, which build on `bert`, in files of their own.
"""

import functools
from collections.abc import Callable
from typing import Any

from lm.core.errors import UserError, nearest
from lm.core.param import Initializer, Normal
from lm.model.attention import Attention
from lm.model.block import Block
from lm.model.embed import Embed, RowTable
from lm.model.heads import Head, Heads, LMHead, NoHead, SequenceClassifier, TokenClassifier, TransformHead
from lm.model.layers import LayerNorm
from lm.model.masks import Bidirectional, Causal, MaskKind
from lm.model.mlp import MLP
from lm.model.positions import Learned
from lm.model.residual import PostNorm, PreNorm
from lm.model.special.spans import SpanBoundary
from lm.model.stack import Stack
from lm.model.transformer import LanguageModel, Transformer
from lm.zoo.dialect import (
    ANSWERS,
    Class,
    Config,
    Dialect,
    Field,
    Fixed,
    Knob,
    Unused,
    act,
    labels,
    layers_heads,
    token_labels,
)
from lm.zoo.family import Family, Sizes
from lm.zoo.names import LAYER, SAME, TensorNames, rows, unused
from lm.zoo.parts import head_size

BASE = {"layers": 12, "d_model": 768, "heads": 12}
LARGE = {"layers": 24, "d_model": 1024, "heads": 16}
CASED, CHINESE = 28996, 21128  # vocabularies
SIZES: Sizes = {
    "base": BASE,
    "large": LARGE,
    "base-cased": {**BASE, "vocab": CASED},
    "large-cased": {**LARGE, "vocab": CASED},
    "base-chinese": {**BASE, "vocab": CHINESE},
    "base-multilingual-cased": {**BASE, "vocab": 119547},
    "tiny": {"layers": 2, "d_model": 128, "heads": 2},
    "mini": {"layers": 4, "d_model": 256, "heads": 4},
    "small": {"layers": 4, "d_model": 512, "heads": 8},
    "medium": {"layers": 8, "d_model": 512, "heads": 8},
}
TINYBERT = {"4": {"layers": 4, "d_model": 312, "heads": 12, "d_ff": 1200}, "6": {**BASE, "layers": 6}}
# What the model without a head gives: each token's state, and the first one's behind a dense layer.
POOLED = Heads((("states", NoHead()), ("pooler", SequenceClassifier(activation="tanh"))))
UNPOOLED = Heads(POOLED.parts[:1])


def bert(
    *,
    layers: int,
    d_model: int,
    heads: int,
    d_ff: int | None = None,
    vocab: int = 30522,
    context: int = 512,
    offset: int = 0,
    types: int = 2,
    tasks: int = 0,
    embed_width: int | None = None,
    activation: str = "gelu",
    head_activation: str | None = None,
    eps: float = 1e-12,
    norm_first: bool = False,
    embed_norm: bool = True,
    mask: MaskKind = Bidirectional(),
    dropout: float = 0.0,
    pretraining: tuple[str, ...] = ("mlm",),
    tied: bool = True,
) -> LanguageModel:
    """A BERT of any shape; `SIZES` has the published ones. d_ff defaults to 4 d_model, head_activation to activation.

    `pretraining` are the heads, on one token table: "mlm" (masked tokens), "nsp" (whether a text follows another),
    "sop" (whether they are in order), "sbo" (tokens of a span from those beside it), "rtd" (replaced tokens); several
    give a dict of scores by these names. There are `types` of tokens and `tasks`; positions begin at row `offset` of
    their table. With `norm_first` sub-layers are pre-normed, and the last states normed."""
    norm = LayerNorm(eps)
    block = layer(d_model, heads, d_ff, activation, norm, norm_first=norm_first, mask=mask, dropout=dropout)
    return encoder(
        Stack.of([block] * layers, norm=norm if norm_first else None),
        d_model=d_model,
        vocab=vocab,
        position=Learned(context + offset, offset, Normal(0.02)),
        types=types,
        tasks=tasks,
        embed_width=None if embed_width in (None, d_model) else embed_width,
        embed_norm=norm if embed_norm else None,
        norm=norm,
        activation=head_activation or activation,
        dropout=dropout,
        pretraining=pretraining,
        tied=tied,
    )


def layer(
    d_model: int,
    heads: int,
    d_ff: int | None,
    activation: str,
    norm: LayerNorm,
    *,
    norm_first: bool = False,
    mask: MaskKind = Bidirectional(),
    dropout: float = 0.0,
    init: Initializer = Normal(0.02),
    **knobs: Any,
) -> Block:
    """Attention and MLP with biases, normed before or after. `knobs`: further ones of the attention."""
    attention = Attention(
        heads=heads,
        head_dim=head_size(d_model, heads),
        mask=mask,
        biases=("q", "k", "v", "o"),
        dropout=dropout,
        init=init,
        out_init=init,
        **knobs,
    )
    mlp = MLP(d_ff or 4 * d_model, activation, init=init, out_init=init)
    residual = PreNorm(norm, dropout) if norm_first else PostNorm(norm, dropout=dropout)
    return Block((("attention", attention), ("mlp", mlp)), residual)


def encoder(
    stack: Stack,
    *,
    d_model: int,
    vocab: int,
    position: Learned | None,
    types: int,
    embed_norm: LayerNorm | None,
    norm: LayerNorm,
    activation: str,
    pretraining: tuple[str, ...],
    tasks: int = 0,
    embed_width: int | None = None,
    dropout: float = 0.0,
    tied: bool = True,
    init: Initializer = Normal(0.02),
) -> LanguageModel:
    """An encoder around its layers, with heads for `pretraining` (see `bert`) whose norm and activation are given."""
    embed = Embed(
        vocab,
        position,
        extra=tuple(RowTable(name, n, init) for name, n in (("types", types), ("tasks", tasks)) if n),
        norm=embed_norm,
        width=embed_width,
        project_bias=embed_width is not None,
        dropout=dropout,
        init=init,
    )
    lm = LMHead(vocab, bias=True, init=init)
    pair = SequenceClassifier(2, activation="tanh", init=init)
    known: dict[str, Head] = {
        "mlm": TransformHead(lm, norm, activation, embed_width, init=init),
        "nsp": pair,
        "sop": pair,
        "sbo": SpanBoundary(lm, norm, activation, width=embed_width, init=init),
        "rtd": TokenClassifier(1, activation, init=init),
    }
    for name in pretraining:
        if name not in known:
            raise UserError(f"model.pretraining has the head {name!r}{nearest(name, known)}")
    if not pretraining or len(set(pretraining)) < len(pretraining):
        raise UserError(f"model.pretraining={list(pretraining)} must name each head once, and at least one")
    parts = tuple((name, known[name]) for name in pretraining)
    paths = ("head",) if len(parts) == 1 else tuple(f"head/{name}" for name in pretraining)
    shares = (TransformHead, SpanBoundary)
    tables = [f"{at}/lm/w" for at, (_, head) in zip(paths, parts, strict=True) if isinstance(head, shares)]
    return LanguageModel(
        Transformer(d_model, embed, stack),
        parts[0][1] if len(parts) == 1 else Heads(parts),
        ties=tuple((path, "body/embed/token") for path in tables) if tied else (),
    )


FAMILIES = {
    "bert": Family(bert, SIZES, "arXiv 1810.04805, 1908.08962"),
    "bert_wwm": Family(functools.partial(bert, vocab=CHINESE), {"base": BASE, "ext-base": BASE}, "arXiv 1906.08101"),
    "spanbert": Family(functools.partial(bert, vocab=CASED), {"base": BASE, "large": LARGE}, "arXiv 1907.10529"),
    "macbert": Family(functools.partial(bert, vocab=CHINESE), {"base": BASE, "large": LARGE}, "arXiv 2004.13922"),
    "tinybert": Family(bert, TINYBERT, "arXiv 1909.10351"),
}

MLM = ("cls.predictions.transform.dense", "cls.predictions.transform.LayerNorm", "cls.predictions.decoder")
MLM_BIAS = "cls.predictions.bias"


def spare(*parts: str) -> TensorNames:
    """What files may carry and a class does not have: linear maps or norms of these names."""
    return unused(*(f"{part}.{leaf}" for part in parts for leaf in ("weight", "bias")))


def lm_names(config: Config, decoder: str, bias: str | None = None) -> TensorNames:
    """The table and bias of the masked-LM head. The bias may have a second name, unless the head is untied: then it is
    an unused tensor."""
    tied = config.get("tie_word_embeddings", True)
    biases = (bias, f"{decoder}.bias") if bias and tied else (f"{decoder}.bias",)
    found = spare(decoder) + (unused(bias) if bias else ())
    for path in ("head/lm/", "head/mlm/lm/"):
        found += ((f"{path}w", f"{decoder}.weight", SAME), *((f"{path}b", name, SAME) for name in biases))
    return found


def body_names(
    prefix: str,
    attention_norm: str = "attention.output.LayerNorm",
    mlp_norm: str = "output.LayerNorm",
    norm: str | None = None,
) -> TensorNames:
    """The encoder's names; those of its norms differ between relatives, of which some have a final one."""
    return (
        ("body/embed/token", f"{prefix}embeddings.word_embeddings.weight", SAME),
        ("body/embed/position/w", f"{prefix}embeddings.position_embeddings.weight", SAME),
        ("body/embed/types/w", f"{prefix}embeddings.token_type_embeddings.weight", SAME),
        ("body/embed/tasks/w", f"{prefix}embeddings.task_type_embeddings.weight", SAME),
        *rows("body/embed/", prefix, ("norm", "embeddings.LayerNorm"), ("project", "embeddings_project")),
        *rows(
            LAYER,
            prefix + "encoder.layer.{layer}.",
            ("attention/q", "attention.self.query"),
            ("attention/k", "attention.self.key"),
            ("attention/v", "attention.self.value"),
            ("attention/o", "attention.output.dense"),
            ("attention_norm", attention_norm),
            ("mlp/up", "intermediate.dense"),
            ("mlp/down", "output.dense"),
            ("mlp_norm", mlp_norm),
        ),
        *(rows("body/stack/", prefix, ("norm", norm)) if norm else ()),
        *unused(f"{prefix}embeddings.position_ids", f"{prefix}embeddings.token_type_ids"),
    )


def pretrained_names(prefix: str, *norms: str) -> Callable[[Config], TensorNames]:
    """Names of a whole model but for its head, of which files may have more than a class reads."""
    fixed = body_names(prefix, *norms) + spare(f"{prefix}pooler.dense", "cls.seq_relationship", *MLM[:2])
    return lambda config: (*fixed, *lm_names(config, MLM[2], MLM_BIAS))


def pooled_classes(stem: str, pooler: str) -> dict[str, Class]:
    """Base model and classifiers that pool the first token, by a dense layer that is called `pooler`, and classifiers
    of tokens."""

    def classifier(config: Config) -> SequenceClassifier:
        return SequenceClassifier(labels(config), activation="tanh")

    pooled = rows("head/", "", ("dense", pooler), ("out", "classifier"))
    return {
        f"{stem}Model": Class(
            head=lambda config: POOLED, names=rows("head/pooler/", "", ("dense", pooler)), bare=UNPOOLED
        ),
        f"{stem}ForSequenceClassification": Class(head=classifier, names=pooled),
        f"{stem}ForMultipleChoice": Class(head=lambda config: SequenceClassifier(1, activation="tanh"), names=pooled),
        f"{stem}ForTokenClassification": token_labels("classifier"),
        f"{stem}ForQuestionAnswering": ANSWERS,
    }


def classes(stem: str, prefix: str, lm: str = "ForCausalLM", pooler: str = "pooler.dense") -> dict[str, Class]:
    """The classes of BERT and those that are named like it."""
    pooler = f"{prefix}{pooler}"
    pair = (("dense", pooler), ("out", "cls.seq_relationship"))
    masked = Class({"pretraining": ("mlm",)}, names=rows("head/", "", ("dense", MLM[0]), ("norm", MLM[1])))
    return pooled_classes(stem, pooler) | {
        f"{stem}ForPreTraining": Class(
            {"pretraining": ("mlm", "nsp")},
            names=(*rows("head/mlm/", "", ("dense", MLM[0]), ("norm", MLM[1])), *rows("head/nsp/", "", *pair)),
        ),
        f"{stem}ForMaskedLM": masked,
        f"{stem}{lm}": masked,
        f"{stem}ForNextSentencePrediction": Class(
            head=lambda config: SequenceClassifier(2, activation="tanh"), names=rows("head/", "", *pair)
        ),
    }


def _mask(is_decoder: bool) -> MaskKind:
    return Causal() if is_decoder else Bidirectional()


FIELDS: tuple[Field, ...] = (
    *layers_heads("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size"),
    Knob("vocab", "vocab_size"),
    Knob("types", "type_vocab_size", 2),
    act("activation", "hidden_act", "gelu"),
    Knob("eps", "layer_norm_eps", 1e-12),
    Knob("mask", "is_decoder", False, _mask, lambda mask: isinstance(mask, Causal)),
    Knob("tied", "tie_word_embeddings", True),
    Fixed("add_cross_attention", (False,)),
    Fixed("position_embedding_type", ("absolute",)),
    Unused("hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout"),
)
CONTEXT = Knob("context", "max_position_embeddings", 512)

DIALECTS = {
    "bert": Dialect(
        "bert", classes("Bert", "bert.", "LMHeadModel"), (*FIELDS, CONTEXT), pretrained_names("bert."), "bert."
    ),
}
