"""What is frozen until a step does not move before it, and moves after it as if the run had begun there."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lm.core.errors import UserError
from lm.core.param import Param, flatten
from lm.train.optim.adamw import AdamW
from lm.train.optim.bound import BoundOptimizer
from lm.train.optim.muon import Muon
from lm.train.optim.schedule import ConstantRate

SPEC = {
    "encoder": Param((4, 6), ("embed", "mlp")),
    "stack": {"w": Param((3, 4, 6), ("layers", "embed", "mlp")), "g": Param((3, 4), ("layers", "embed"), kind="norm")},
    "head": Param((6, 4), ("mlp", "embed")),
}
STEPS = 5
RULES = (("encoder", 3), ("stack", (4, 2, 0)))


def trained(rule, grads, params, first=0):
    """Parameters after every step, from step `first` on."""
    optimizer, hyper = BoundOptimizer.of(rule, SPEC, ConstantRate(warmup=0), STEPS), rule.hyper
    update = jax.jit(optimizer.update)
    params = jax.device_put(params)
    state, seen = jax.jit(optimizer.init)(params, hyper), [params]
    shapes = [p.shape for _, p in flatten(optimizer.state_spec(hyper))]
    assert shapes == [x.shape for _, x in flatten(state)]
    for step in range(first, STEPS):
        params, state, figures = update(grads[step], state, params, hyper, jnp.int32(step))
        seen.append(params)
    assert update._cache_size() == 1, "released without another program"
    return seen, figures


@pytest.mark.parametrize("kind", [AdamW, Muon])
def test_each_part_begins_at_its_step(kind):
    rng = np.random.default_rng(0)
    params, *grads = (
        jax.tree.map(lambda p: rng.normal(size=p.shape).astype(np.float32), SPEC) for _ in range(1 + STEPS)
    )
    seen, _ = trained(kind(clip=0.0, weight_decay=0.5, frozen_until=RULES), grads, params)
    plain = kind(clip=0.0, weight_decay=0.5)
    late = {first: trained(plain, grads, params, first)[0] for first in (0, 2, 3, 4)}
    for path, first, layer in [("encoder", 3, ()), ("head", 0, ())] + [
        (f"stack/{name}", first, layer) for name in "wg" for layer, first in enumerate((4, 2, 0))
    ]:
        moved = [dict(flatten(p))[path][layer] for p in seen]
        wanted = [dict(flatten(p))[path][layer] for p in late[first]]
        assert all((x == moved[0]).all() for x in moved[: first + 1]), "frozen, decay included"
        np.testing.assert_allclose(np.stack(moved[first:]), np.stack(wanted), rtol=1e-5, atol=1e-6, err_msg=path)


def test_a_frozen_gradient_is_not_part_of_the_norm():
    ones = jax.tree.map(lambda p: np.ones(p.shape, np.float32), SPEC)
    _, figures = trained(AdamW(frozen_until=(("encoder|stack", 9),)), [ones] * STEPS, ones)
    assert figures["grad_norm"] == pytest.approx(24**0.5)


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ((("encoder", (1, 2)),), r"frozen_until: encoder is no stack of layers, and the rule has 2 steps"),
        ((("stack", (1, 2)),), r"stack/g is a stack of 3 layers, and the rule has 2 steps: give one step, or one"),
        ((("decoder", 3),), r"'decoder' is in no path of what trains; these are encoder, "),
        ((("encoder", 0.5),), r"'encoder' is frozen for 0.5 steps: give a whole number"),
        ((("encoder", -1),), r"'encoder' is frozen for -1 steps"),
        ((("(", 1),), r"\('\(', 1\) is no \(pattern, steps\)"),
    ],
)
def test_rules_that_fit_nothing(rules, message):
    with pytest.raises(UserError, match=message):
        BoundOptimizer.of(AdamW(frozen_until=rules), SPEC, ConstantRate(warmup=0), STEPS)
