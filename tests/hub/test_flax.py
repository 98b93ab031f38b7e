"""Our models as Flax modules: the same tree, the same numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx

from lm.core.errors import UserError
from lm.core.param import abstract, initialize
from lm.hub import as_linen, as_nnx
from lm.zoo.registry import FAMILIES, build
from tests import toy_towers, toys

ATTENTION = toys.attention(dropout=0.5)
MODELS = {
    "plain": toys.language_model([toys.block(ATTENTION)] * 3),
    "experts": toys.routed(),
    "encoder-decoder": toy_towers.encoder_decoder(),
}


def batch_of(model) -> dict:
    batch = {"tokens": toys.tokens(2)}
    return batch | ({"encoder/tokens": toys.tokens(2, 5, 1)} if hasattr(model, "encoder") else {})


def equal(ours, theirs, tolerance: float = 1e-5) -> None:
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance * float(np.abs(a).max()))


def mean_square(scores) -> jax.Array:
    return sum(jnp.square(s).mean() for s in jax.tree.leaves(scores))


@pytest.mark.parametrize(
    "name", ["plain", *(pytest.param(n, marks=pytest.mark.slow) for n in ("experts", "encoder-decoder"))]
)
def test_a_linen_module_has_our_tree_outputs_and_gradients(name):
    model = MODELS[name]
    module, batch, key = as_linen(model), batch_of(model), jax.random.key(3)
    params = initialize(model.spec(), key)
    equal(params, module.init(key, batch)["params"], 0.0)

    def ours(params):
        scores = model(params, batch)
        return mean_square(scores), scores

    def theirs(params):
        scores = module.apply({"params": params}, batch)
        return mean_square(scores), scores

    (_, scores), grads = jax.jit(jax.value_and_grad(ours, has_aux=True))(params)
    (_, linen_scores), linen_grads = jax.jit(jax.value_and_grad(theirs, has_aux=True))(params)
    equal(scores, linen_scores)
    equal(grads, linen_grads)


@pytest.mark.parametrize("name", ["experts", pytest.param("encoder-decoder", marks=pytest.mark.slow)])
def test_an_nnx_module_has_our_tree_outputs_and_gradients(name):
    model = MODELS[name]
    batch, key = batch_of(model), jax.random.key(3)
    module, params = as_nnx(model, key=key), initialize(model.spec(), key)
    pure = nnx.to_pure_dict(nnx.state(module))
    assert jax.tree.all(jax.tree.map(np.array_equal, pure, nnx.to_pure_dict(nnx.state(as_nnx(model, params)))))

    scores, grads = jax.jit(jax.value_and_grad(lambda params: mean_square(model(params, batch))))(params)
    nnx_scores, nnx_grads = nnx.jit(nnx.value_and_grad(lambda module: mean_square(module(batch))))(module)
    equal(scores, nnx_scores)
    found = dict(jax.tree_util.tree_leaves_with_path(nnx.to_pure_dict(nnx_grads)))
    wanted = dict(jax.tree_util.tree_leaves_with_path(grads))
    kinds = dict(jax.tree_util.tree_leaves_with_path(model.spec()))
    assert found.keys() == {path for path in wanted if kinds[path].kind != "buffer"}
    for path, grad in found.items():
        equal(wanted[path], grad)


def test_dropout_wants_a_key():
    module, batch = as_linen(MODELS["plain"]), batch_of(MODELS["plain"])
    variables = module.init(jax.random.key(0), batch)
    first, second = (module.apply(variables, batch, rngs={"dropout": jax.random.key(i)}) for i in range(2))
    assert toys.differ(first, module.apply(variables, batch))
    assert toys.differ(first, second)


def test_a_module_within_another():
    model = MODELS["plain"]

    class Pooled(linen.Module):
        @linen.compact
        def __call__(self, batch):
            return as_linen(model)(batch).mean(axis=1)

    batch = batch_of(model)
    pooled, variables = Pooled().init_with_output(jax.random.key(0), batch)
    (inner,) = variables["params"].values()
    equal(model(inner, batch).mean(axis=1), pooled)
    equal(pooled, Pooled().apply(variables, batch))


def test_half_precision():
    model = MODELS["plain"]
    params, batch = toys.values(model.spec()), batch_of(model)
    ours = model(params, batch, dtype=jnp.bfloat16)
    equal(ours, as_linen(model, jnp.bfloat16).apply({"params": params}, batch), 0.02)
    equal(ours, as_nnx(model, params, dtype=jnp.bfloat16)(batch), 1e-5)


def test_wrong_parameters_are_named():
    model = MODELS["plain"]
    params, batch = toys.values(model.spec()), batch_of(model)
    with pytest.raises(UserError, match=r"head/w has shape \(13, 7\), the model's is \(13, 8\)"):
        as_linen(model).apply({"params": params | {"head": {"w": params["head"]["w"][:, 1:]}}}, batch)
    with pytest.raises(UserError, match="params lack 'head/w'"):
        as_nnx(model, {"body": params["body"]})


SIZED = [name for name, family in FAMILIES.items() if family.sizes]


def of_shapes(family: str) -> tuple:
    """A model of the family's first size, and the shapes of a batch."""
    model = build({"family": family, "size": next(iter(FAMILIES[family].sizes))})
    tokens = jax.ShapeDtypeStruct((1, 16), jnp.int32)
    return model, {"tokens": tokens} | ({"encoder/tokens": tokens} if hasattr(model, "encoder") else {})


@pytest.mark.parametrize("family", SIZED)
def test_every_family_is_a_linen_module(family):
    """From shapes alone: the tree of the spec."""
    model, batch = of_shapes(family)
    made, params = jax.eval_shape(as_linen(model).init, jax.random.key(0), batch)["params"], abstract(model.spec())
    assert jax.tree.structure(made) == jax.tree.structure(params)
    assert jax.tree.leaves(made) == jax.tree.leaves(params)


@pytest.mark.slow
@pytest.mark.parametrize("family", SIZED)
def test_every_linen_module_has_outputs_of_our_shapes(family):
    model, batch = of_shapes(family)
    params = abstract(model.spec())
    scores = jax.eval_shape(as_linen(model).apply, {"params": params}, batch)
    assert scores == jax.eval_shape(model.__call__, params, batch)
