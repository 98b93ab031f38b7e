"""Leaf types in whole models: quantised and low-rank adapted weights, and tensors that several parts share."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lm.core.ctx import Ctx
from lm.core.leaf import LoRA, Quantized, dot, quantize, take
from lm.core.param import count, flatten
from lm.model.transformer import EncoderDecoder
from tests import toy_towers, toys


def adapted(w: jax.Array, rng: np.random.Generator, rank: int = 2, b: float = 0.0) -> LoRA:
    noise = lambda *shape: jnp.asarray(rng.standard_normal(shape), jnp.float32)  # noqa: E731
    return LoRA(w, noise(*w.shape[:-1], rank), b * noise(*w.shape[:-2], rank, w.shape[-1]), scale=0.5)


def matrices(params, change):
    """`params` with every matrix that `dot` or `take` reads changed; tables of positions and biases stay."""

    def one(path, w):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        return change(w) if name.endswith(("/w", "token")) and "norm" not in name else w

    return jax.tree_util.tree_map_with_path(one, params)


def is_leaf(x):
    return isinstance(x, (LoRA, Quantized))


def plain(w):
    """The array that a leaf stands for."""
    if isinstance(w, LoRA):
        return w.w + w.scale * w.a @ w.b
    return w.q * w.scale if isinstance(w, Quantized) else w


MODELS = {
    "experts": toys.routed(),
    "relative": toys.relative_embeddings(),
    "recurrent": toys.recurrent(),
    "bias": toys.bucketed(),
    "latent": toys.latents(),
}


@pytest.mark.parametrize("name", MODELS)
def test_leaf_types_stand_for_their_arrays_everywhere(name):
    """Half of the matrices int8, the other half adapted over int8: equal to the plain arrays, close to the floats."""
    model, rng = MODELS[name], np.random.default_rng(0)
    params, batch = toys.values(model.spec()), {"tokens": toys.tokens(2)}
    axis = iter([-2, -1] * 100)

    def change(w):
        small = quantize(w, next(axis))
        return small if rng.random() < 0.5 else adapted(small, rng, b=0.1)

    changed = matrices(params, change)
    leaves = jax.tree.leaves(changed, is_leaf=is_leaf)
    assert {Quantized, LoRA} <= {type(leaf) for leaf in leaves}
    dense = jax.tree.map(lambda w: w if isinstance(w, jax.Array) else plain(plain_inside(w)), changed, is_leaf=is_leaf)
    expected, _, _ = toys.forward(model, dense, batch)
    toys.close(toys.forward(model, changed, batch)[0], expected, atol=1e-4)


def plain_inside(w):
    return LoRA(plain(w.w), w.a, w.b, w.scale) if isinstance(w, LoRA) else w


def test_int8_is_close_to_float():
    model = toys.bucketed()
    params, batch = toys.values(model.spec()), {"tokens": toys.tokens(2)}
    exact, _, _ = toys.forward(model, params, batch)
    rounded, _, _ = toys.forward(model, matrices(params, quantize), batch)
    error = np.abs(rounded - exact).mean() / np.abs(exact).mean()
    assert 0 < error < 0.05


def test_an_adapter_starts_as_the_base_and_alone_is_trained():
    model, rng = toys.bucketed(), np.random.default_rng(0)
    params, batch = toys.values(model.spec()), {"tokens": toys.tokens(2)}
    changed = matrices(params, lambda w: adapted(w, rng))

    def loss(params):
        x, _, _ = model.hidden(params, batch, Ctx())
        logits = model.logits(params, x, Ctx())
        return jnp.square(logits).mean(), logits

    (_, logits), grads = jax.jit(jax.value_and_grad(loss, has_aux=True))(changed)
    toys.close(logits, toys.forward(model, params, batch)[0])
    moved = [g for g in jax.tree.leaves(grads, is_leaf=is_leaf) if is_leaf(g)]
    assert len(moved) > 5
    assert all((np.asarray(g.w) == 0).all() for g in moved)
    assert all((np.asarray(g.a) == 0).all() for g in moved), "b is zero"
    assert all(np.abs(g.b).max() > 0 for g in moved)


@pytest.mark.parametrize("leaf", ["array", "int8 by column", "int8 by row", "adapted", "adapted int8"])
def test_dot_and_take_dispatch_on_the_leaf(leaf):
    rng = np.random.default_rng(3)
    w = jnp.asarray(rng.standard_normal((3, 6, 5)), jnp.float32)  # [experts, in, out]
    column = quantize(w)
    leaf = {
        "array": w,
        "int8 by column": column,
        "int8 by row": quantize(w, -1),
        "adapted": adapted(w, rng, b=1.0),
        "adapted int8": adapted(column, rng, b=1.0),
    }[leaf]
    dense = plain(plain_inside(leaf)) if is_leaf(leaf) else leaf
    x, y = rng.standard_normal((3, 2, 6)).astype(np.float32), rng.standard_normal((3, 2, 5)).astype(np.float32)
    toys.close(dot(x, leaf), x @ dense)
    toys.close(dot(y, leaf, transpose=True), y @ np.swapaxes(dense, 1, 2))
    assert dot(x.astype(jnp.bfloat16), leaf).dtype == jnp.bfloat16
    assert leaf.shape == w.shape

    table, ids = jax.tree.map(lambda a: a[0], leaf), jnp.array([[0, 5], [2, 2]])
    toys.close(take(table, ids), np.asarray(dense)[0][np.asarray(ids)])
    assert take(table, ids, jnp.bfloat16).dtype == jnp.bfloat16


# ---------------------------------------------------------------------------------------------------------------------
# Ties


def test_three_parts_read_one_table():
    model = toy_towers.encoder_decoder()
    spec = model.spec()
    tables = [path for path, p in flatten(spec) if toys.VOCAB in p.shape]
    assert tables == ["decoder/embed/token"]
    params = toys.values(spec)
    batch = {"tokens": toys.tokens(2), "encoder/tokens": toys.tokens(2, 5, 1)}

    @jax.jit
    def logits(encoder, decoder, head):
        """With a table of its own for each reader."""
        untied = EncoderDecoder(model.encoder, model.decoder, model.head)
        own = params | {"head": {"w": head}}
        own |= {name: own[name] | {"embed": {"token": t}} for name, t in (("encoder", encoder), ("decoder", decoder))}
        x, _, _ = untied.hidden(own, batch, Ctx())
        return untied.logits(own, x, Ctx())

    table = params["decoder"]["embed"]["token"]
    tied, _, _ = toys.forward(model, params, batch)
    toys.close(tied, logits(table, table, table))
    for other in ((2 * table, table, table), (table, 2 * table, table), (table, table, 2 * table)):
        assert toys.differ(tied, logits(*other))


def test_two_models_share_their_embeddings():
    group = toy_towers.two_models()
    spec = group.spec()
    assert "embed" not in spec["generator"]["body"]
    generator, discriminator = dict(group.parts).values()
    shared = count(discriminator.spec()["body"]["embed"])
    assert count(spec) == count(generator.spec()) + count(discriminator.spec()) - shared

    params, batch = toys.values(spec), {"tokens": toys.tokens(2)}

    def both(params):
        whole = group.resolve(params)
        results = []
        for name, model in group.parts:
            x, _, _ = model.hidden(whole[name], batch, Ctx().at(name))
            results.append(model.logits(whole[name], x, Ctx()))
        return results

    @jax.jit
    def run(params):
        results, pull = jax.vjp(both, params)
        zeros = [jnp.zeros_like(r) for r in results]
        return results, pull([results[0], zeros[1]])[0], pull([zeros[0], results[1]])[0]

    (guesses, scores), *grads = run(params)
    assert guesses.shape == (2, toys.LENGTH, toys.VOCAB)
    assert scores.shape == (2, toys.LENGTH, 1)
    for grad in grads:
        assert np.abs(grad["discriminator"]["body"]["embed"]["token"]).max() > 0
    assert (np.asarray(grads[0]["discriminator"]["head"]["out"]["w"]) == 0).all()
