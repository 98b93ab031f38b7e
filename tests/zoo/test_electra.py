"""A generator and a discriminator over the same tables."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lm.core.component import from_dict, to_dict
from lm.core.param import flatten
from lm.zoo.electra import electra, electra_pair
from tests import toys

SHAPE = {"layers": 2, "vocab": 13, "context": 8, "embed_width": 6}
LARGE = {**SHAPE, "d_model": 8, "heads": 2}
SMALL = {**SHAPE, "d_model": 4, "heads": 1, "pretraining": ("mlm",)}
PAIR = electra_pair(discriminator=LARGE, generator=SMALL)


def scores(params: dict, tokens: jax.Array) -> dict:
    whole = PAIR.resolve(params)
    return {name: model(whole[name], {"tokens": tokens}) for name, model in PAIR.parts}


def test_each_is_the_model_that_it_is_alone():
    params, tokens = toys.values(PAIR.spec()), toys.tokens(2)
    found = scores(params, tokens)
    for name, alone in (("generator", electra(**SMALL)), ("discriminator", electra(**LARGE))):
        own = PAIR.resolve(params)[name]
        assert jax.tree.structure(own) == jax.tree.structure(alone.spec())
        np.testing.assert_array_equal(found[name], alone(own, {"tokens": tokens}))
    assert {name: y.shape for name, y in found.items()} == {"generator": (2, 8, 13), "discriminator": (2, 8, 1)}


def test_they_share_tokens_and_positions_and_nothing_else():
    spec = dict(flatten(PAIR.spec()))
    assert [path for path, p in spec.items() if p.shape[0] in (13, 8) and p.shape[1:] == (6,)] == [
        "discriminator/body/embed/position/w",
        "discriminator/body/embed/token",
    ]
    for part in ("norm/w", "types/w", "project/w"):
        assert {f"{name}/body/embed/{part}" for name in ("generator", "discriminator")} <= spec.keys()


@pytest.mark.slow
def test_both_train_the_tables():
    params, tokens = toys.values(PAIR.spec()), toys.tokens(2)
    for name in ("generator", "discriminator"):
        gradient = jax.grad(lambda p, name=name: jnp.square(scores(p, tokens)[name]).sum())(params)
        for table in ("token", "position"):
            for leaf in jax.tree.leaves(gradient["discriminator"]["body"]["embed"][table]):
                assert np.abs(leaf).max() > 0


def test_json():
    assert from_dict(to_dict(PAIR)) == PAIR
