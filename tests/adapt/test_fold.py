"""Multipliers folded into weights: the same outputs from a model without them."""

from typing import Any

import jax
import numpy as np
import pytest

from lm.adapt.fold import folded
from lm.core.errors import UserError
from lm.core.param import flatten
from lm.train.parametrization.config import Parametrization
from lm.zoo.registry import build
from tests import toys

SHAPE = {"d_model": 16, "heads": 2, "layers": 4, "d_ff": 24, "vocab": toys.VOCAB}


def both(family: str, base: dict, **more: Any) -> tuple[Any, dict]:
    given = {"family": family, **SHAPE, **more}
    return Parametrization(tuple(base.items())).model(build(given), given), given


@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma", "gpt_neox", "mixtral"])
def test_outputs_stay(family):
    """Attention with wider heads, a deeper and wider model, tied or not, dense or of experts, one norm or two."""
    more = {"experts": 3} if family == "mixtral" else {}
    model, given = both(family, {"d_model": 8, "heads": 2, "layers": 2, "d_ff": 12}, **more)
    plain = build(given | ({"tied": False} if model.ties else {}))
    assert model != plain
    params = toys.values(model.spec())
    merged = folded(model, plain, params)
    assert {p: x.shape for p, x in flatten(merged)} == {p: x.shape for p, x in flatten(plain.spec())}
    batch = {"tokens": toys.tokens(2)}
    np.testing.assert_allclose(jax.jit(plain)(merged, batch), jax.jit(model)(params, batch), rtol=1e-4, atol=1e-5)


def test_where_no_weight_can_take_them():
    model, given = both("gpt2", {"d_model": 8, "heads": 1})
    with pytest.raises(UserError, match=r"head/w is tied to body/embed/token, but has a multiplier of its own"):
        folded(model, build(given), toys.values(model.spec()))
    model, given = both("qwen3", {"d_model": 8, "heads": 2, "head_dim": 4}, head_dim=8)
    with pytest.raises(UserError, match=r"queries at body/stack/0/0/attention are normed"):
        folded(model, build(given | {"tied": False}), toys.values(model.spec()))
