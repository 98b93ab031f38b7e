"""Models on a mesh that cuts the tokens of rows compute what they do on one device; where the order of tokens in a row
does not matter to them, they have it in zig-zag."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lm.core.component import with_knobs
from lm.core.ctx import Ctx, Execution
from lm.core.mesh import Sharding, make_mesh
from lm.model.attention import Softmax
from lm.model.attention_bias import Alibi
from lm.model.masks import Window
from lm.model.moe.dispatch import Capacity, Dropless
from lm.model.moe.top_k import TopK
from lm.model.order import any_order, in_zigzag
from lm.model.rotary import DynamicScaling, Rotary
from lm.objectives.token_loss import TokenLoss
from lm.parallel.pipeline import Pipelined
from lm.train.config import default
from lm.train.parallel import execution_of
from lm.train.setup import assemble
from lm.zoo.llama import llama
from lm.zoo.registry import knobs
from lm.zoo.t5 import t5
from tests import toy_towers, toys

ROWS, LENGTH, VOCAB = 4, 32, 13


def rows_of(length: int, seed: int) -> dict[str, np.ndarray]:
    """Two texts to a row, and padding behind them."""
    rng, index = np.random.default_rng(seed), np.arange(length)
    first, end = rng.integers(1, length // 2, (ROWS, 1)), rng.integers(length // 2, length, (ROWS, 1))
    return {
        "tokens": rng.integers(0, VOCAB, (ROWS, length)).astype(np.int32),
        "positions": np.where(index < first, index, index - first).astype(np.int32),
        "segments": np.where(index < first, 1, 2 * (index < end)).astype(np.int32),
    }


def batch_of(encoder: int = 0) -> dict[str, np.ndarray]:
    batch = rows_of(LENGTH, 0)
    rng = np.random.default_rng(1)
    batch |= {"targets": rng.integers(0, VOCAB, (ROWS, LENGTH)).astype(np.int32)}
    batch |= {"weights": (batch["segments"] > 0).astype(np.float32)}
    return batch | ({f"encoder/{k}": v for k, v in rows_of(encoder, 2).items()} if encoder else {})


def loss_and_grads(model, params, batch, sharding=None, execution=Execution(), key=None):
    def loss(params):
        ctx = Ctx(sharding=sharding, execution=execution, key=key)
        result = TokenLoss()(model, params, batch, ctx, jnp.float32)
        return result.total, (result.weight, result.metrics)

    if sharding is not None:
        params = jax.device_put(params, sharding.tree(model.spec()))
    return jax.jit(jax.value_and_grad(loss, has_aux=True))(params)


@functools.cache
def model(kind: str):
    wide = {"vocab": VOCAB + 1, "layers": 2, "d_model": 16, "heads": 4}
    if kind == "encoder-decoder":
        return t5(**wide, d_ff=24, head_dim=4, buckets=8, max_distance=20)
    dense = llama(**wide, kv_heads=2, d_ff=24)
    if kind == "windows":
        return toys.language_model([toys.local, toys.everywhere])
    if kind == "experts":
        return toys.language_model([toys.block(toys.attention(), toys.experts(TopK(2), Dropless()))] * 2)
    return dense


@functools.cache
def alone(kind: str) -> tuple:
    batch = batch_of(24 if kind == "encoder-decoder" else 0)
    params = toys.values(model(kind).spec())
    return params, batch, loss_and_grads(model(kind), params, batch)


def mesh_of(**sizes: int) -> Sharding:
    return Sharding(make_mesh(sizes, jax.devices()[: math.prod(sizes.values())]))


@pytest.mark.parametrize(
    ("kind", "mesh", "execution"),
    [
        ("dense", {"data": 2, "context": 4}, Execution()),
        ("dense", {"fsdp": 2, "context": 2, "tensor": 2}, Execution(remat="full")),
        ("dense", {"stage": 2, "context": 2, "data": 2}, Execution(walk=Pipelined(2))),
        ("dense", {"data": 2, "context": 4}, Execution(context="ulysses")),
        ("windows", {"data": 2, "context": 4}, Execution()),
        ("experts", {"data": 2, "expert": 2, "context": 2}, Execution()),
        ("encoder-decoder", {"data": 2, "context": 4}, Execution()),
    ],
    ids=lambda v: v if isinstance(v, str) else "-".join(f"{a}{n}" for a, n in v.items()) if isinstance(v, dict) else "",
)
def test_a_mesh_computes_what_one_device_does(kind, mesh, execution):
    params, batch, ((total, metrics), grads) = alone(kind)
    (got, got_metrics), got_grads = loss_and_grads(model(kind), params, batch, mesh_of(**mesh), execution)
    np.testing.assert_allclose(got, total, rtol=2e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5), got_metrics, metrics)
    most = max(float(jnp.abs(g).max()) for g in jax.tree.leaves(grads))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5 * most, rtol=1e-4), got_grads, grads)


def test_dropout_is_that_of_one_device():
    dropping = with_knobs(model("dense"), lambda name, value: 0.25 if name == "dropout" else value)
    params, batch, _ = alone("dense")
    key = jax.random.key(0)
    want, _ = loss_and_grads(dropping, params, batch, key=key)
    got, _ = loss_and_grads(dropping, params, batch, mesh_of(context=4), key=key)
    np.testing.assert_allclose(got[0], want[0], rtol=2e-5)


# ---------------------------------------------------------------------------------------------------------------------
# Orders


def zigzagged(model, execution=Execution(), length=LENGTH, **ctx) -> bool:
    """Whether the model's tower has its rows in zig-zag order, on four devices."""
    ids = jnp.zeros((ROWS, length), jnp.int32)
    ctx = Ctx(sharding=mesh_of(context=4), execution=execution, **ctx)
    return in_zigzag(model.tower, ids, ctx, None)[1].zigzag


def with_attention(**changes):
    one = dataclasses.replace(toys.attention(), **changes)
    return toys.language_model([toys.block(one)] * 2)


def test_which_towers_read_rows_in_zigzag():
    assert zigzagged(model("dense")) and zigzagged(model("windows")) and zigzagged(model("experts"))
    assert zigzagged(with_attention(bias=(Alibi(),), softmax=Softmax(sinks=True)))
    assert zigzagged(model("encoder-decoder"))
    assert not zigzagged(with_attention(dropout=0.1)), "random bits belong to places"
    assert not zigzagged(with_attention(rotary=Rotary(scaling=DynamicScaling(2.0, 8)))), "which counts tokens"
    assert not zigzagged(with_attention(mask=Window(3))), "nothing to balance"
    capacity = toys.language_model([toys.block(toys.attention(), toys.experts(TopK(2), Capacity(1.0)))] * 2)
    assert not zigzagged(capacity), "earlier tokens are served first"
    assert not zigzagged(toys.recurrent()) and not zigzagged(toys.relative_embeddings())
    dense = model("dense")
    assert not zigzagged(dense, length=30) and not zigzagged(dense, record=frozenset({"probs"}))
    assert not zigzagged(dense, Execution(zigzag=False)) and not zigzagged(dense, Execution(context="ulysses"))


TOWERS = dict(toys.DECODERS) | {"encoder_decoder": toy_towers.encoder_decoder}
MIND = {  # the order of tokens in a row
    *("dense_first", "routed", "drawn", "recurrent", "banded", "relative_embeddings", "in_any_order", "query_layer"),
    *("routed_heads", "stretched", "bounded"),
}


@pytest.mark.parametrize("name", TOWERS)
def test_who_does_not_mind_the_order_of_tokens_computes_the_same_in_any(name):
    made = with_knobs(TOWERS[name](), lambda name, value: 0.0 if name == "dropout" else value)
    layers = [layer for group in made.tower.stack.segments for layer in getattr(group, "pattern", (group,))]
    free = all(map(any_order, (made.tower.embed, *layers)))
    assert free == (name not in MIND)
    if not free:
        return
    batch = {k: v for k, v in rows_of(8, 0).items()}
    text = {f"encoder/{k}": v for k, v in rows_of(6, 1).items()} if name == "encoder_decoder" else {}
    order = np.random.default_rng(2).permutation(8)
    params, execution = toys.values(made.spec()), Execution(attention="reference")  # others know bands of indices

    def states(batch):
        return made.hidden(params, batch | text, Ctx(execution=execution))[0]

    toys.close(jax.jit(states)({k: v[:, order] for k, v in batch.items()}), jax.jit(states)(batch)[:, order])


# ---------------------------------------------------------------------------------------------------------------------
# By a config


def test_a_config_chooses_how_tokens_attend():
    config = default()
    assert execution_of(config, model("dense")).context == "auto"
    config.parallel.update(context="ulysses", zigzag=False)
    execution = execution_of(config, model("dense"))
    assert (execution.context, execution.zigzag) == ("ulysses", False)


@pytest.mark.parametrize(("change", "sent"), [({}, "collective_permute"), ({"context": "gather"}, None)])
def test_a_step_of_a_run(change, sent):
    config = default()
    with config.unlocked():
        config.model = knobs("llama", layers=2, d_model=16, heads=4, kv_heads=2, d_ff=24, vocab=384)
    config.data.update(length=LENGTH, batch_size=ROWS)
    config.mesh.update(data=2, context=4)
    config.parallel.update(change)
    parts = assemble(config, devices=jax.devices())
    lowered = parts.trainer.jitted(parts.abstract_state).lower(parts.abstract_state, parts.abstract_batch)
    assert ("collective_permute" in lowered.as_text()) == (sent is not None)
