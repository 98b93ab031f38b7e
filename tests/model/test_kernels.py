"""The table of attention kernels: each is the reference in what it says it supports, and choice is by execution."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lm.core.ctx import Ctx, Execution
from lm.core.errors import UserError
from lm.core.rows import Tokens
from lm.kernels.attention.reference import reference
from lm.kernels.attention.select import KERNELS, Kernel, select
from lm.kernels.attention.spec import AttentionSpec, Own
from lm.kernels.choice import on_tpu, say_once
from lm.kernels.place import Place
from lm.model.attention import Attention
from lm.model.masks import Bidirectional, Causal, Window
from lm.train.config import default
from lm.train.parallel import execution_of
from tests import toys

B, H, KV, S, WIDTH, VALUE = 2, 4, 2, 150, 3, 5  # more than one block of queries
EXTRA = 4
CPU = Place("cpu")
SPECS = {
    "causal": AttentionSpec(Causal(), 0.5, aligned=True),
    "window": AttentionSpec(Window(9, 4), 0.5, aligned=True),
    "window_with_all": AttentionSpec(
        Window(9, 4), 0.5, cap=2.0, bias="pairwise", sinks=True, aligned=True, extra=EXTRA
    ),
    "whole_bias": AttentionSpec(Causal(), 0.5, bias="whole", aligned=True),
    "own_keys": AttentionSpec(Causal(), 0.5, own=True, aligned=True),
    "probs": AttentionSpec(Causal(), 0.5, probs=True, aligned=True),
    "cached": AttentionSpec(Causal(), 0.5),
    "bidirectional": AttentionSpec(Bidirectional(), 0.5, aligned=True),
}
BEST = {"causal": "blocked", "window": "blocked", "window_with_all": "blocked_bias"}  # others: reference


def arrays(spec: AttentionSpec) -> tuple[tuple, tuple, dict]:
    """q, k, v; tokens of queries and keys, two texts and padding to a row; what else the kernel is given."""
    rng, t = np.random.default_rng(0), S + spec.extra
    draw = lambda *shape: jnp.asarray(rng.standard_normal(shape), jnp.float32)  # noqa: E731
    positions = jnp.asarray(np.r_[np.arange(90), np.arange(50), [0] * 10][None].repeat(B, 0))
    segments = jnp.asarray(np.r_[[1] * 90, [2] * 50, [0] * 10][None].repeat(B, 0))
    more = jnp.asarray([[1, 1, 2, 0]] * B)[:, : spec.extra]
    index = jnp.arange(t)[None].repeat(B, 0)
    q_tokens = Tokens(positions, segments, order=index[:, :S])
    k_positions = jnp.pad(positions, ((0, 0), (0, spec.extra)))
    k_tokens = Tokens(k_positions, jnp.concatenate([segments, more], axis=1), order=index)
    whole = draw(B, H, S, t)

    def bias(queries: Tokens, keys: Tokens) -> jax.Array:
        return whole[:, :, queries.order[0]][..., keys.order[0]]

    given = {"bias": bias if spec.bias else None, "sinks": draw(H) if spec.sinks else None}
    given["own"] = Own(draw(B, H, S), draw(B, H, S, VALUE)) if spec.own else None
    given["on_probs"] = (lambda p: p * 0.9) if spec.probs else None
    return (draw(B, H, S, WIDTH), draw(B, KV, t, WIDTH), draw(B, KV, t, VALUE)), (q_tokens, k_tokens), given


@pytest.mark.parametrize("name", SPECS)
def test_all_that_support_an_attention_agree(name):
    spec = SPECS[name]
    qkv, tokens, given = arrays(spec)
    target = jnp.asarray(np.random.default_rng(1).standard_normal((B, H, S, VALUE)), jnp.float32)
    able = [
        kernel
        for kernel, it in KERNELS.items()
        if not (it.home and it.home(CPU)) and it.supports(spec, *qkv, CPU) is None
    ]
    assert able[0] == BEST.get(name, "reference")
    assert select(spec, *qkv, CPU) is KERNELS[able[0]].attend

    def both(kernel: str) -> tuple:
        def loss(qkv: tuple) -> tuple:
            y = KERNELS[kernel].attend(*qkv, spec, *tokens, place=CPU, **given)
            return (y * target).sum(), y

        return jax.jit(jax.grad(loss, has_aux=True))(qkv)

    expected = both("reference")
    for kernel in able[:-1]:
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=3e-5), both(kernel), expected)


def test_a_config_names_a_kernel():
    config = default()
    assert execution_of(config, toys.windows()).attention is None
    config.train.attention = "reference"
    assert execution_of(config, toys.windows()).attention == "reference"


def test_execution_names_a_kernel():
    layer = Attention(2, 4, mask=Window(3))
    p, x = toys.values(layer.spec(toys.D)), jnp.ones((1, 6, toys.D))

    def run(layer: Attention, name: str | None) -> jax.Array:
        ctx = Ctx(rows={"positions": jnp.arange(6)[None]}, execution=Execution(attention=name))
        return layer(p, x, ctx, None, {})[0]

    toys.close(run(layer, "reference"), run(layer, None))
    with pytest.raises(UserError, match=r"^attention='blokked' is no kernel; did you mean 'blocked'\?$"):
        run(layer, "blokked")
    everywhere = dataclasses.replace(layer, mask=Bidirectional())
    with pytest.raises(
        UserError, match=r"^attention='blocked' cannot run .* \(Bidirectional hides no band of keys\): "
    ):
        run(everywhere, "blocked")


def test_a_kernel_that_is_missed_at_home_is_told_once(monkeypatch, caplog):
    say_once.cache_clear()
    refused = Kernel(reference, lambda spec, q, k, v, place: "it is tired", on_tpu)
    monkeypatch.setattr("lm.kernels.attention.select.KERNELS", {"tired": refused, "blocked": KERNELS["blocked"]})
    spec = SPECS["causal"]
    qkv, _, _ = arrays(spec)
    one = qkv[0][:, :, :1]
    for _ in range(2):
        select(spec, *qkv, CPU)
        select(spec, one, *qkv[1:], Place("tpu"))
        assert caplog.messages == []
    for _ in range(2):
        select(spec, *qkv, Place("tpu"))
    assert caplog.messages == ["attention: blocked runs in place of tired (it is tired)"]
    with pytest.raises(UserError, match=r"^attention='tired' cannot run a layer of .* here \(it is for TPUs\): "):
        select(spec, *qkv, CPU, "tired")
