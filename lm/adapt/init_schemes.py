"""Initial values of whole models, by the published recipes: what a model begins with, whatever its family chose.

A scheme is a component that maps a model to the same model with other initial values (`config.model.init_scheme`)."""

import dataclasses
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

from lm.core.component import component, components, with_knobs
from lm.core.errors import UserError
from lm.core.param import FanIn, Normal, Xavier
from lm.model.attention import Projections
from lm.model.mlp import MLP, GatedMLP
from lm.model.residual import PostNorm
from lm.model.transformer import EncoderDecoder, LanguageModel, Model, Transformer

RANDOM = (Normal, FanIn, Xavier)


@runtime_checkable
class InitScheme(Protocol):
    def reinitialized(self, model: Model) -> Model:
        """The model, equal but for initial values and for what the recipe wants of its residual connections. Raises
        `UserError` for one that the recipe is not made for."""
        ...


@component
class SmallInit:
    """GPT-NeoX-20B's and Pythia's: matrices and tables of standard deviation sqrt(2 / (5 D)) (Nguyen and Salazar 2019,
    arXiv 1910.05895), and what writes to the residual stream of 2 / (L sqrt(D)) (Black et al. 2022, 2204.06745), L
    being a tower's layers.

    outputs: whether the latter; else all are of the former."""

    outputs: bool = True

    def reinitialized(self, model: Model) -> Model:
        def one(name: str, tower: Transformer) -> Transformer:
            d, layers = tower.d_model, tower.stack.layers
            small, out = Normal((2 / (5 * d)) ** 0.5), Normal(2 / (layers * d**0.5))
            return _filled(tower, small, out if self.outputs else small)

        small = Normal((2 / (5 * model.tower.width)) ** 0.5)
        return dataclasses.replace(_each_tower(model, one), head=_filled(model.head, small, small))


@component
class DeepNorm:
    """Post-norm models of many layers (Wang et al. 2022, arXiv 2203.00555): residual connections are multiplied by
    alpha, and values, outputs and feed-forward matrices begin as Xavier's times beta; queries and keys as Xavier's.

    alpha, beta: None: the paper's, for a single tower of N layers (2 N)^(1/4) and (8 N)^(-1/4), for an encoder of N
        beside a decoder of M layers 0.81 (N^4 M)^(1/16) and 0.87 (N^4 M)^(-1/16), for the decoder (3 M)^(1/4) and
        (12 M)^(-1/4). GLM-130B has (2 N)^(1/2) and (2 N)^(-1/2) (Zeng et al. 2022, 2210.02414)."""

    alpha: float | None = None
    beta: float | None = None

    def reinitialized(self, model: Model) -> Model:
        if not any(isinstance(part, PostNorm) for part in components(model)):
            raise UserError("DeepNorm is made for post-norm models, and this one has no PostNorm: take SmallInit")
        return _each_tower(model, lambda name, tower: self._of(tower, *self._gains(model, name)))

    def _gains(self, model: Model, name: str) -> tuple[float, float]:
        if isinstance(model, EncoderDecoder):
            n, m = model.encoder.stack.layers, model.decoder.stack.layers
            deep = n**4 * m
            of_encoder = 0.81 * deep ** (1 / 16), 0.87 * deep ** (-1 / 16)
            alpha, beta = of_encoder if name == "encoder" else ((3 * m) ** 0.25, (12 * m) ** -0.25)
        else:
            n = model.tower.stack.layers
            alpha, beta = (2 * n) ** 0.25, (8 * n) ** -0.25
        return alpha if self.alpha is None else self.alpha, beta if self.beta is None else self.beta

    def _of(self, tower: Transformer, alpha: float, beta: float) -> Transformer:
        plain, scaled = Xavier(), Xavier(beta)

        def one(name: str, value: Any) -> Any:
            if isinstance(value, PostNorm):
                return dataclasses.replace(value, alpha=alpha)
            if isinstance(value, Projections):
                return dataclasses.replace(value, init=plain, q_init=None, v_init=scaled, out_init=scaled)
            if isinstance(value, (MLP, GatedMLP)):
                return dataclasses.replace(value, init=scaled, out_init=scaled)
            if isinstance(value, tuple):
                return tuple(one("", item) for item in value)
            return value

        return dataclasses.replace(tower, stack=with_knobs(tower.stack, one))


def _filled(tree: Any, init: Normal, out: Normal) -> Any:
    """The component tree with other random initial values: `out` for knobs named so, `init` for all others."""

    def one(name: str, value: Any) -> Any:
        return (out if name == "out_init" else init) if isinstance(value, RANDOM) else value

    return with_knobs(tree, one)


def _each_tower(model: Model, change: Callable[[str, Transformer], Transformer]) -> Model:
    names = ("body",) if isinstance(model, LanguageModel) else ("encoder", "decoder")
    towers: dict[str, Any] = {name: getattr(model, name) for name in names}
    if other := next((t for t in towers.values() if not isinstance(t, Transformer)), None):
        raise UserError(f"a {type(other).__name__} takes no scheme of initial values: leave init_scheme out")
    changed: dict[str, Any] = {name: change(name, tower) for name, tower in towers.items()}
    return dataclasses.replace(model, **changed)
