"""Shapes of models by their size."""

import itertools

import pytest
from ml_collections.config_dict import ConfigDict

from lm.core.errors import UserError
from lm.zoo.registry import build, knobs
from scaling.cells import default, model_config
from scaling.ladder import Ladder, ladder_of, nearest_rung, rungs_between

LENGTHS = (128, 0)


def config(family: str = "gpt2", **given) -> ConfigDict:
    made = default()
    with made.unlocked():
        made.model = knobs(family, **given)
    return made


BYTES = config(head_dim=16, vocab=384, context=128)


def test_a_layer_per_head_is_how_published_models_stand():
    assert Ladder(64).shape(12) == (768, 12)  # GPT-2 small
    assert Ladder(128).shape(32) == (4096, 32)  # LLaMA 7B
    assert Ladder(128).shape(40) == (5120, 40)  # LLaMA 13B
    assert Ladder(16).shape(1) == (16, 2)  # the fewest layers
    assert Ladder(64, aspect=128).shape(16) == (1024, 8)


def test_rungs_are_spread_evenly_over_their_range():
    rungs = rungs_between(BYTES, ladder_of(BYTES), 2e4, 2e8, 8, LENGTHS)
    assert len(rungs) == 8
    assert all(2e4 <= r.params <= 2e8 for r in rungs)
    ratios = [b.params / a.params for a, b in itertools.pairwise(rungs)]
    assert max(ratios) < 3 * min(ratios)
    assert all(0.9 < r.flops / (6 * r.params) < 1.5 for r in rungs)


def test_nearest_rung():
    for params in (1e5, 3e7, 5e9):
        assert nearest_rung(BYTES, ladder_of(BYTES), params, LENGTHS).params == pytest.approx(params, rel=0.35)


@pytest.mark.parametrize("family", ["llama", "bert", "mixtral", "t5"])
def test_any_family_has_a_ladder(family):
    """Those without a head_dim take it from the sweep, those that ask for d_ff get one."""
    c = config(family)
    if "head_dim" in c.model:
        c.model.head_dim = 64
    c.sweep.head_dim = 64
    lengths = (128, 64) if family == "t5" else LENGTHS
    rung = nearest_rung(c, ladder_of(c), 1e8, lengths)
    assert rung.params == pytest.approx(1e8, rel=0.35)
    assert 0 < rung.in_vocabulary < rung.params
    assert build(model_config(c, (rung.d_model, rung.layers))) is not None


def test_of_experts_the_active_parameters_count():
    c = config("mixtral", head_dim=64)
    few, many = (nearest_rung(_with(c, experts=n), ladder_of(c), 1e8, LENGTHS) for n in (4, 64))
    assert few.params == pytest.approx(many.params, rel=0.02)  # but for the router


def _with(c: ConfigDict, **changed) -> ConfigDict:
    c = c.copy_and_resolve_references()
    c.model.update(changed)
    return c


def test_what_cannot_be():
    with pytest.raises(UserError, match=r"no size of the ladder has 10 to 20 parameters \(near: "):
        rungs_between(BYTES, ladder_of(BYTES), 10, 20, 3, LENGTHS)
    with pytest.raises(UserError, match="beyond the ladder"):
        nearest_rung(BYTES, ladder_of(BYTES), 1e18, LENGTHS)
    with pytest.raises(UserError, match=r"config\.sweep\.head_dim is not set"):
        ladder_of(config("bert"))
    with pytest.raises(UserError, match=r"config\.model\.layers comes from"):
        nearest_rung(_with(BYTES, layers=3), Ladder(16), 1e6, LENGTHS)
