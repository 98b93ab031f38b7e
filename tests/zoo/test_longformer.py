"""A bound on the marked tokens changes what Longformer costs, not what it computes; mistakes are named."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lm.core.errors import UserError
from lm.zoo.registry import build
from tests import toys

KNOBS = {
    "family": "longformer",
    "layers": 3,
    "d_model": 12,
    "heads": 2,
    "vocab": toys.VOCAB,
    "context": 16,
    "windows": (2, 4, 2),
}
SEGMENTS = jnp.array([[1] * 8, [1] * 3 + [2] * 4 + [0]])
POSITIONS = jnp.array([range(8), [0, 1, 2, 0, 1, 2, 3, 0]])


@pytest.mark.parametrize("marked", ["first", "question"])
def test_a_bound_on_marked_tokens(marked):
    batch = {"tokens": toys.tokens(2), "segments": SEGMENTS, "positions": POSITIONS}
    bounded, free = (build(KNOBS | {"marked": marked, "separator": 5, "max_global": most}) for most in (8, None))
    params = toys.values(free.spec())
    found, expected = (np.asarray(jax.jit(model)(params, batch))[SEGMENTS > 0] for model in (bounded, free))
    toys.close(found, expected)
    assert toys.differ(found, np.asarray(jax.jit(build(KNOBS))(params, batch))[SEGMENTS > 0])


@pytest.mark.parametrize(
    ("knobs", "named"),
    [
        ({"windows": 3}, "windows=3 must be even"),
        ({"windows": (2, 2)}, "one number or one for each of the 3 layers"),
        ({"marked": "last"}, "marked='last' is unknown"),
        ({"max_global": 0}, "max_global=0 global tokens"),
    ],
)
def test_mistakes_are_named(knobs, named):
    with pytest.raises(UserError, match=named):
        build(KNOBS | knobs)
