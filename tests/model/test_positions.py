"""Tables of positions against their formulas."""

import math

import jax.numpy as jnp
import numpy as np
import pytest

from lm.core.ctx import Ctx
from lm.model.embed import Embed, RowTable
from lm.model.positions import Learned, Sinusoidal
from tests import toys

D, BASE = 6, 50.0


def sines(position: int, layout: str) -> list[float]:
    """One row of the table."""
    pairs = [position * BASE ** (-2 * i / D) for i in range(D // 2)]
    if layout == "fairseq":
        pairs = [position * math.exp(-i * math.log(BASE) / (D // 2 - 1)) for i in range(D // 2)]
    if layout == "pairs":
        return [f(angle) for angle in pairs for f in (math.sin, math.cos)]
    return [math.sin(angle) for angle in pairs] + [math.cos(angle) for angle in pairs]


@pytest.mark.parametrize("offset", [0, 2])
@pytest.mark.parametrize("layout", ["pairs", "halves", "fairseq"])
def test_sinusoids(layout, offset):
    positions = np.array([[0, 1, 2, 0, 5]])
    found = Sinusoidal(BASE, layout, offset)({}, jnp.asarray(positions), D, jnp.float32)
    np.testing.assert_allclose(found[0], [sines(n + offset, layout) for n in positions[0]], atol=1e-5)


def test_learned_rows_begin_at_the_offset():
    table = Learned(7, offset=2)
    assert table.max_length == 5
    p = toys.values(table.spec(D))
    found = table(p, jnp.array([[0, 3, 4]]), D, jnp.float32)
    np.testing.assert_array_equal(found[0], np.asarray(p["w"])[[2, 5, 6]])


def test_a_token_may_stand_elsewhere_than_it_is_read():
    embed = Embed(5, Learned(7), extra=(RowTable("span", 3),), scale=2.0)
    p = toys.values(embed.spec(D))
    rows = {
        "positions": jnp.array([[0, 1, 2]]),
        "text_position": jnp.array([[0, 4, 4]]),
        "span": jnp.array([[0, 1, 2]]),
    }
    ids = np.array([3, 1, 1])
    found = embed(p, jnp.asarray(ids)[None], Ctx(rows=rows), D, jnp.float32)
    token, place, span = (np.asarray(w) for w in (p["token"], p["position"]["w"], p["span"]["w"]))
    np.testing.assert_allclose(found[0], 2 * token[ids] + place[[0, 4, 4]] + span[[0, 1, 2]], atol=1e-6)
