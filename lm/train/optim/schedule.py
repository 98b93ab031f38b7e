"""Learning-rate schedules: the share of the peak rate at a step, which may be traced."""

import abc
import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from lm.core.component import component
from lm.core.ranges import CountOrNone, Share

Array = jax.Array


@dataclasses.dataclass(frozen=True)
class Schedule(abc.ABC):
    """A linear warm-up, and what each schedule does besides. One of your own is a component derived from this class,
    whose knobs have defaults."""

    warmup: CountOrNone = 100  # steps in which the learning rate rises to its peak

    def __call__(self, step: Any, steps: int) -> Array:
        """Share of the peak learning rate at `step`, counted from 0, of a run of so many `steps`."""
        t = jnp.asarray(step, jnp.float32)
        up = jnp.minimum(1.0, (t + 1) / max(self.warmup, 1))
        return up * self.share(t, steps)

    @abc.abstractmethod
    def share(self, t: Array, steps: int) -> Array | float:
        """Of the peak learning rate at step `t`, a float, the warm-up left aside."""


def _progress(t: Array, first: float, last: float) -> Array:
    return jnp.clip((t - first) / max(last - first, 1e-6), 0, 1)


@component
class Cosine(Schedule):
    """Falls along half a cosine (Loshchilov and Hutter 2016, arXiv 1608.03983)."""

    final_lr_ratio: Share = 0.1  # the last learning rate, as a share of the peak
    decay: CountOrNone = 0  # step at which it is reached, after which it stays (GPT-3); 0: the last one

    def share(self, t: Array, steps: int) -> Array:
        last = self.final_lr_ratio
        fallen = _progress(t, self.warmup, self.decay or steps)
        return last + (1 - last) * 0.5 * (1 + jnp.cos(jnp.pi * fallen))


@component
class Linear(Schedule):
    """Falls along a line (BERT, Devlin et al. 2019, arXiv 1810.04805)."""

    final_lr_ratio: Share = 0.1  # the last learning rate, as a share of the peak

    def share(self, t: Array, steps: int) -> Array:
        return 1 - (1 - self.final_lr_ratio) * _progress(t, self.warmup, steps)


@component
class InverseSqrt(Schedule):
    """sqrt(warmup / step), whatever the number of steps (Vaswani et al. 2017, arXiv 1706.03762)."""

    constant: CountOrNone = 0  # steps until the peak is left, then sqrt(constant / step) (T5, PaLM); 0: of the warm-up

    def share(self, t: Array, steps: int) -> Array:
        at = max(self.constant or self.warmup, 1)
        return jnp.sqrt(at / jnp.maximum(t + 1, at))


@component
class ConstantRate(Schedule):
    """The peak, once it is reached."""

    def share(self, t: Array, steps: int) -> float:
        return 1.0


@component
class WSD(Schedule):
    """Warm-up, stable, decay: constant, then 1 - sqrt over the last share of the steps (Haegele et al. 2024,
    arXiv 2405.18392)."""

    final_lr_ratio: Share = 0.1  # the last learning rate, as a share of the peak
    cooldown_fraction: Share = 0.2  # of the steps

    def share(self, t: Array, steps: int) -> Array:
        cooled = _progress(t, steps * (1 - self.cooldown_fraction), steps)
        return 1 - (1 - self.final_lr_ratio) * jnp.sqrt(cooled)
