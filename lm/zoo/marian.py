"""Marian's translators (Junczys-Dowmunt et al. 2018, arXiv 1804.00344; OPUS-MT: Tiedemann and Thottingal 2020) and
PEGASUS (Zhang et al. 2020, 1912.08777): Transformers whose sinusoids hold all sines first. OPUS-MT's models use SiLU
and may have a vocabulary for each side; PEGASUS norms before each sub-layer."""

import functools

from lm.model.positions import Sinusoidal
from lm.zoo.bart import classes, fields, names, shares, variant
from lm.zoo.dialect import Config, Custom, Dialect, Fixed, Knob, Knobs, count
from lm.zoo.family import Family
from lm.zoo.names import OPTIONAL, TensorNames

SIZES = {"opus-mt-en-de": {"layers": 6, "d_model": 512, "heads": 8, "vocab": 58101}}
PEGASUS = {"large": {"layers": 16, "d_model": 1024, "heads": 16}}


def _position(rows: int) -> Sinusoidal:
    """A table of sinusoids that files hold: what they hold counts."""
    return Sinusoidal(layout="halves", rows=rows)


fixed = functools.partial(variant, position=_position(512), scaled=True)

FAMILIES = {
    "marian": Family(functools.partial(fixed, vocab=58101, activation="silu"), SIZES, "arXiv 1804.00344"),
    "pegasus": Family(
        functools.partial(fixed, vocab=96103, activation="relu", norm_first=True, position=_position(1024)),
        PEGASUS,
        "arXiv 1912.08777",
    ),
}


def _names(config: Config) -> TensorNames:
    """Files may lack the sinusoids, which then are computed."""
    return tuple(
        (ours, theirs, OPTIONAL if str(ours).partition("/")[2].startswith("embed/position/") else layout)
        for ours, theirs, layout in names(config)
    )


def _own_vocabulary(config: Config) -> Knobs:
    return {"decoder_vocab": None if shares(config) else config.get("decoder_vocab_size")}


def _write(knobs: Knobs) -> dict:
    own = knobs["decoder_vocab"] or knobs["vocab"]
    return {"share_encoder_decoder_embeddings": knobs["shared"], "decoder_vocab_size": own}


STATIC = (
    Fixed("static_position_embeddings", (True,)),
    Knob(
        "position",
        "max_position_embeddings",
        1024,
        to=lambda rows: _position(count("max_position_embeddings")(rows)),
        back=lambda position: position.rows,
    ),
)
DIALECTS = {
    "marian": Dialect(
        "marian",
        classes("Marian", "MTModel"),
        (
            *fields(),
            Custom(("share_encoder_decoder_embeddings", "decoder_vocab_size"), _own_vocabulary, _write),
            *STATIC,
        ),
        _names,
    ),
    "pegasus": Dialect("pegasus", classes("Pegasus"), (*fields(norm_first=True), *STATIC), _names),
}
