"""Shapes of models from small to large: which width, depth and heads a number of parameters gets.

The rule is a layer per head: heads of one width, as many layers as heads. So stand GPT-2 small (12 heads of 64, 12
layers), LLaMA 7B (32 of 128, 32 layers) and 13B (40, 40), and in width per layer that is within the broad range where
Kaplan et al. 2020 (arXiv 2001.08361, figure 5) found shape to matter little. Other shapes: `Ladder.aspect`.
"""

import functools
import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from ml_collections.config_dict import ConfigDict

from lm.core.errors import UserError
from lm.core.param import flatten
from lm.inspect.cost import active_parameters
from lm.model.transformer import Model
from lm.zoo.registry import MOST_PARTS, build

from .cells import head_dim_of, model_config, row_flops


@dataclass(frozen=True)
class Ladder:
    """head_dim: width of a head; aspect: width per layer, 0: that of a head, so that there are as many layers as heads;
    fewest: layers of the smallest models."""

    head_dim: int = 64
    aspect: float = 0.0
    fewest: int = 2

    def __post_init__(self) -> None:
        if self.head_dim < 1 or self.aspect < 0 or self.fewest < 1:
            raise UserError(f"{self}: head_dim and fewest must be at least 1, and aspect at least 0")

    def shape(self, heads: int) -> tuple[int, int]:
        """(d_model, layers) of the rung with so many heads."""
        d_model = self.head_dim * heads
        return d_model, max(self.fewest, round(d_model / (self.aspect or self.head_dim)))


@dataclass(frozen=True)
class Rung:
    """A model of the ladder. params: those that one token meets, tables included (of experts the active ones);
    in_vocabulary: of them, in tables of the vocabulary (a tied one counts once); flops: training FLOPs per token of a
    row, counted from the jaxpr (`lm.inspect.cost`)."""

    d_model: int
    layers: int
    params: int
    in_vocabulary: int
    flops: float

    @property
    def name(self) -> str:
        return f"d{self.d_model} x {self.layers}"


def rung_of(config: ConfigDict, shape: tuple[int, int], lengths: tuple[int, int]) -> Rung:
    """`lengths`: tokens of a training row, and of its encoder's (0: none)."""
    model = build(model_config(config, shape))
    table = sum(math.prod(p.shape) for _, p in flatten(model.spec()) if "vocab" in p.axes)
    return Rung(*shape, _params(model), table, row_flops(model, *lengths) / sum(lengths))


def rungs_between(
    config: ConfigDict, ladder: Ladder, least: float, most: float, number: int, lengths: tuple[int, int]
) -> list[Rung]:
    """Up to `number` rungs of params from `least` to `most`, evenly spaced in their logarithm as far as the ladder has
    them. Raises `UserError` where none lies there."""
    top = _first(config, ladder, most)
    params = {h: _size(config, ladder, h) for h in _some(_first(config, ladder, least), top)}
    params = {h: n for h, n in params.items() if least <= n <= most}
    if not params:
        near = " and ".join(f"{_size(config, ladder, h):,}" for h in {max(top - 1, 1), top})
        raise UserError(
            f"no size of the ladder has {least:,.0f} to {most:,.0f} parameters (near: {near}): give another budget, "
            "--config.model.head_dim for narrower steps, or a smaller config.model.vocab"
        )
    wanted = np.geomspace(min(params.values()), max(params.values()), number)
    chosen = {min(params, key=lambda h: abs(math.log(params[h] / n))) for n in wanted}
    return [rung_of(config, ladder.shape(h), lengths) for h in sorted(chosen)]


def nearest_rung(config: ConfigDict, ladder: Ladder, params: float, lengths: tuple[int, int]) -> Rung:
    """The one of about so many parameters, by the ratio."""
    above = _first(config, ladder, params)
    best = min({max(above - 1, 1), above}, key=lambda h: abs(math.log(_size(config, ladder, h) / params)))
    return rung_of(config, ladder.shape(best), lengths)


def ladder_of(config: ConfigDict, aspect: float = 0.0) -> Ladder:
    """With the heads of `config`."""
    return Ladder(head_dim_of(config), aspect)


def _first(config: ConfigDict, ladder: Ladder, params: float) -> int:
    """The heads of the first rung with at least so many parameters: by doubling, then by bisection."""
    lower, heads = 0, 1
    while _size(config, ladder, heads) < params:
        if heads == MOST_PARTS:
            raise UserError(f"{params:.3g} parameters are beyond the ladder, {heads} heads: give less compute")
        lower, heads = heads, min(2 * heads, MOST_PARTS)
    while heads - lower > 1:
        middle = (lower + heads) // 2
        lower, heads = (middle, heads) if _size(config, ladder, middle) < params else (lower, middle)
    return heads


def _some(first: int, last: int) -> Iterable[int]:
    """Heads from first to last: all of them, or in a long range about eight to a doubling."""
    return sorted({round(h) for h in np.geomspace(first, last, max(2, min(last - first + 1, 120)))})


def _size(config: ConfigDict, ladder: Ladder, heads: int) -> int:
    return _params(build(model_config(config, ladder.shape(heads))))


@functools.cache
def _params(model: Model) -> int:
    return active_parameters(model)
