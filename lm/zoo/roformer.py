"""RoFormer (Su et al. 2021, arXiv 2104.09864): BERT with rotary positions in place of a table of them. The English
models rotate values as well as queries and keys; their tables are narrower than they are, as ELECTRA's."""

from lm.core.errors import UserError
from lm.model.heads import SequenceClassifier
from lm.model.layers import LayerNorm
from lm.model.masks import Bidirectional, MaskKind
from lm.model.rotary import Rotary
from lm.model.stack import Stack
from lm.model.transformer import LanguageModel
from lm.zoo.bert import BASE, FIELDS, classes, encoder, layer, pretrained_names
from lm.zoo.dialect import ACTIVATIONS, SUMMARY, Class, Config, Dialect, Knob, Unused, labels
from lm.zoo.dialect import BASE as STATES
from lm.zoo.family import Family, Sizes
from lm.zoo.names import TensorNames, rows, unused

_SMALL = {"layers": 6, "d_model": 384, "heads": 6}
_ENGLISH = {"layers": 12, "vocab": 30522, "embed_width": 128, "values": True}
CHARACTERS = 12000  # in the vocabulary
SIZES: Sizes = {
    "base": BASE,
    "small": _SMALL,
    "char-base": {**BASE, "vocab": CHARACTERS},
    "char-small": {**_SMALL, "vocab": CHARACTERS},
    "small-discriminator": {**_ENGLISH, "d_model": 256, "heads": 4},
    "small-generator": {**_ENGLISH, "d_model": 64, "heads": 1},
}


def roformer(
    *,
    layers: int,
    d_model: int,
    heads: int,
    d_ff: int | None = None,
    vocab: int = 50000,
    types: int = 2,
    embed_width: int | None = None,
    values: bool = False,
    activation: str = "gelu",
    eps: float = 1e-12,
    mask: MaskKind = Bidirectional(),
    dropout: float = 0.0,
    tied: bool = True,
) -> LanguageModel:
    """A RoFormer of any shape. d_ff defaults to 4 d_model, embed_width, that of the tables, to d_model; `values` are
    rotated or not."""
    norm, rotary = LayerNorm(eps), Rotary(interleaved=True, values=values)
    block = layer(d_model, heads, d_ff, activation, norm, mask=mask, dropout=dropout, rotary=rotary)
    return encoder(
        Stack.of([block] * layers),
        d_model=d_model,
        vocab=vocab,
        position=None,
        types=types,
        embed_width=None if embed_width in (None, d_model) else embed_width,
        embed_norm=norm,
        norm=norm,
        activation=activation,
        pretraining=("mlm",),
        dropout=dropout,
        tied=tied,
    )


FAMILIES = {"roformer": Family(roformer, SIZES, "arXiv 2104.09864")}


def names(config: Config) -> TensorNames:
    """BERT's. Sines and cosines, which files hold, are computed here."""
    return (*pretrained_names("roformer.")(config), *unused("roformer.encoder.embed_positions.weight"))


def _rows(config: Config) -> SequenceClassifier:
    return SequenceClassifier(labels(config), activation=ACTIVATIONS[config.get("hidden_act", "gelu")])


def _choice(config: Config) -> SequenceClassifier:
    """A row's score as one of several, by its last token: transformers' default, and what published configs say."""
    for name, usual in {"summary_type": "last", "summary_use_proj": False, "summary_activation": None}.items():
        if config.get(name, usual) != usual:
            raise UserError(f"{name}={config[name]!r} is not supported, only {usual!r}")
    return SequenceClassifier(1, at="last")


def _classes() -> dict[str, Class]:
    known = classes("RoFormer", "roformer.")
    masked = known["RoFormerForMaskedLM"]._replace(knobs={})
    return {
        "RoFormerModel": STATES,
        "RoFormerForMaskedLM": masked,
        "RoFormerForCausalLM": masked,
        "RoFormerForSequenceClassification": Class(
            head=_rows, names=rows("head/", "classifier.", ("dense", "dense"), ("out", "out_proj"))
        ),
        "RoFormerForMultipleChoice": Class(head=_choice, names=rows("head/", "", ("out", "classifier"))),
        **{name: known[name] for name in ("RoFormerForTokenClassification", "RoFormerForQuestionAnswering")},
    }


DIALECTS = {
    "roformer": Dialect(
        "roformer",
        _classes(),
        (
            *(f for f in FIELDS if f.names != ("position_embedding_type",)),
            Knob("embed_width", "embedding_size", None),
            Knob("values", "rotary_value", False),
            Unused("max_position_embeddings", "summary_last_dropout", *SUMMARY),
        ),
        names,
        "roformer.",
    )
}
