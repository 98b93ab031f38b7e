"""What stands in the place of weights in whole models: int8, low-rank updates, tensors that several parts share."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lm.adapt.lora import LoRA, LowRank
from lm.compress.int8 import Int8, Quantized, quantize
from lm.core.ctx import Ctx
from lm.core.errors import UserError
from lm.core.leaf import dense, dot, take
from lm.core.mesh import RULES
from lm.core.param import abstract, count, flatten, map_paths
from lm.core.transform import Transform, map_leaves
from lm.model.program import Program
from lm.model.transformer import EncoderDecoder
from tests import toy_towers, toys

EVERY = "."  # tables too
MODELS = {
    "experts": toys.routed(),
    "relative": toys.relative_embeddings(),
    "recurrent": toys.recurrent(),
    "bias": toys.bucketed(),
    "latent": toys.latents(),
    "blank": toys.in_any_order(),
}


def parameters(program: Program) -> dict:
    """As after training: no update is zero."""
    params = program.transform(toys.values(program.model.spec()), jax.random.key(1))
    return map_leaves(LowRank, lambda x: dataclasses.replace(x, lora_b=0.1 * jnp.ones_like(x.lora_b)), params)


@pytest.mark.parametrize("name", MODELS)
def test_a_program_computes_what_its_merged_parameters_do(name):
    """Half of the matrices int8, all of them adapted: of every layer, every expert, and of what heads share."""
    model, batch = MODELS[name], {"tokens": toys.tokens(2)}
    program = Program(model, (Int8(r"attention|token|up"), LoRA(2, 1.0, EVERY)))
    params = parameters(program)
    spec, leaves = program.spec(), jax.tree.leaves(params, is_leaf=lambda x: isinstance(x, LowRank))
    assert jax.tree.structure(params) == jax.tree.structure(spec)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), abstract(spec)) == jax.tree.map(
        lambda x: (x.shape, x.dtype), params
    )
    assert {type(x.base) for x in leaves if isinstance(x, LowRank)} == {Quantized, type(jnp.ones(1))}
    assert {axis for p in jax.tree.leaves(spec) for axis in p.axes} <= {None, *dict(RULES)}
    merged = program.merge(params)
    assert jax.tree.map(jnp.shape, merged) == jax.tree.map(lambda p: p.shape, model.spec())
    got, expected = toys.forward(model, params, batch)[0], toys.forward(model, merged, batch)[0]
    toys.close(got, expected, atol=1e-4)
    assert toys.differ(got, toys.forward(model, toys.values(model.spec()), batch)[0])


def test_int8_is_close_to_float():
    """No entry moves by more than half a scale, which is a 127th of its channel's largest; a quarter of the bytes."""
    model = toys.bucketed()
    program = Program(model, (Int8(EVERY),))
    params, batch = toys.values(model.spec()), {"tokens": toys.tokens(2)}
    small = program.transform(params, jax.random.key(0))
    assert count(program.spec()) == count(model.spec())
    checked = 0

    def check(exact, x):
        nonlocal checked
        if isinstance(x, Quantized):
            checked += 1
            assert (np.abs(x.dense() - exact) <= 0.5001 * x.scale).all()
            np.testing.assert_allclose(x.scale, np.abs(exact).max(x.axis, keepdims=True) / 127, rtol=1e-6)
            assert x.q.nbytes * 4 == exact.nbytes and x.scale.size * exact.shape[x.axis] == exact.size

    jax.tree.map(check, params, small)
    assert checked > 5
    exact, rounded = (toys.forward(model, p, batch)[0] for p in (params, small))
    error = np.abs(rounded - exact).mean() / np.abs(exact).mean()
    assert 0 < error < 0.05


def test_an_adapter_starts_as_the_base_and_alone_is_trained():
    model = toys.bucketed()
    program = Program(model, (LoRA(2),))
    params, batch = toys.values(model.spec()), {"tokens": toys.tokens(2)}
    changed = program.transform(params, jax.random.key(0))

    def loss(params):
        x, _, _ = model.hidden(params, batch, Ctx())
        logits = model.logits(params, x, Ctx())
        return jnp.square(logits).mean(), logits

    (_, logits), grads = jax.jit(jax.value_and_grad(loss, has_aux=True))(changed)
    toys.close(logits, toys.forward(model, params, batch)[0])
    moved = [g for g in jax.tree.leaves(grads, is_leaf=lambda x: isinstance(x, LowRank)) if isinstance(g, LowRank)]
    assert len(moved) > 5
    assert all((np.asarray(g.base) == 0).all() for g in moved)
    assert all((np.asarray(g.lora_a) == 0).all() for g in moved), "b is zero"
    assert all(np.abs(g.lora_b).max() > 0 for g in moved)
    trains = map_paths(program.trainable, program.spec())
    assert {path.rpartition("/")[2] for path, t in flatten(trains) if t} == {"lora_a", "lora_b"}


@pytest.mark.parametrize("leaf", ["array", "int8 by column", "int8 by row", "adapted", "adapted int8"])
def test_dot_and_take_dispatch_on_the_leaf(leaf):
    rng = np.random.default_rng(3)
    noise = lambda *shape: jnp.asarray(rng.standard_normal(shape), jnp.float32)  # noqa: E731
    w = noise(3, 6, 5)  # [experts, in, out]
    a, b = noise(3, 6, 2), noise(3, 2, 5)
    leaf = {
        "array": w,
        "int8 by column": quantize(w),
        "int8 by row": quantize(w, -1),
        "adapted": LowRank(w, a, b, 0.5),
        "adapted int8": LowRank(quantize(w), a, b, 0.5),
    }[leaf]
    whole = np.asarray(dense(leaf))
    base = leaf.base if isinstance(leaf, LowRank) else leaf
    plain = base.q * base.scale if isinstance(base, Quantized) else base
    toys.close(whole, plain + 0.5 * a @ b if isinstance(leaf, LowRank) else plain)
    x, y = rng.standard_normal((3, 2, 6)).astype(np.float32), rng.standard_normal((3, 2, 5)).astype(np.float32)
    toys.close(dot(x, leaf), x @ whole)
    toys.close(dot(y, leaf, transpose=True), y @ np.swapaxes(whole, 1, 2))
    assert dot(x.astype(jnp.bfloat16), leaf).dtype == jnp.bfloat16
    assert leaf.shape == w.shape

    table, ids = jax.tree.map(lambda a: a[0], leaf), jnp.array([[0, 5], [2, 2]])
    toys.close(take(table, ids), whole[0][np.asarray(ids)])
    assert take(table, ids, jnp.bfloat16).dtype == jnp.bfloat16


def test_every_knob_of_a_transform_matters():
    model = toys.bucketed()
    made = [
        parameters(Program(model, transforms))
        for transforms in (
            (LoRA(2),),
            (LoRA(3),),
            (LoRA(2, 1.0),),
            (LoRA(2, target="/q/"),),
            (Int8(),),
            (Int8("/q/"),),
            (Int8(), LoRA(2)),
        )
    ]
    seen = [[(path, np.asarray(x).tobytes()) for path, x in flatten(p)] + [str(jax.tree.structure(p))] for p in made]
    assert all(a != b for i, a in enumerate(seen) for b in seen[:i])
    assert all(isinstance(t, Transform) for t in (LoRA(), Int8()))


@pytest.mark.parametrize(
    ("transforms", "message"),
    [
        ((LoRA(target="keel"),), r"^LoRA\.target='keel' is found in no matrix's path; they are body/\S+, "),
        ((LoRA(target="("),), r"^LoRA\.target='\(' is not a pattern: "),
        ((LoRA(), Int8()), r"^Int8\.target=None is found in no matrix's path; they are body/embed/token"),
        ((Int8(EVERY), Int8(EVERY)), r"^Int8\.target='\.' is found in no matrix's path; there are none left for it"),
    ],
)
def test_a_transform_that_would_change_nothing_is_refused(transforms, message):
    with pytest.raises(UserError, match=message):
        Program(toys.bucketed(), transforms).spec()


@pytest.mark.parametrize("knobs", [{"rank": 0}, {"alpha": 0.0}, {"alpha": float("inf")}])
def test_ranks_and_scales_that_are_none(knobs):
    with pytest.raises(UserError, match="give a rank of 1 or more, alpha above 0"):
        LoRA(**knobs)


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
