"""What each optimizer does to a stack of layers is what it does to each layer alone."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lm.core.component import known
from lm.core.errors import UserError
from lm.core.param import Param, abstract, flatten, initialize
from lm.train.optim.adafactor import Adafactor
from lm.train.optim.adamw import AdamW
from lm.train.optim.ademamix import AdEMAMix
from lm.train.optim.bound import BoundOptimizer, by_pattern
from lm.train.optim.lamb import LAMB
from lm.train.optim.lion import Lion
from lm.train.optim.muon import Muon
from lm.train.optim.optimizer import Optimizer
from lm.train.optim.schedule import ConstantRate
from lm.train.optim.sgd import SGD
from lm.zoo.registry import FAMILIES, build
from tests import toys
from tests.train import tiny

STEPS = 2
KINDS = {cls.__name__: cls for cls in known() if issubclass(cls, Optimizer) and cls.__module__.startswith("lm.")}


def bound(optimizer: Optimizer, spec: dict) -> BoundOptimizer:
    return BoundOptimizer.of(optimizer, spec, ConstantRate(warmup=0), STEPS)


def spec_of(d: int, m: int) -> dict:
    """Stacks of layers, of layers of experts, of vectors; a matrix alone, and a table, which is none between features.

    Layers and experts are as many, so that only the names of axes can tell [layers, d] from [in, out]."""
    return {
        "wide": Param((2, d, m), ("layers", "embed", "mlp")),
        "tall": Param((2, m, d), ("layers", "mlp", "embed")),
        "experts": Param((2, 2, d, m), ("layers", "expert", "embed", "mlp")),
        "norm": Param((2, d), ("layers", "embed"), kind="norm"),
        "alone": Param((d, m), ("embed", "mlp")),
        "token": Param((m, d), ("vocab", "embed")),
    }


def plain(o: Optimizer, p: Param) -> optax.GradientTransformation:
    """What optax does to one tensor of one layer."""
    match o:
        case AdamW() | LAMB():
            return optax.scale_by_adam(b1=o.b1, b2=o.b2, eps=o.eps)
        case AdEMAMix():
            return optax.contrib.scale_by_ademamix(o.b1, o.b2, o.b3, o.alpha, o.eps)
        case Lion():
            return optax.scale_by_lion(b1=o.b1, b2=o.b2)
        case SGD():
            return optax.trace(decay=o.momentum)
        case Adafactor():
            return optax.chain(optax.scale_by_factored_rms(), optax.clip_by_block_rms(1.0))
        case Muon() if p.shape[p.batch_dims :] in ((8, 12), (12, 8)) and "vocab" not in p.axes:
            scale = max(1.0, p.shape[-1] / p.shape[-2]) ** 0.5
            return optax.chain(optax.contrib.scale_by_muon(beta=o.beta), optax.scale(scale))
        case Muon():
            return optax.scale_by_adam(b1=o.b1, b2=o.b2, eps=o.eps)
    raise AssertionError(f"say here what {o} does to one tensor")


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_a_stack_of_layers_equals_separate_layers(kind):
    spec = spec_of(128, 130) if kind is Adafactor else spec_of(8, 12)  # optax factors sizes from 128 on
    rule = kind(clip=0.0, weight_decay=0.5, decay_rules=(("norm|token", 0.0), (".*", 1.0)))
    optimizer, hyper = bound(rule, spec), rule.hyper
    rng = np.random.default_rng(0)
    first, *grads = (
        jax.tree.map(lambda p: rng.normal(size=p.shape).astype(np.float32), spec) for _ in range(1 + STEPS)
    )

    @jax.jit
    def together(params, grads):
        state = optimizer.init(params, hyper)
        for step, g in enumerate(grads):
            params, state, _ = optimizer.update(g, state, params, hyper, jnp.int32(step))
        return params

    got = together(first, grads)
    for path, p in spec.items():
        one, decay = plain(rule, p), hyper["weight_decay"] * (path not in ("norm", "token"))

        @jax.jit
        def alone(w, *grads, one=one, decay=decay):
            state = one.init(w)
            for g in grads:
                u, state = one.update(g, state, w)
                u = u + decay * w
                if kind is LAMB:
                    u, _ = optax.scale_by_trust_ratio().update(u, optax.EmptyState(), w)
                w = w - hyper["learning_rate"] * u
            return w

        for at in itertools.product(*map(range, p.shape[: p.batch_dims])):
            want = alone(first[path][at], *(g[path][at] for g in grads))
            moved, right = got[path][at] - first[path][at], want - first[path][at]
            np.testing.assert_allclose(moved, right, rtol=2e-3, atol=2e-6, err_msg=f"{path} {at}")
            assert np.abs(right).max() > 1e-4


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_buffers_have_no_optimizer_state(kind):
    trainer, hyper = tiny.trainer(tiny.sparse(toys.balanced()), optimizer=kind())
    assert any(path.endswith("balance") for path, _ in flatten(trainer.model.spec()))
    state = jax.eval_shape(lambda: trainer.init(hyper))
    assert not [path for path, _ in flatten(state.opt) if "balance" in path]


def test_the_first_matching_rule_counts():
    spec = abstract(spec_of(4, 6))
    decay = by_pattern((("norm|/b$", 0.0), ("^t", 0.5), ("tall", 7.0), (".*", 1.0)), spec, "decay_rules")
    assert decay == {"wide": 1.0, "tall": 0.5, "experts": 1.0, "norm": 0.0, "alone": 1.0, "token": 0.5}


def test_rules_must_cover_every_parameter():
    spec = abstract(spec_of(4, 6))
    with pytest.raises(UserError, match=r"no rule of config\.optimizer\.lr_multipliers covers alone: add"):
        by_pattern((("norm|tall|token|wide|experts", 0.0),), spec, "lr_multipliers")
    for broken in ((("(", 1.0),), (("a", "b"),), (("a",),), (1,)):
        with pytest.raises(UserError, match=r"is no list of \(pattern, number\)"):
            by_pattern(broken, spec, "lr_multipliers")


@pytest.mark.parametrize("family", sorted(name for name, family in FAMILIES.items() if family.sizes))
def test_default_decay_follows_what_a_parameter_is(family):
    """Of every family: weights decay, gains and biases (of attention scores, too) do not, nor does a table of
    positions."""
    model = build({"family": family, "size": next(iter(FAMILIES[family].sizes))})
    optimizer = bound(AdamW(), model.spec())
    decay = dict(flatten(optimizer.decay))
    for path, p in flatten(optimizer.spec):
        assert decay[path] == (p.kind == "weight" and "embed/position" not in path), path


def test_decay_by_pattern_comes_before_the_kind():
    optimizer = bound(AdamW(decay_rules=(("norm", 0.5), ("attention", 0.0))), tiny.dense().spec())
    for path, p in flatten(optimizer.spec):
        share = dict(flatten(optimizer.decay))[path]
        assert share == (0.5 if "norm" in path else 0.0 if "attention" in path else p.kind == "weight"), path


def test_an_old_average_ramps_up():
    """By hand: half way its half-life has come half way, and it counts for half."""
    rule = AdEMAMix(b1=0.9, b2=0.0, b3=0.999, alpha=4.0, eps=1e-30, ramp=4)
    optimizer = bound(rule, {"w": Param((1,), ("embed",))})
    state, young, old = optimizer.init({"w": jnp.zeros(1)}, rule.hyper), 0.0, 0.0
    for step, g in enumerate((1.0, -2.0, 4.0, 3.0)):
        share = step / 4
        half_life = (1 - share) * np.log(0.5) / np.log(0.9) + share * np.log(0.5) / np.log(0.999)
        b3 = 0.5 ** (1 / half_life)
        young, old = 0.9 * young + 0.1 * g, b3 * old + (1 - b3) * g
        got, state = rule.direction(optimizer.spec).update({"w": jnp.array([g])}, state)
        want = (young / (1 - 0.9 ** (step + 1)) + 4.0 * share * old) / abs(g)
        np.testing.assert_allclose(got["w"], want, rtol=1e-4)


SHAPES = {"square": (160, 160), "wide": (130, 192), "tall": (192, 130), "small": (96, 96), "vector": (256,)}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_state_has_the_axes_along_which_it_varies(kind, shape):
    """A gradient that varies along one axis leaves a state that varies along the axis of that name, and no other."""
    names = ("heads", "embed")[: len(shape)]
    spec = {"a": {"w": Param((2, *shape), ("layers", *names))}, "w": Param(shape, names)}
    optimizer = bound(kind(), spec)
    hyper = optimizer.hyper
    state_spec = optimizer.state_spec(hyper)
    params = jax.tree.map(jnp.ones_like, initialize(spec, jax.random.key(0)))
    state = optimizer.init(params, hyper)
    assert jax.tree.map(lambda p: p.shape, state_spec) == jax.tree.map(lambda x: x.shape, state)
    for axis in names:

        def slope(x, p, axis=axis):  # of few values: nothing is lost where they are summed
            at = p.axes.index(axis)
            return jnp.broadcast_to(jnp.arange(x.shape[at]).reshape(-1, *[1] * (x.ndim - at - 1)) % 3 + 1.0, x.shape)

        grads = jax.tree.map(slope, params, spec)
        _, after = optimizer.rule.direction(spec).update(grads, state, params)
        varies = [(x, p) for x, p in zip(jax.tree.leaves(after), jax.tree.leaves(state_spec), strict=True) if x.ndim]
        for x, p in varies:
            for at, size in enumerate(x.shape):
                if size > 2 and p.axes[at] is not None:
                    assert bool((jnp.ptp(x, axis=at) > 1e-6).any()) == (p.axes[at] == axis), (p, axis)
        assert any(axis in p.axes for _, p in varies)


@pytest.mark.parametrize("kind", [AdamW, pytest.param(Muon, marks=pytest.mark.slow)])
def test_multipliers_scale_and_freeze(kind):
    """Frozen parameters stay to the bit and have no optimizer state, doubled ones move twice as far."""
    knobs = {"optimizer": kind(eps=1e-4), "clip": 0.0}
    rules = (("embed/token", 0.0), ("mlp/up", 2.0), (".*", 1.0))
    plain, hyper = tiny.trainer(tiny.dense(), **knobs)
    ruled, _ = tiny.trainer(tiny.dense(), **knobs, lr_multipliers=rules)
    batch = tiny.batch()
    first = ruled.init(hyper)
    assert any("token" in path for path, _ in flatten(plain.init(hyper).opt))
    assert not any("token" in path for path, _ in flatten(first.opt))
    ends = [dict(flatten(jax.jit(t.step)(t.init(hyper), batch)[0].params)) for t in (plain, ruled)]
    for path, start in flatten(first.params):
        one, other = (np.asarray(end[path] - start) for end in ends)
        if path.endswith("embed/token"):
            assert np.abs(one).max() > 1e-4 and not other.any()
        else:
            np.testing.assert_allclose(other, one * (2 if "mlp/up" in path else 1), rtol=1e-3, atol=1e-6, err_msg=path)


def test_runs_of_one_shape_can_be_vmapped():
    trainer, hyper = tiny.trainer(tiny.dense())
    hypers = [
        hyper | {"learning_rate": jnp.float32(rate), "weight_decay": jnp.float32(decay)}
        for rate, decay in ((1e-2, 0.1), (1e-3, 1.0))
    ]
    batch = tiny.batch()
    step, init = jax.jit(trainer.step), jax.jit(trainer.init)
    together = jax.jit(jax.vmap(trainer.step, in_axes=(0, None)))

    alone = [init(h) for h in hypers]
    states = jax.tree.map(lambda *x: jnp.stack(x), *alone)
    for _ in range(2):
        states, metrics = together(states, batch)
        alone, each = zip(*(step(s, batch) for s in alone), strict=True)
    for i, (state, m) in enumerate(zip(alone, each, strict=True)):
        np.testing.assert_allclose(metrics["objective"].total[i], m["objective"].total, rtol=1e-5)
        assert metrics["learning_rate"][i] == m["learning_rate"] == hypers[i]["learning_rate"]
        for path, leaf in flatten(state.params):
            np.testing.assert_allclose(dict(flatten(states.params))[path][i], leaf, atol=2e-5, err_msg=path)
    one, two = (dict(flatten(s.params)) for s in alone)
    changing = [path for path in one if not path.endswith("k/b")]  # which has no gradient
    assert all(np.abs(one[path] - two[path]).max() > 1e-4 for path in changing)
