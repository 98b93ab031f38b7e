"""A causal decoder that reads a prefix from both sides."""

import jax

from lm.adapt.surgery.surgery import language_model_of
from lm.core.component import component, components, with_knobs
from lm.core.errors import UserError
from lm.core.param import Tree
from lm.model.masks import Causal, Prefix
from lm.model.transformer import Model


@component
class NonCausal:
    """Causal masks become `Prefix` masks: tokens of a prefix see all of it (U-PaLM, Tay et al. 2022, arXiv 2210.11399,
    section 3.2). The parameters stay as they are, and without a prefix in the batch the model computes what it did."""

    def model(self, model: Model) -> Model:
        one = language_model_of(model, "NonCausal")
        new = with_knobs(one, lambda name, value: Prefix() if (name, value) == ("mask", Causal()) else value)
        masks = [mask for part in components(new) if (mask := getattr(part, "mask", None)) is not None]
        if new == model:
            named = ", ".join(sorted({type(mask).__name__ for mask in masks})) or "none"
            raise UserError(f"NonCausal finds no Causal mask in this model, whose masks are {named}")
        if left := [mask for mask in masks if mask != Prefix()]:
            raise UserError(f"NonCausal cannot open the mask {left[0]}: of causal masks it knows Causal alone")
        return new

    def params(self, old: Model, new: Model, params: Tree, key: jax.Array) -> Tree:
        return params
