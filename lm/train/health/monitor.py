"""What a step notices about itself: a loss that is not finite or spikes, an overflow in float16, gradient noise."""

import dataclasses
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from lm.core.errors import UserError
from lm.core.ranges import Count, CountOrNone, NotNegative

Array = jax.Array
# The loss is a sum over tokens, so its gradients are large to begin with.
FIRST_SCALE, GROW_AFTER, LARGEST_SCALE = 2.0**10, 1000, 2.0**24
NOISE_KEEP = 0.99  # of the running means behind the noise scale, which of single steps is wild


@dataclasses.dataclass(frozen=True)
class Recovery:
    """What is done about a step whose loss or gradient is not finite or, with `spike` > 0, whose loss stands more than
    `spike` standard deviations above its running mean.

    "stop" ends the run; "skip" leaves that step's update out; "rewind" goes back to the newest checkpoint at least
    `back` steps old, repeats the steps up to `back` before the bad one, and passes over `skip` batches there, as PaLM
    did (Chowdhery et al. 2022, arXiv 2204.02311, section 5.1: about 100 steps back, 200 to 500 batches). After `limit`
    such events the run ends."""

    action: Literal["stop", "skip", "rewind"] = "stop"  # or skip that step's update, or rewind and skip batches
    spike: NotNegative = 0.0  # standard deviations; 0: only what is not finite counts
    window: Count = 100  # steps that the running mean looks back; no spike is called before so many
    back: CountOrNone = 100  # rewind: steps before the bad one from which on batches are passed over
    skip: Count = 300  # rewind: batches passed over
    limit: Count = 10  # such events in a run

    def __post_init__(self) -> None:
        if self.action == "rewind" and self.skip <= self.back:
            raise UserError(
                f"config.train.recovery.skip={self.skip} does not reach the bad batch from back={self.back} steps "
                "before it: raise skip above back"
            )


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class LossMonitor:
    """float32 scalars."""

    mean: Array  # running mean of the loss per token
    variance: Array
    seen: Array  # steps in both
    scale: Array  # what a float16 loss is multiplied with
    good: Array  # steps since it changed
    noise: Array  # running mean of tr(covariance of the gradient), per token
    signal: Array  # running mean of |gradient|^2


class StepCheck(NamedTuple):
    bad: Array  # 1.0: the run is in trouble
    skipped: Array  # bool: the update should not be taken


def first() -> LossMonitor:
    # Each a buffer of its own: a step takes them over.
    start = {field.name: jnp.zeros(()) for field in dataclasses.fields(LossMonitor)}
    return LossMonitor(**start | {"scale": jnp.float32(FIRST_SCALE)})


def check(rule: Recovery, scaled: bool, w: LossMonitor, loss: Array, grad_norm: Array) -> tuple[StepCheck, LossMonitor]:
    """On a step with this loss per token and gradient norm. An overflow is no trouble while the scale can fall."""
    finite = jnp.isfinite(loss) & jnp.isfinite(grad_norm)
    overflow = ~finite & jnp.bool_(scaled) & (w.scale > 1)
    spike = jnp.bool_(False)
    if rule.spike:
        spike = (w.seen >= rule.window) & (loss > w.mean + rule.spike * jnp.sqrt(w.variance))
    bad = (~finite & ~overflow) | (finite & spike)
    # The last `window` steps count, a step at a time (Finch 2009, incremental weighted mean and variance).
    share = 1 / jnp.minimum(w.seen + 1, rule.window)
    away = jnp.where(finite, loss, 0.0) - w.mean
    taken = finite & ~bad
    good = jnp.where(overflow, 0, w.good + 1)
    grown = good >= GROW_AFTER
    scale = jnp.where(overflow, w.scale / 2, jnp.where(grown, jnp.minimum(w.scale * 2, LARGEST_SCALE), w.scale))
    watched = dataclasses.replace(
        w,
        mean=jnp.where(taken, w.mean + share * away, w.mean),
        variance=jnp.where(taken, (1 - share) * (w.variance + share * away**2), w.variance),
        seen=w.seen + taken,
        scale=scale if scaled else w.scale,
        good=jnp.where(grown, 0, good) if scaled else w.good,
    )
    return StepCheck(bad.astype(jnp.float32), bad | ~finite), watched


def noise(w: LossMonitor, small: Array, large: Array, tokens: Array, parts: Array | int) -> tuple[LossMonitor, Array]:
    """The simple gradient noise scale in tokens: tr(covariance) / |gradient|^2, the batch size up to which doubling it
    nearly halves the steps (McCandlish et al. 2018, arXiv 1812.06162, appendix A.1).

    From squared gradient norms of the microbatches (their mean, `small`) and of the batch of `tokens` (`large`); it
    needs two microbatches. Of the running means, the share of the first steps is the same in both and drops out."""
    usable = (parts > 1) & jnp.isfinite(small) & jnp.isfinite(large)
    part = tokens / parts
    covariance = (small - large) / (1 / part - 1 / tokens)
    signal = (tokens * large - part * small) / (tokens - part)

    def mean(old: Array, new: Array) -> Array:
        return jnp.where(usable, NOISE_KEEP * old + (1 - NOISE_KEEP) * new, old)

    w = dataclasses.replace(w, noise=mean(w.noise, covariance), signal=mean(w.signal, signal))
    return w, w.noise / jnp.maximum(w.signal, 1e-30)
