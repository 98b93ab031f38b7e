"""What the backward pass keeps: by policy and by name, at the same gradients."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lm.core.ctx import Ctx, Execution
from lm.core.errors import UserError
from lm.core.param import abstract, initialize
from lm.core.remat import NAMES, REMAT, check_names, rematerialised
from lm.core.walk import Unrolled
from lm.model.transformer import LanguageModel
from lm.objectives.causal import NextToken
from lm.train.footprint import saved_activations
from lm.zoo.llama import llama
from tests.train import tiny

LAYERS, D, HEADS, HIDDEN = 2, 16, 4, 40
ROW = tiny.ROWS * tiny.LENGTH * LAYERS * 4  # bytes of a float of each token in each layer
POLICIES = (("full", ()), ("dots", ()), ("names", ("queries", "keys", "hidden")), ("offload", ("layer_input",)))


def model() -> LanguageModel:
    return llama(layers=LAYERS, d_model=D, heads=HEADS, kv_heads=2, d_ff=HIDDEN, vocab=tiny.VOCAB)


def gradients(execution: Execution) -> list[np.ndarray]:
    params = initialize(model().spec(), jax.random.key(0))

    def loss(params: dict) -> jax.Array:
        return NextToken()(model(), params, tiny.batch(), Ctx(execution=execution)).total

    return tiny.leaves(jax.jit(jax.grad(loss))(params))


@pytest.mark.parametrize("walk", [Execution().walk, Unrolled()], ids=["scan", "unrolled"])
def test_gradients_are_the_same(walk):
    want = gradients(Execution(walk=walk))
    for policy, names in POLICIES:
        for got, right in zip(gradients(Execution(policy, walk, remat_names=names)), want, strict=True):
            np.testing.assert_allclose(got, right, rtol=1e-4, atol=1e-5, err_msg=policy)


def saved(remat: str, *names: str, dtype: Any = jnp.float32) -> int:
    """Bytes that a step keeps from its forward pass."""
    trainer, hyper = tiny.trainer(model())
    trainer = dataclasses.replace(trainer, execution=Execution(remat, remat_names=names), dtype=dtype)
    batch = {k: jax.ShapeDtypeStruct(v.shape, v.dtype) for k, v in tiny.batch().items()}
    return saved_activations(trainer, trainer.abstract(hyper), batch)


def test_what_is_kept():
    full = saved("full")
    assert full < saved("names", "sublayer") < saved("dots") < saved("none")
    assert saved("names", "hidden") - full == 2 * HIDDEN * ROW, "gate and up"
    assert saved("names", "queries", "heads") - full == 2 * D * ROW
    assert saved("names", "keys", "values") - full == D * ROW, "half as many heads, twice"
    assert saved("names", "sublayer") - full == D * ROW, (
        "attention's: nothing reads that of the last but the next layer"
    )
    assert full - saved("offload", "layer_input") == D * ROW, "the residual stream is all that full keeps"
    half = saved("dots", dtype=jnp.bfloat16) - saved("full", dtype=jnp.bfloat16)
    assert 2 * half == saved("dots") - full, "products in half precision, whose gradients are functions of their own"
    assert saved("offload", "layer_input", "hidden") == saved("offload", "layer_input")


def test_every_name_names_a_value():
    ctx = Ctx(rows={k: v for k, v in tiny.batch().items() if k != "targets"})
    trace = jax.make_jaxpr(lambda params: model()(params, {"tokens": tiny.batch()["tokens"]}, ctx))
    text = str(trace(abstract(model().spec())))
    assert {name for name in NAMES if f"name={name}" in text} == set(NAMES)


@pytest.mark.parametrize(
    ("remat", "names", "message"),
    [
        ("names", ("hiden",), r"^where: no value of a layer is called 'hiden'; did you mean 'hidden'\?$"),
        ("full", ("hidden",), r"^where=\('hidden',\) says what to keep, .* remat='full' does not ask: take names or"),
        ("names", (), r"^remat='names' keeps nothing but what where lists: add some of layer_input, "),
        ("offload", (), r"^remat='offload' keeps nothing but what where lists: add some of layer_input, "),
    ],
)
def test_names_that_do_not_go_with_a_policy(remat, names, message):
    with pytest.raises(UserError, match=message):
        check_names(remat, names, "where")


def test_a_policy_that_is_none():
    with pytest.raises(UserError, match=r"^remat='fll' is no policy; did you mean 'full'\?$"):
        rematerialised(lambda x: x, "fll")
    assert REMAT[0] == "none" and rematerialised(len, "none") is len
