"""What XLNet's order of factorisation, backwards text and memory mean, besides what the goldens compare."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lm.core.ctx import Ctx
from lm.core.rows import Tokens
from lm.model.masks import Permuted
from lm.zoo.xlnet import xlnet
from tests import toys

SHAPE = {"layers": 2, "d_model": 12, "heads": 3, "head_dim": 5, "d_ff": 14, "vocab": 23, "eps": 1e-2}
ORDER = np.array([0, 3, 1, 0, 2, 4])  # of six tokens, two of which are given


@pytest.fixture(scope="module")
def model():
    return xlnet(**SHAPE)


def test_permuted_shows_what_its_definition_says():
    places = np.concatenate([ORDER, ~ORDER[ORDER > 0]])  # the tokens, then a query for each that is not given
    tokens = Tokens(jnp.arange(len(places))[None], order=jnp.asarray(places)[None])
    seen = np.asarray(Permuted().allowed(tokens, tokens))[0]
    for i, asks in enumerate(places):
        for j, key in enumerate(places):
            before = key < ~asks if asks < 0 else key <= asks
            assert seen[i, j] == (key >= 0 and before)
    ahead = np.asarray(Permuted(causal=True).allowed(tokens, tokens))[0]
    np.testing.assert_array_equal(ahead, seen & np.tri(len(places), dtype=bool))
    whole = Tokens(tokens.positions)
    assert Permuted().allowed(whole, whole).all()


def test_a_query_learns_from_what_stands_before_it_in_the_order(model):
    """Of the tokens that come before in the order, wherever they stand, and from no other."""
    params, at = toys.values(model.spec()), np.flatnonzero(ORDER)
    places = np.concatenate([ORDER, ~ORDER[at]])[None]
    positions = np.concatenate([np.arange(6), at])[None]

    @jax.jit
    def asked(tokens):
        padded = jnp.pad(tokens, ((0, 0), (0, len(at))))
        return model(params, {"tokens": padded, "order": places, "positions": positions})[0, 6:]

    tokens = np.arange(6)[None]
    first = asked(tokens)
    for j in range(6):
        other = tokens.copy()
        other[0, j] = 20
        moved = np.abs(asked(other) - first).max(-1) > 1e-6
        np.testing.assert_array_equal(moved, ORDER[j] < ORDER[at])


def test_text_read_backwards_has_positions_that_run_down(model):
    """As bi_data has it, whose distances count the other way: the tokens around a token are what they are."""
    params, tokens = toys.values(model.spec()), toys.tokens(2, 7)
    down = jnp.broadcast_to(jnp.arange(7)[::-1], tokens.shape)
    backwards = toys.forward(model, params, {"tokens": tokens[:, ::-1], "positions": down})[0]
    toys.close(backwards[:, ::-1], toys.forward(model, params, {"tokens": tokens})[0])


@pytest.mark.parametrize(("reuse", "kept"), [(None, [4, 5, 6]), (5, [2, 3, 4]), (2, [0, 1]), (9, [4, 5, 6])])
def test_the_first_of_a_call_are_remembered(reuse, kept):
    model = xlnet(**SHAPE, memory=3, reuse=reuse)
    params, tokens = toys.values(model.spec()), toys.tokens(2, 7)
    batch = {"tokens": tokens, "positions": jnp.broadcast_to(jnp.arange(7), tokens.shape)}
    _, cache, _ = toys.forward(model, params, batch, cache=model.cache(toys.shape(2)))
    first = cache[0]["attention"]
    assert first.positions[0].tolist()[-len(kept) :] == kept
    assert first.segments[0].tolist() == [0] * (3 - len(kept)) + [1] * len(kept)
    inputs = model.body.embed(params["body"]["embed"], tokens, Ctx(), SHAPE["d_model"], jnp.float32)
    toys.close(first.x[:, -len(kept) :], inputs[:, kept[0] : kept[-1] + 1])
