"""Layers and their parameters taken out of a stack, and put into another: what surgery on single layers is made of."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from lm.core.errors import UserError
from lm.core.param import Tree
from lm.model.block import Layer
from lm.model.special.resize import Resize
from lm.model.stack import Stack
from lm.model.transformer import Model


def check_plain(name: str, stack: Stack, model: Model) -> None:
    """Raise `UserError` for a stack whose layers cannot be told apart or moved."""
    if any(isinstance(segment, Resize) for segment in stack.segments):
        raise UserError(f"the {name} changes its width between layers: its layers cannot be copied")
    if any(segment.tied for segment in stack.segments):
        raise UserError(f"the layers of the {name} share one set of parameters: there is nothing to copy")
    if tie := next((t for t in model.ties if any(path.startswith(f"{name}/stack/") for path in t)), None):
        raise UserError(f"the {name} ties {tie[0]} to {tie[1]}: its layers cannot be copied")


def with_blocks(model: Model, name: str, blocks: Sequence[Layer]) -> Any:
    """The model with these layers in the tower called `name`."""
    tower = getattr(model, name)
    stack = dataclasses.replace(tower.stack, segments=Stack.of(blocks).segments)
    return dataclasses.replace(model, **{name: dataclasses.replace(tower, stack=stack)})


def layer_of(p: Tree, stack: Stack, layer: int) -> Tree:
    """The parameters of one layer, without the axis of layers."""
    segment, repeat, position = stack.locate(layer)
    return jax.tree.map(lambda x: x[repeat], p[str(segment)][str(position)])


def with_layers(params: Tree, name: str, stack: Stack, layers: Sequence[Tree]) -> Tree:
    """The model's parameters with those of a tower's layers, which are laid out as its new stack has them."""
    join: Callable[..., jax.Array] = lambda *each: jnp.stack(each)  # noqa: E731
    segments, first = {}, 0
    for i, segment in enumerate(stack.segments):
        n = len(segment.pattern)
        own = layers[first : first + segment.layers]
        segments[str(i)] = {str(j): jax.tree.map(join, *own[j::n]) for j in range(n)}
        first += segment.layers
    rest = {key: value for key, value in params[name]["stack"].items() if not key.isdigit()}
    return params | {name: params[name] | {"stack": rest | segments}}
