"""FLOPs counted from the jaxpr against counts by hand."""

import jax
import jax.numpy as jnp
import pytest

from lm.core.ctx import Ctx, Execution
from lm.core.param import abstract, count
from lm.core.walk import Unrolled
from lm.inspect.cost import flops, forward_flops, training_flops
from lm.model.moe.dispatch import Capacity, Dropless
from lm.zoo.gpt2 import gpt2
from lm.zoo.gpt3 import SIZES, gpt3
from tests import toy_towers, toys


def test_a_small_decoder_by_hand():
    layers, d, heads, f, vocab, s = 3, 8, 2, 20, 11, 6
    model = gpt2(layers=layers, d_model=d, heads=heads, d_ff=f, vocab=vocab, context=s)
    projections = 4 * d * d  # multiply-adds per token: q, k, v, o
    scores = 2 * s * d  # q k^T and weights times v
    per_token = layers * (projections + scores + 2 * d * f) + d * vocab
    assert forward_flops(model, s) == 2 * s * per_token
    assert training_flops(model, s) == 3 * forward_flops(model, s)


def test_an_encoder_decoder_by_hand():
    d, f, vocab, s, t = toys.D, 12, toys.VOCAB, 6, 5
    own, mlp = 4 * d * d, 2 * d * f
    encoder = 2 * t * (own + 2 * t * d + mlp)
    decoder = 2 * s * (own + 2 * s * d + mlp) + 2 * (s * (2 * d * d + 2 * t * d) + t * 2 * d * d)
    assert forward_flops(toy_towers.encoder_decoder(), s, t) == 2 * (encoder + decoder + s * d * vocab)


@pytest.mark.parametrize("name", ["windows", "dense_first", "shared_layers"])
def test_scanned_unrolled_and_rematerialised_forward_passes_cost_the_same(name):
    model = toys.DECODERS[name]()
    batch = {"tokens": jax.ShapeDtypeStruct((1, 8), jnp.int32)}

    def cost(run: Execution) -> int:
        return flops(lambda p, b: model.hidden(p, b, Ctx(execution=run))[0], abstract(model.spec()), batch)

    assert cost(Execution()) == cost(Execution(walk=Unrolled())) == cost(Execution("full")) > 0


@pytest.mark.parametrize("dispatch", [Capacity(1.0, group=4), Capacity(1.5, group=4), Dropless()])
def test_experts_cost_their_places(dispatch):
    """Three for two choices, with a capacity of 1.5; without one, as many as there are choices."""
    model = toys.dense_first(dispatch)
    d, s, f, layers = toys.D, 8, 6, 2
    places = 2 * s * 3 // 2 if dispatch == Capacity(1.5, group=4) else 2 * s
    per_layer = places * 3 * d * f + s * d * 4  # experts, router
    attention = s * (4 * d * d + 2 * s * d)
    dense = s * 3 * d * 12
    assert forward_flops(model, s) == 2 * (3 * attention + dense + layers * per_layer + s * d * toys.VOCAB)


def test_only_the_longest_branch_and_every_trip_count():
    w = jnp.ones((4, 4))

    def branches(x):
        return jax.lax.cond(x.sum() > 0, lambda x: x @ w @ w, lambda x: x @ w, x)

    def loop(x):
        return jax.lax.scan(lambda x, _: (jax.jit(branches)(x), None), x, length=5)[0]

    x = jax.ShapeDtypeStruct((3, 4), jnp.float32)
    assert flops(branches, x) == 2 * 2 * 3 * 4 * 4
    assert flops(loop, x) == 5 * flops(branches, x)
    image, kernel = jax.ShapeDtypeStruct((1, 3, 8, 8), jnp.float32), jax.ShapeDtypeStruct((5, 3, 2, 2), jnp.float32)
    convolve = lambda x, k: jax.lax.conv(x, k, (1, 1), "SAME")  # noqa: E731
    assert flops(convolve, image, kernel) == 2 * 5 * 8 * 8 * 3 * 2 * 2


def test_the_largest_published_decoder_is_counted_without_being_built():
    model = gpt3(**SIZES["175b"])
    per_token = forward_flops(model, 2048) / 2048
    positions = 2048 * 12288
    matrices = count(model.spec()) - positions
    attention = 96 * 2 * 2048 * 12288
    assert per_token == pytest.approx(2 * (matrices + attention), rel=1e-3)  # the rest: norms and biases


def test_modules_of_a_head_cost_what_they_multiply():
    """Each depth joins two states, has a layer, and scores anew."""
    d, s, vocab = toys.D, toys.LENGTH, toys.VOCAB
    model = toys.many_ahead()
    one = toys.language_model([toys.block(toys.attention(rotary=toys.rotary))])
    layer = forward_flops(one, s) - 2 * s * d * vocab
    assert forward_flops(model, s) == 4 * layer + 2 * s * (2 * 2 * d * d + 3 * d * vocab)
