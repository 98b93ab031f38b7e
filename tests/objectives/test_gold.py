"""Tokens that a model finds likely count more, and logits are tempered."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lm.core.ctx import Ctx
from lm.core.errors import UserError
from lm.objectives.causal import NextToken
from lm.objectives.gold import Gold
from lm.zoo.gpt2 import gpt2
from tests import toys

MODEL = gpt2(layers=1, d_model=8, heads=2, vocab=13, context=8)
BATCH = {"tokens": toys.tokens(2), "targets": toys.tokens(2)[:, ::-1], "weights": np.ones((2, 8), np.float32)}


def test_the_loss_and_its_gradient_by_hand():
    params, objective = toys.values(MODEL.spec()), NextToken(Gold(alpha=0.5, floor=0.2, temperature=0.5, chunk=3))

    def by_hand(p):
        logs = jax.nn.log_softmax(MODEL(p, {"tokens": BATCH["tokens"]}) / 0.5)
        nll = -jnp.take_along_axis(logs, BATCH["targets"][..., None], -1)[..., 0]
        own = jax.lax.stop_gradient(jnp.maximum(jnp.exp(-nll) ** 0.5, 0.2))
        return (own * nll).sum()

    loss = objective(MODEL, params, BATCH, Ctx())
    np.testing.assert_allclose(loss.total, by_hand(params), rtol=1e-5)
    assert loss.weight == 16 and loss.metrics["loss"].value > loss.total / loss.weight
    ours, theirs = jax.grad(lambda p: objective(MODEL, p, BATCH, Ctx()).total)(params), jax.grad(by_hand)(params)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("knobs", [{"alpha": -1.0}, {"floor": -0.1}, {"temperature": 0.0}])
def test_wrong_knobs(knobs):
    with pytest.raises(UserError, match=next(iter(knobs))):
        Gold(**knobs)
