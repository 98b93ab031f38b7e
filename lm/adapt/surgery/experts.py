"""Fewer experts: a smaller mixture of those that are used most, or a dense model of some."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lm.adapt.surgery.layers import check_plain, layer_of, with_blocks, with_layers
from lm.adapt.surgery.surgery import towers
from lm.core.component import component
from lm.core.errors import UserError
from lm.core.param import Tree
from lm.model.block import Block
from lm.model.mlp import MLP, GatedMLP
from lm.model.moe.layer import MoE
from lm.model.transformer import Model

Chosen = tuple[int, ...]  # of one layer


def busiest(load: Iterable[Any], keep: int) -> tuple[Chosen, ...]:
    """For each layer the `keep` experts of the highest load [E], in their order."""
    return tuple(tuple(sorted(np.argsort(-np.asarray(of_layer), kind="stable")[:keep].tolist())) for of_layer in load)


@component
class KeepExperts:
    """A mixture of fewer experts: the others are left out, with what the router knows of them. A token whose choices
    all stay is given what it was, if they are not weighed against the others'.

    experts: for each layer with experts, in order, those that stay (`busiest`); one tuple: the same in all;
    tower: of an encoder-decoder, "encoder" or "decoder"; "": both, whose layers count in this order"""

    experts: tuple[Chosen, ...]
    tower: str = ""

    def model(self, model: Model) -> Model:
        if len({len(experts) for experts in self.experts}) > 1:
            raise UserError("KeepExperts.experts must keep as many experts in one layer as in another")

        def fewer(moe: MoE, experts: Chosen) -> MoE:
            router = moe.router.among(experts, moe.experts)
            new = dataclasses.replace(moe, experts=len(experts), router=router)
            new.router.spec(1, new.experts)  # says what is wrong where so few do not suffice
            return new

        return _with_parts(self, model, fewer)

    def params(self, old: Model, new: Model, params: Tree, key: jax.Array) -> Tree:
        def fewer(moe: MoE, p: Tree, experts: Chosen) -> Tree:
            own = jax.tree.map(lambda x: x[jnp.asarray(experts)], p["experts"])
            return p | {"experts": own, "router": moe.router.kept(p["router"], experts)}

        return _with_values(self, old, new, params, fewer)


@component
class DenseExperts:
    """A dense model of one with experts: some of them, side by side, become a feed-forward part that every token passes
    through. It adds the mean of what they would, and all that a shared expert does; nothing is weighed any more.

    So the model of which all experts were copies (`CopyExperts`) comes back, from any of them.

    experts: for each layer with experts, in order, those that are kept (`busiest`); one tuple: the same in all;
    tower: of an encoder-decoder, "encoder" or "decoder"; "": both, whose layers count in this order"""

    experts: tuple[Chosen, ...]
    tower: str = ""

    def model(self, model: Model) -> Model:
        return _with_parts(self, model, _side_by_side)

    def params(self, old: Model, new: Model, params: Tree, key: jax.Array) -> Tree:
        def joined(moe: MoE, p: Tree, experts: Chosen) -> Tree:
            each = [jax.tree.map(lambda x, e=e: x[e], p["experts"]) for e in experts]
            each = [e | {"down": jax.tree.map(lambda x: x / len(experts), e["down"])} for e in each]
            each += [p["shared"]] if moe.shared else []
            merged = {name: _joined([e[name] for e in each], axis=-1) for name in each[0] if name != "down"}
            down = {"w": jnp.concatenate([e["down"]["w"] for e in each])}
            if "b" in each[0]["down"]:
                down["b"] = sum(e["down"]["b"] for e in each)
            return merged | {"down": down}

        return _with_values(self, old, new, params, joined)


def _joined(trees: list[Tree], axis: int) -> Tree:
    return jax.tree.map(lambda *x: jnp.concatenate(x, axis), *trees)


def _side_by_side(moe: MoE, experts: Chosen) -> MLP | GatedMLP:
    """One feed-forward part that is as wide as these experts and the shared one."""
    shared, more = moe.shared, getattr(moe.expert, "inner_norm", None) is not None or moe.bias
    if moe.shared_gate or more or (shared and dataclasses.replace(shared, d_ff=moe.expert.d_ff) != moe.expert):
        raise UserError(
            "DenseExperts cannot put these experts side by side: they have a norm within, a bias of their sum, or a "
            "shared expert that is gated or of another kind"
        )
    width = len(experts) * moe.expert.d_ff + (shared.d_ff if shared else 0)
    return dataclasses.replace(moe.expert, d_ff=width)


def _with_parts(surgery: Any, model: Model, change: Callable[[MoE, Chosen], Any]) -> Model:
    """The model with `change` of each mixture that surgery names."""
    for name, tower in towers(model, surgery.tower).items():
        check_plain(name, tower.stack, model)
        blocks = list(tower.stack.blocks())
        for layer, part, moe, experts in _chosen(surgery, model, name):
            block = blocks[layer]
            assert isinstance(block, Block)
            parts = dict(block.parts) | {part: change(moe, experts)}
            blocks[layer] = dataclasses.replace(block, parts=tuple(parts.items()))
        model = with_blocks(model, name, blocks)
    return model


def _with_values(
    surgery: Any, old: Model, new: Model, params: Tree, change: Callable[[MoE, Tree, Chosen], Tree]
) -> Tree:
    """The parameters with `change` of those of each mixture that surgery names."""
    for name, tower in towers(old, surgery.tower).items():
        layers = [layer_of(params[name]["stack"], tower.stack, i) for i in range(tower.stack.layers)]
        for layer, part, moe, experts in _chosen(surgery, old, name):
            layers[layer] = layers[layer] | {part: change(moe, layers[layer][part], experts)}
        params = with_layers(params, name, towers(new, surgery.tower)[name].stack, layers)
    return params


def _chosen(surgery: Any, model: Model, wanted: str) -> Iterator[tuple[int, str, MoE, Chosen]]:
    """Layer, part, mixture and chosen experts, of each mixture of one tower."""
    found = [
        (name, layer, part, moe)
        for name, tower in towers(model, surgery.tower).items()
        for layer, block in enumerate(tower.stack.blocks())
        if isinstance(block, Block)
        for part, moe in block.parts
        if isinstance(moe, MoE)
    ]
    kind, chosen = type(surgery).__name__, surgery.experts
    if not found:
        raise UserError(f"{kind} works on layers with experts, which this model has none of")
    if len(chosen) not in (1, len(found)):
        raise UserError(f"{kind}.experts has {len(chosen)} layers, but the model has experts in {len(found)}: give all")
    each = chosen * len(found) if len(chosen) == 1 else chosen
    for (name, layer, part, moe), experts in zip(found, each, strict=True):
        if not experts or len(set(experts)) < len(experts) or not all(0 <= e < moe.experts for e in experts):
            raise UserError(
                f"{kind}.experts={list(experts)} must name experts from 0 to {moe.experts - 1}, each once, at least one"
            )
        if name == wanted:
            yield layer, part, moe, experts
