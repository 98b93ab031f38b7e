"""LongT5 (Guo et al. 2021, arXiv 2112.07916): T5 1.1 whose encoder attends within 127 tokens on both sides and, in the
variant with transient global attention, to a summary of each block of 16 tokens, which every layer makes anew."""

import functools

from lm.core.errors import UserError, nearest
from lm.model.attention import Attention
from lm.zoo.dialect import BASE, Class, Config, Custom, Dialect, Knob, Knobs
from lm.zoo.family import Family, Sizes
from lm.zoo.names import SAME, Layout, TensorNames, rows
from lm.zoo.t5 import ENCODER, FIVE, HEAD, PAIR, PREFIX, encoder_names, fields, own_names, pair_names, t5_1_1

SIZES: Sizes = {
    "local-base": FIVE["base"],
    "local-large": FIVE["large"],
    **{f"tglobal-{size}": {**FIVE[size], "block": 16} for size in ("base", "large", "xl")},
}
FAMILIES = {"longt5": Family(functools.partial(t5_1_1, radius=127), SIZES, "arXiv 2112.07916")}


def _summarises(attention: Attention) -> bool:
    return attention.summaries is not None


_LOCAL = Layout(transpose=True, only=lambda attention: not _summarises(attention))
_GLOBAL = Layout(transpose=True, only=_summarises)


def _own_names(ours: str, theirs: str) -> TensorNames:
    name = "TransientGlobalSelfAttention"
    place, layer = f"{theirs}block.0.layer.0.{name}.", f"{theirs}block.{{layer}}.layer.0.{name}."
    return (
        *own_names(ours, theirs, "LocalSelfAttention", _LOCAL),
        *own_names(ours, theirs, name, _GLOBAL, "near_bias"),
        (f"{ours}/stack/tables/far_bias/w", f"{place}global_relative_attention_bias.weight", SAME),
        *rows(f"{ours}/stack/{{layer}}/attention/summaries/", layer, ("norm", "global_input_layer_norm")),
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


DIALECTS = {
    "longt5": Dialect(
        "longt5",
        {
            "LongT5ForConditionalGeneration": Class(PAIR, names=pair_names(own=_own_names)),
            "LongT5Model": Class(PAIR, BASE.head, pair_names(own=_own_names)),
            "LongT5EncoderModel": Class(ENCODER, names=encoder_names(own=_own_names)),
        },
        (
            *fields("relu"),
            HEAD,
            Knob("radius", "local_radius", 127),
            Custom(("encoder_attention_type", "global_block_size"), _read_block, _write_block),
        ),
        (),
        PREFIX,
        one_table=True,
    )
}
