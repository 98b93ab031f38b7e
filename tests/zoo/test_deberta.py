"""What DeBERTa has in pretraining and transformers no class for: a mask decoder, and detection of replaced tokens."""

import math

import jax.numpy as jnp
import numpy as np
import pytest

from lm.core.errors import UserError
from lm.hub.binding import Binding
from lm.hub.config import spelling, write_config
from lm.model.heads import NoHead
from lm.model.layers import LayerNorm
from lm.zoo.registry import build
from tests import toys

KNOBS = {
    "family": "deberta_v2",
    "layers": 3,
    "d_model": 12,
    "heads": 2,
    "vocab": toys.VOCAB,
    "context": 16,
    "buckets": 6,
    "conv_width": 3,
}
NAMES = spelling({"model_type": "deberta-v2"}).names
BATCH = {"tokens": toys.tokens(2), "segments": jnp.array([[1] * 8, [1] * 6 + [0] * 2])}
TABLE = "deberta.embeddings.position_embeddings.weight"


def tensors(knobs: dict) -> dict[str, np.ndarray]:
    model = build(knobs)
    return Binding(model, NAMES).to_tensors(toys.values(model.spec()))


def scores(knobs: dict, found: dict[str, np.ndarray]) -> np.ndarray:
    model = build(knobs)
    return np.asarray(model(Binding(model, NAMES).to_params(found), BATCH))[BATCH["segments"] == 1]


def test_a_mask_decoder_is_dropped_after_pretraining():
    """Its one tensor more is the table of positions. Without them, and asked once, the last layer is as any other."""
    decoder = tensors(KNOBS | {"mask_decoder": 2})
    assert decoder.keys() - tensors(KNOBS).keys() == {TABLE}
    plain = scores(KNOBS, decoder)
    assert toys.differ(scores(KNOBS | {"mask_decoder": 2}, decoder), plain)
    silent = decoder | {TABLE: np.zeros_like(decoder[TABLE])}
    toys.close(scores(KNOBS | {"mask_decoder": 1}, silent), plain)


def test_replaced_tokens_are_told_by_the_first_state_too():
    knobs = KNOBS | {"pretraining": "rtd"}
    found = tensors(knobs)
    head = {name.removeprefix("mask_predictions."): x for name, x in found.items() if name.startswith("mask_")}
    model = build(KNOBS | {"head": NoHead()})
    states = np.asarray(model(Binding(model, NAMES).to_params(found), BATCH))
    norm = {"w": head["LayerNorm.weight"], "b": head["LayerNorm.bias"]}
    read = np.asarray(LayerNorm(1e-7)(norm, states + states[:, :1]))
    erf = np.vectorize(math.erf)
    hidden = read @ head["dense.weight"].T + head["dense.bias"]
    hidden = hidden * (1 + erf(hidden / np.sqrt(2))) / 2
    expected = hidden @ head["classifier.weight"].T + head["classifier.bias"]
    toys.close(scores(knobs, found), expected[BATCH["segments"] == 1], atol=1e-4)


@pytest.mark.parametrize(
    ("knobs", "named"),
    [
        ({"terms": ("c2p", "p2p")}, "terms=.*'p2p'.* must be some of c2p, p2c, each once"),
        ({"layers": 1, "mask_decoder": 2}, "use 2 layers"),
        ({"pretraining": "rdt"}, "pretraining='rdt' is unknown; did you mean 'rtd'"),
        ({"conv_width": 2}, "width=2 has no middle"),
    ],
)
def test_mistakes_are_named(knobs, named):
    with pytest.raises(UserError, match=named):
        build(KNOBS | knobs)


@pytest.mark.parametrize("knobs", [{"pretraining": "rtd"}, {"mask_decoder": 2}])
def test_what_has_no_class_is_not_written(knobs):
    with pytest.raises(UserError, match=f"{next(iter(knobs))}=.* has no name in the config.json of a deberta-v2"):
        write_config("deberta-v2", KNOBS | knobs)
