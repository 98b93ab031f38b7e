"""Experts spread over eight devices compute what they compute on one, gradients too, whatever the dispatch."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lm.core.ctx import Ctx
from lm.core.errors import UserError
from lm.core.mesh import Sharding, make_mesh
from lm.core.rules import RULES, with_own
from lm.model.mlp import MLP, GatedMLP
from lm.model.moe.balanced import BalancedAssignment
from lm.model.moe.dispatch import Capacity, Dropless, RouterSlots
from lm.model.moe.expert_choice import ExpertChoice, SoftMixture
from lm.model.moe.hash import Hash
from lm.model.moe.layer import MoE
from lm.model.moe.sparse_mixer import SparseMixer
from lm.model.moe.top_k import Groups, TopK
from tests import toys
from tests.toys import D

LENGTH = 6


def layer(dispatch, experts=8, k=2, expert=GatedMLP(4, init=toys.WIDE, out_init=toys.WIDE)) -> MoE:
    return MoE(experts, expert, TopK(k=k, init=toys.WIDE), dispatch)


def inputs(moe: MoE, rows: int, alike: bool = False) -> tuple:
    """Parameters, x, segments with padding; `alike`: tokens that all choose the same experts, whose device then takes
    them in several rounds."""
    x = jax.random.normal(jax.random.key(0), (rows, LENGTH, D))
    x = x[:1, :1] + 1e-3 * x if alike else x
    return toys.values(moe.spec(D)), x, (np.arange(LENGTH) < 3 + np.arange(rows)[:, None] % 4).astype(np.int32)


def value_and_grads(moe: MoE, sharding: Sharding | None, p, x, segments):
    """Outputs, choices dropped, and gradients of parameters and inputs."""

    def loss(p, x):
        aux: dict = {}
        y, _ = moe(p, x, Ctx(rows={"segments": segments}, sharding=sharding), None, aux)
        return jnp.square(y).sum(), (y, aux["router"].dropped)

    if sharding is not None:
        p = jax.device_put(p, sharding.tree(moe.spec(D)))
    return jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))(p, x)


BIASED = MLP(4, init=toys.WIDE, out_init=toys.WIDE)
ONE_AXIS = with_own((("batch", "data"),))  # rows are not cut along the experts' axis
TWO_AXES = with_own((("expert", ("expert", "tensor")),))


@pytest.mark.parametrize(
    ("moe", "sizes", "rules", "rows", "alike"),
    [
        (layer(Capacity(1.0)), {"data": 2, "expert": 4}, RULES, 8, False),
        (
            layer(Capacity(group=3, slots=1), experts=6, expert=BIASED),
            {"fsdp": 2, "expert": 2, "tensor": 2},
            RULES,
            4,
            False,
        ),
        (layer(Dropless(), experts=6, expert=BIASED), {"fsdp": 2, "expert": 2, "tensor": 2}, RULES, 4, False),
        (layer(Dropless(), k=1), {"data": 2, "expert": 4}, RULES, 8, True),
        (layer(Dropless()), {"expert": 8}, RULES, 3, False),
        (layer(Capacity(1.0)), {"data": 2, "expert": 2, "context": 2}, ONE_AXIS, 4, False),
        (layer(Capacity(1.0)), {"data": 2, "expert": 2, "tensor": 2}, TWO_AXES, 8, False),
    ],
    ids=lambda v: "-".join(f"{a}{n}" for a, n in v.items()) if isinstance(v, dict) else None,
)
def test_a_mesh_computes_what_one_device_does(moe, sizes, rules, rows, alike):
    sharding = Sharding(make_mesh(sizes), rules)
    given = inputs(moe, rows, alike)
    expected = value_and_grads(moe, None, *given)
    toys.close(value_and_grads(moe, sharding, *given), expected)
    (_, (_, dropped)), grads = expected
    assert (dropped.sum() > 0) == isinstance(moe.dispatch, Capacity)
    assert all(np.abs(g).max() > 0 for g in jax.tree.leaves(grads))


ROUTED = [
    (TopK(k=2, normalize=1.0, later="random", jitter=0.1, init=toys.WIDE), Capacity(1.0, group=3)),
    (toys.balanced(k=2, groups=Groups(4, 2, 2), init=toys.WIDE), Dropless()),
    (SparseMixer(0.5, init=toys.WIDE), Dropless()),
    (Hash(k=2, domains=2), Capacity(1.0)),
    (BalancedAssignment(init=toys.WIDE), Capacity(1.0)),
    (ExpertChoice(2.0, group=3, init=toys.WIDE), RouterSlots()),
    (SoftMixture(init=toys.WIDE), RouterSlots()),
]


@pytest.mark.parametrize(("router", "dispatch"), ROUTED, ids=lambda v: type(v).__name__)
def test_training_routes_alike_on_any_mesh_and_in_any_part_of_a_batch(router, dispatch):
    """Random draws included: outputs and statistics of eight rows, on eight devices, on one, and by halves."""
    moe = MoE(8, GatedMLP(4, init=toys.WIDE, out_init=toys.WIDE), router, dispatch)
    p, x, segments = inputs(moe, 8)
    tokens = np.random.default_rng(0).integers(0, 50, segments.shape)
    rows = {"segments": segments, "tokens": tokens, "row": np.arange(8), "source": np.arange(8) % 2}

    def call(p, x, rows, sharding=None):
        aux: dict = {}
        return moe(p, x, Ctx(key=jax.random.key(1), rows=rows, sharding=sharding), None, aux)[0], aux["router"]

    expected = jax.jit(call)(p, x, rows)
    sharding = Sharding(make_mesh({"data": 2, "expert": 4}))
    spread = jax.jit(functools.partial(call, sharding=sharding))
    toys.close(spread(jax.device_put(p, sharding.tree(moe.spec(D))), x, rows), expected)
    halves = [jax.jit(call)(p, *jax.tree.map(lambda v, part=part: v[part::2], (x, rows))) for part in (0, 1)]
    toys.close(jax.tree.map(lambda a, b: jnp.stack([a, b], 1).reshape(8, *a.shape[1:]), *halves), expected)


def test_experts_that_do_not_spread_evenly():
    moe = layer(Capacity(), experts=6)
    with pytest.raises(UserError, match=r"^6 experts do not spread evenly over 4 devices along mesh axes expert: take"):
        moe(*inputs(moe, 8)[:2], Ctx(sharding=Sharding(make_mesh({"data": 2, "expert": 4}))), None, {})
