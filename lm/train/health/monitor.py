"""The traced half of loss-spike handling: every step checks its loss (finite? a spike?), adapts the float16 loss scale
and measures gradient noise. What the host does about bad steps is in `lm.train.health.recovery`."""

import dataclasses
from typing import Annotated, Literal, NamedTuple

import jax
import jax.numpy as jnp

from lm.core.errors import UserError
from lm.core.ranges import Count, CountOrNone, NotNegative, Range

Array = jax.Array
# The loss is a sum over tokens, so its gradients are already large.
FIRST_SCALE, GROW_AFTER, LARGEST_SCALE = 2.0**10, 1000, 2.0**24
NOISE_KEEP = 0.99  # for the running means in the noise scale, which is wild for single steps


@dataclasses.dataclass(frozen=True)
class Recovery:
    """What to do about a bad step: one whose loss or gradient is not finite or, with `spike` > 0, whose loss is more
    than `spike` standard deviations above its running mean.

    "stop" ends the run; "skip" drops that step's update. The others return to the newest checkpoint at least `back`
    steps old. "rewind" repeats the steps up to `back` before the bad one and skips `skip` batches there, as PaLM did
    (Chowdhery et al. 2022, arXiv 2204.02311, section 5.1: about 100 steps back, 200 to 500 batches). "reshuffle" draws
    the order of all rows anew that come after that place, of which none is lost (after GLaM, Du et al. 2021, arXiv
    2112.06905, which goes on from an earlier checkpoint past the batches that did it). "lower" multiplies the learning
    rate by `factor` from that checkpoint on (OPT, Zhang et al. 2022, arXiv 2205.01068, section 2.5). After `limit` such
    events the run ends."""

    action: Literal["stop", "skip", "rewind", "reshuffle", "lower"] = "stop"  # what is done about one
    spike: NotNegative = 0.0  # standard deviations; 0: only what is not finite counts
    window: Count = 100  # steps that the running mean looks back; no spike is called before so many
    back: CountOrNone = 100  # steps before the bad one from which on something is changed
    skip: Count = 300  # rewind: batches passed over
    factor: Annotated[float, Range(0, 1, above=True, below=True)] = 0.5  # lower: of the learning rate
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
    """Check a step with this loss per token and gradient norm, and update the monitor. A float16 overflow is not a bad
    step as long as the loss scale can be lowered."""
    finite = jnp.isfinite(loss) & jnp.isfinite(grad_norm)
    overflow = ~finite & jnp.bool_(scaled) & (w.scale > 1)
    spike = jnp.bool_(False)
    if rule.spike:
        spike = (w.seen >= rule.window) & (loss > w.mean + rule.spike * jnp.sqrt(w.variance))
    bad = (~finite & ~overflow) | (finite & spike)
    # Running mean and variance over about the last `window` steps (Finch 2009, incremental weighted mean and variance).
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
    """The simple gradient noise scale in tokens, tr(covariance) / |gradient|^2: the batch size up to which doubling it
    nearly halves the number of steps (McCandlish et al. 2018, arXiv 1812.06162, appendix A.1).

    Computed from squared gradient norms of microbatches (their mean, `small`) and of the whole batch of `tokens`
    (`large`), so it needs two microbatches. Both running means start from zero; the bias is the same in both and
    cancels in the ratio."""
    usable = (parts > 1) & jnp.isfinite(small) & jnp.isfinite(large)
    part = tokens / parts
    covariance = (small - large) / (1 / part - 1 / tokens)
    signal = (tokens * large - part * small) / (tokens - part)

    def mean(old: Array, new: Array) -> Array:
        return jnp.where(usable, NOISE_KEEP * old + (1 - NOISE_KEEP) * new, old)

    w = dataclasses.replace(w, noise=mean(w.noise, covariance), signal=mean(w.signal, signal))
    return w, w.noise / jnp.maximum(w.signal, 1e-30)
