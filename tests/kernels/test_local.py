"""Kernels that XLA does not cut: each device has rows and heads of its own, and the result is that of one device."""

import jax
import jax.numpy as jnp
import pytest

from lm.core.mesh import Sharding, make_mesh
from lm.core.rules import PRESETS, RULES, with_own
from lm.kernels.attention import local
from lm.kernels.attention.reference import reference
from lm.kernels.attention.spec import AttentionSpec
from lm.kernels.place import Place
from lm.model.masks import Causal
from tests.kernels.attentions import CPU, agrees, asked, texts

SPEC = AttentionSpec(Causal(), 0.5, aligned=True, sinks=True)


def place(rules=RULES, **axes: int) -> Place:
    return Place("cpu", True, Sharding(make_mesh(axes), rules))


def each(q, k, v, spec, q_tokens, k_tokens, *, place, sinks):
    """As a kernel of its own does it; what stays on a device can tell how much that is."""

    def attend(q, k, v, q_tokens, k_tokens, sinks):
        shapes.append((*q.shape[:2], k.shape[1]))
        return reference(q, k, v, spec, q_tokens, k_tokens, place=CPU, sinks=sinks)

    return local.on_each_device(attend, q, k, v, q_tokens, k_tokens, sinks, place)


shapes: list[tuple[int, int, int]] = []  # rows, heads, heads of keys


@pytest.mark.parametrize(
    ("axes", "heads", "here"),
    [
        ({"fsdp": 4, "data": 1, "tensor": 2}, (8, 4), (1, 4, 2)),
        ({"data": 1, "tensor": 8}, (8, 2), (4, 1, 1)),  # fewer heads of keys than devices
        ({"data": 2, "tensor": 4}, (12, 6), (2, 3, 3)),  # each has a head of its own: 12 is the next that both divide
    ],
)
def test_rows_and_heads_are_shared_out(axes, heads, here):
    shapes.clear()
    tokens = texts(9, [4], padding=2)
    agrees(each, asked(SPEC, tokens, tokens, heads, rows=4), 2e-6, place=place(**axes))
    assert set(shapes) == {here}


@pytest.mark.parametrize(
    ("where", "says"),
    [
        (CPU, None),
        (place(data=4, tensor=2), None),
        (Place("cpu", True), "XLA cannot cut it over devices"),
        (place(data=4, context=2), "sequences are cut over devices"),
        (place(data=8), "4 rows do not spread over 8 devices"),
        (place(data=1, tensor=8), "6 heads do not spread over 8 devices"),
        (place(with_own((("heads", None),)), data=4, tensor=2), None),
        (place(PRESETS["sequence"], data=4, tensor=2), None),  # where heads are cut, sequences are not
    ],
)
def test_what_does_not_spread_is_said(where, says):
    q, k = jnp.zeros((4, 6, 16, 8)), jnp.zeros((4, 2, 16, 8))
    assert local.supports(q, k, where) == says


def test_within_a_stage_of_a_pipeline():
    """Whose axis is taken: what is left is shared out there."""
    where = place(stage=2, data=2, tensor=2)
    tokens = texts(9, [4])
    a = asked(SPEC, tokens, tokens, (4, 2), rows=2)

    def staged(*arrays, place, sinks):
        everywhere = jax.sharding.PartitionSpec()
        return jax.shard_map(
            lambda q, k, v, *rest: each(q, k, v, SPEC, *rest[:2], place=place, sinks=rest[2]),
            mesh=place.sharding.mesh,
            in_specs=everywhere,
            out_specs=everywhere,
            axis_names={"stage"},
            check_vma=False,
        )(*arrays[:3], *arrays[4:], sinks)

    agrees(staged, a, 2e-6, place=where)
