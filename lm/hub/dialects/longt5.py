"""transformers' LongT5, whose encoder calls its attention by its kind."""

from lm.core.errors import UserError, nearest
from lm.hub.dialects.t5 import ENCODER, HEAD, PAIR, PREFIX, encoder_names, own_names, pair_names, t5_fields
from lm.hub.tables.classes import BASE_MODEL
from lm.hub.tables.format import Config, Custom, HFClass, HFFormat, Knob, Knobs
from lm.hub.tables.tensor_names import SAME, Layout, TensorNames, entries
from lm.model.attention import Attention
from lm.model.special.summaries import BlockSummaries


def _summarises(attention: Attention) -> bool:
    return isinstance(attention.source, BlockSummaries)


_LOCAL = Layout(transpose=True, only=lambda attention: not _summarises(attention))
_GLOBAL = Layout(transpose=True, only=_summarises)


def _own_names(ours: str, theirs: str) -> TensorNames:
    name = "TransientGlobalSelfAttention"
    place, layer = f"{theirs}block.0.layer.0.{name}.", f"{theirs}block.{{layer}}.layer.0.{name}."
    return (
        *own_names(ours, theirs, "LocalSelfAttention", _LOCAL),
        *own_names(ours, theirs, name, _GLOBAL, "near_bias"),
        (f"{ours}/stack/tables/far_bias/w", f"{place}global_relative_attention_bias.weight", SAME),
        *entries(f"{ours}/stack/{{layer}}/attention/summaries/", layer, ("norm", "global_input_layer_norm")),
    )


KINDS = ("local", "transient-global")


def _read_block(config: Config) -> Knobs:
    kind = config.get("encoder_attention_type", KINDS[0])
    if kind not in KINDS:
        raise UserError(f"encoder_attention_type={kind!r} is not supported{nearest(str(kind), KINDS)}")
    return {"block": config.get("global_block_size", 16) if kind == KINDS[1] else None}


def _write_block(knobs: Knobs) -> dict[str, str | int]:
    size = knobs["block"]
    if size is None:
        return {"encoder_attention_type": KINDS[0]}
    return {"encoder_attention_type": KINDS[1], "global_block_size": size}


MODEL_TYPES = {
    "longt5": HFFormat(
        "longt5",
        {
            "LongT5ForConditionalGeneration": HFClass(PAIR, names=pair_names(own=_own_names)),
            "LongT5Model": HFClass(PAIR, BASE_MODEL.head, pair_names(own=_own_names)),
            "LongT5EncoderModel": HFClass(ENCODER, names=encoder_names(own=_own_names)),
        },
        t5_fields(
            "relu",
            HEAD,
            Knob("radius", "local_radius", 127),
            Custom(("encoder_attention_type", "global_block_size"), _read_block, _write_block),
        ),
        (),
        PREFIX,
        one_table=True,
        tokenizer_before="T5Tokenizer",
    )
}
