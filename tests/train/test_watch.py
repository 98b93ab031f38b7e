"""What a step notices about itself, and what it then does."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lm.core.metrics import values
from lm.core.param import flatten
from lm.train.health import monitor
from lm.train.health.monitor import Recovery
from lm.train.optim.sgd import SGD
from tests.train import tiny


def judged(rule, losses, scaled=False):
    """Checks of a run with these losses, and the watch in the end."""
    step = jax.jit(lambda w, loss: monitor.check(rule, scaled, w, loss, jnp.abs(loss)))
    w, checks = monitor.first(), []
    for loss in losses:
        verdict, w = step(w, jnp.float32(loss))
        checks.append(bool(verdict.bad))
    return checks, w


@given(st.lists(st.floats(-10, 10, width=32), min_size=1, max_size=20))
def test_the_running_mean_is_the_mean_while_the_window_is_open(losses):
    _, w = judged(Recovery(window=50), losses)
    assert float(w.mean) == pytest.approx(np.mean(losses), abs=1e-4)
    assert float(w.variance) == pytest.approx(np.var(losses), abs=1e-3)


def test_a_spike_is_called_after_the_window_and_not_counted():
    calm = [2.0 + 0.1 * (-1) ** i for i in range(20)]
    rule = Recovery(spike=5.0, window=20)
    checks, w = judged(rule, [*calm, 2.4, 9.0, 9.0, 2.1])
    assert checks == [False] * 21 + [True, True, False]
    assert float(w.mean) < 2.2
    assert judged(rule, [9.0, *calm])[0] == [False] * 21, "too early to tell"
    assert judged(Recovery(window=20), [*calm, 9.0])[0] == [False] * 21, "only what is not finite, by default"


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_is_bad(loss):
    checks, w = judged(Recovery(), [1.0, loss, 1.0])
    assert checks == [False, True, False] and float(w.mean) == 1.0


def test_in_float16_an_overflow_halves_the_scale_and_calm_doubles_it(monkeypatch):
    monkeypatch.setattr(monitor, "GROW_AFTER", 3)
    checks, w = judged(Recovery(), [float("inf"), float("inf"), 1.0, 1.0, 1.0, 1.0], scaled=True)
    assert not any(checks)
    assert float(w.scale) == monitor.FIRST_SCALE / 2 and float(w.good) == 1
    checks, w = judged(Recovery(), [float("nan")] * 12, scaled=True)
    assert checks == [False] * 10 + [True] * 2, "no scale is small enough"


def test_noise_scale_of_known_gradients():
    """Gradients are g + e / sqrt(tokens), e of unit covariance in d dimensions: the noise scale is d / |g|^2."""
    rng = np.random.default_rng(0)
    d, parts, part = 400, 4, 16.0
    g = np.ones(d) * 0.1
    w, scale = monitor.first(), None
    for _ in range(300):
        each = g + rng.normal(size=(parts, d)) / np.sqrt(part)
        small, large = (each**2).sum(1).mean(), (each.mean(0) ** 2).sum()
        w, scale = monitor.noise(w, jnp.float32(small), jnp.float32(large), jnp.float32(part * parts), parts)
    assert float(scale) == pytest.approx(d / (g @ g), rel=0.2)


def broken(batch):
    return batch | {"weights": np.full_like(batch["weights"], np.nan)}


def test_skip_leaves_a_bad_step_out():
    trainer, hyper = tiny.trainer(tiny.dense(), ema=0.5)
    trainer = dataclasses.replace(trainer, recovery=Recovery(action="skip"))
    step = jax.jit(trainer.step)
    start = trainer.init(hyper)
    good, metrics = step(start, tiny.batch(0))
    assert not metrics["bad"]
    after, metrics = step(good, broken(tiny.batch(1)))
    assert metrics["bad"] and int(after.step) == 2
    for part in ("params", "opt", "ema", "monitor"):
        assert tiny.bits(getattr(after, part)) == tiny.bits(getattr(good, part)), part
    assert step._cache_size() == 1


def test_the_average_follows_the_parameters():
    trainer, hyper = tiny.trainer(tiny.dense(), ema=0.9)
    state, want = trainer.init(hyper), None
    step = jax.jit(trainer.step)
    for k in range(4):
        keep = min(0.9, (1 + k) / (10 + k))
        before = dict(flatten(state.ema))
        state, _ = step(state, tiny.batch(k))
        want = {path: keep * before[path] + (1 - keep) * p for path, p in flatten(state.params)}
    for path, leaf in flatten(state.ema):
        np.testing.assert_allclose(leaf, want[path], rtol=1e-5, atol=1e-7)


@pytest.mark.slow
def test_float16_trains_like_float32():
    ends = {}
    for dtype in ("float32", "float16"):
        trainer, hyper = tiny.trainer(tiny.dense(), dtype=dtype, learning_rate=1e-2)
        state, step = trainer.init(hyper), jax.jit(trainer.step)
        if dtype == "float16":  # so large that the first steps overflow
            state = dataclasses.replace(state, monitor=dataclasses.replace(state.monitor, scale=jnp.float32(2.0**24)))
        losses, skipped = [], 0
        for _ in range(40):
            before = state.params
            state, metrics = step(state, tiny.batch(0))
            skipped += tiny.bits(before) == tiny.bits(state.params)
            losses.append(values(metrics)["loss"])
            assert not metrics["bad"]
        ends[dtype] = losses[-1], skipped
    assert ends["float32"][1] == 0 and 0 < ends["float16"][1] < 20
    assert ends["float16"][0] < losses[0] - 1
    assert float(state.monitor.scale) < 2.0**24


@pytest.mark.slow
def test_a_warm_up_batch_steps_like_a_small_batch():
    """Two of four microbatches are empty: the step equals one of the two alone, in parameters and in metrics."""
    small = tiny.batch(0, rows=4)
    places = [0, 1, 4, 5]  # rows 0 and 1 of each turn of four
    padded = {k: np.zeros((8, *v.shape[1:]), v.dtype) for k, v in small.items()}
    for k, v in small.items():
        padded[k][places] = v
    ends = []
    for batch, parts, ragged in ((small, 2, False), (padded, 4, True), (padded, 4, False)):
        trainer, hyper = tiny.trainer(tiny.dense(), accumulate=parts, optimizer=SGD(), weight_decay=0.0)
        trainer = dataclasses.replace(trainer, batch_warmup=ragged, noise_scale=ragged)
        step = jax.jit(trainer.step)
        state, metrics = step(trainer.init(hyper), batch)
        ends.append((dict(flatten(state.params)), *map(float, metrics["objective"])))
        if ragged:
            _, metrics = step(state, tiny.batch(1))  # a full batch by the same program
            assert step._cache_size() == 1 and np.isfinite(metrics["noise_scale"])
    for other in ends[1:]:
        assert other[1:] == pytest.approx(ends[0][1:], rel=1e-6)
        for path, leaf in other[0].items():
            np.testing.assert_allclose(leaf, ends[0][0][path], rtol=1e-5, atol=1e-7, err_msg=path)


def test_embedding_gradients_shrink():
    """The table's gradient from the input, not that from the tied head."""
    ends = {}
    for share in (1.0, 0.25, 0.0):
        plain = SGD(momentum=0.0, weight_decay=0.0, clip=0.0, learning_rate=1.0, embed_gradient=share)
        trainer, hyper = tiny.trainer(tiny.dense(), optimizer=plain)
        start = trainer.init(hyper)
        end, metrics = jax.jit(trainer.step)(start, tiny.batch(0))
        table, up = (tiny.at_layer(end.params, name) for name in ("embed/token", "mlp/up/w"))
        ends[share] = table, up, metrics["objective"].total
    (one, mlp, loss), (quarter, mlp_too, loss_too), (none, _, _) = (ends[s] for s in (1.0, 0.25, 0.0))
    assert loss == loss_too
    np.testing.assert_allclose(mlp, mlp_too, atol=1e-6)
    np.testing.assert_allclose(quarter - none, 0.25 * (one - none), atol=1e-6)
    assert np.abs(one - none).max() > 1e-3
