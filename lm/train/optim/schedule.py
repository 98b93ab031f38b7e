"""Learning-rate schedules: the share of the peak rate at a step, which may be traced."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

Array = jax.Array


class Span(NamedTuple):
    """What a schedule runs over: the run's steps, those of the warm-up, where to end, how much of it cools down."""

    steps: int
    warmup: int
    final: float  # the last learning rate, as a share of the peak
    cooldown: float  # share of the steps


def _progress(t: Array, first: float, last: float) -> Array:
    return jnp.clip((t - first) / max(last - first, 1e-6), 0, 1)


def cosine(t: Array, s: Span) -> Array:
    """To `final` along half a cosine (Loshchilov and Hutter 2016, arXiv 1608.03983)."""
    return s.final + (1 - s.final) * 0.5 * (1 + jnp.cos(jnp.pi * _progress(t, s.warmup, s.steps)))


def linear(t: Array, s: Span) -> Array:
    """To `final` along a line (BERT, Devlin et al. 2019, arXiv 1810.04805)."""
    return 1 - (1 - s.final) * _progress(t, s.warmup, s.steps)


def inverse_sqrt(t: Array, s: Span) -> Array:
    """sqrt(warmup / step), whatever `final` and the number of steps (Vaswani et al. 2017, arXiv 1706.03762; T5)."""
    at = max(s.warmup, 1)
    return jnp.sqrt(at / jnp.maximum(t + 1, at))


def constant(t: Array, s: Span) -> float:
    return 1.0


def wsd(t: Array, s: Span) -> Array:
    """Constant, then 1 - sqrt to `final` over the last `cooldown` share of the steps (Haegele et al. 2024,
    arXiv 2405.18392)."""
    return 1 - (1 - s.final) * jnp.sqrt(_progress(t, s.steps * (1 - s.cooldown), s.steps))


SCHEDULES: dict[str, Callable[[Array, Span], Array | float]] = {  # (step, as a float, span) -> share
    "cosine": cosine,
    "linear": linear,
    "inverse_sqrt": inverse_sqrt,
    "constant": constant,
    "wsd": wsd,
}


def multiplier(name: str, step: Any, span: Span) -> Array:
    """Share of the peak learning rate at `step` (counted from 0): a linear warm-up, then the schedule of that name."""
    t = jnp.asarray(step, jnp.float32)
    up = jnp.minimum(1.0, (t + 1) / max(span.warmup, 1))
    return up * SCHEDULES[name](t, span)
