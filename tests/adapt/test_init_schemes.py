"""Initial values by published recipes, in models of any family."""

from typing import Any

import jax
import numpy as np
import pytest

from lm.adapt.init_schemes import DeepNorm, SmallInit
from lm.core.component import components, from_dict, to_dict
from lm.core.errors import UserError
from lm.core.param import flatten, initialize
from lm.model.residual import PostNorm
from lm.model.transformer import EncoderDecoder
from lm.zoo.registry import build, knobs

SHAPE: dict[str, Any] = {"layers": 2, "d_model": 64, "heads": 2, "vocab": 512}


def stds(family: str, scheme: Any, **more: Any) -> dict[str, float]:
    """The spread of each random matrix, by path; built from config.model."""
    config = knobs(family, **SHAPE, **more, init_scheme=to_dict(scheme))
    assert from_dict(to_dict(scheme)) == scheme
    values = dict(flatten(initialize(build(config).spec(), jax.random.key(0))))
    return {path: float(np.std(x)) for path, x in values.items() if x.ndim > 1 and np.std(x) > 0}


def test_small_init():
    found = stds("gpt_neox", SmallInit())
    out = {path for path in found if path.endswith(("o/w", "down/w"))}
    assert len(out) == 2 and len(found) == 8
    for path, std in found.items():
        want = 2 / (2 * 64**0.5) if path in out else (2 / (5 * 64)) ** 0.5
        assert std == pytest.approx(want, rel=0.05), path
    same = stds("gpt_neox", SmallInit(outputs=False))
    assert all(std == pytest.approx((2 / (5 * 64)) ** 0.5, rel=0.05) for std in same.values())


@pytest.mark.parametrize("gains", [{}, {"alpha": 2.0, "beta": 0.5}], ids=str)
def test_deep_norm_of_one_tower(gains):
    found = stds("glm-130b", DeepNorm(**gains), d_ff=64)
    beta = gains.get("beta", (8 * 2) ** -0.25)
    for name, gain in (("q", 1), ("k", 1), ("v", beta), ("o", beta)):
        assert found[f"body/stack/0/0/attention/{name}/w"] == pytest.approx(gain * 64**-0.5, rel=0.05)
    for name in ("gate", "up", "down"):
        assert found[f"body/stack/0/0/mlp/{name}/w"] == pytest.approx(beta * 64**-0.5, rel=0.05)
    model = build(knobs("glm-130b", **SHAPE, d_ff=64, init_scheme=to_dict(DeepNorm(**gains))))
    alphas = {part.alpha for part in components(model) if isinstance(part, PostNorm)}
    assert alphas == {gains.get("alpha", (2 * 2) ** 0.25)}


def test_deep_norm_of_two_towers_and_where_it_does_not_fit():
    model = build(knobs("transformer", **SHAPE, init_scheme=to_dict(DeepNorm())))
    assert isinstance(model, EncoderDecoder)
    towers = (model.encoder, model.decoder)
    alphas = [{p.alpha for p in components(tower) if isinstance(p, PostNorm)} for tower in towers]
    assert alphas == [{0.81 * (2**4 * 2) ** (1 / 16)}, {(3 * 2) ** 0.25}]
    with pytest.raises(UserError, match="DeepNorm is made for post-norm models, and this one has no PostNorm"):
        build(knobs("gpt2", **SHAPE, init_scheme=to_dict(DeepNorm())))
    with pytest.raises(UserError, match=r"model\.init_scheme"):
        build(knobs("gpt2", **SHAPE, init_scheme={"type": "RMSNorm"}))
