"""Suggestions only where a name is near enough to be a slip."""

import pytest

from lm.core.errors import nearest
from lm.hub.model_types import MODEL_TYPES
from lm.zoo.elsewhere import ELSEWHERE
from lm.zoo.registry import FAMILIES


@pytest.mark.parametrize(
    ("name", "meant"),
    [("lama", "llama"), ("gtp2", "gpt2"), ("mistrall", "mistral"), ("bertt", "bert"), ("deberta-v3", "deberta-v2")],
)
def test_slips(name, meant):
    assert nearest(name, MODEL_TYPES, ELSEWHERE) == f"; did you mean {meant!r}?"


@pytest.mark.parametrize("name", ["jamba", "whisper", "blip", "bamba", "mamba", "clip", "llama4", "xlm", ""])
def test_names_of_other_models(name):
    for known in (MODEL_TYPES, FAMILIES):
        assert nearest(name, known, ELSEWHERE) == f"; known: {', '.join(sorted(known))}"


def test_short_names_and_beginnings():
    assert nearest("rdt", ["mlm", "rtd"]) == "; did you mean 'rtd'?"
    assert nearest("valid", ["train", "validation"]) == "; did you mean 'validation'?"
    assert nearest("c5", ["c4", "loss"]) == "; did you mean 'c4'?"
    assert nearest("ab", ["abcdefgh"]) == "; known: abcdefgh"
    assert nearest("x", []) == "; known: none"
