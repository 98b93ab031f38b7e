"""Layers and experts as copies of those of a smaller model."""

import dataclasses

import jax
import jax.numpy as jnp

from lm.adapt.surgery.layers import check_plain, layer_of, with_blocks, with_layers
from lm.adapt.surgery.surgery import towers
from lm.core.component import component
from lm.core.errors import UserError
from lm.core.param import Tree
from lm.core.ranges import Count
from lm.model.block import Block, Layer
from lm.model.mlp import MLP, GatedMLP
from lm.model.moe.dispatch import Capacity, Dispatch
from lm.model.moe.layer import MoE
from lm.model.moe.routers import Router
from lm.model.moe.top_k import TopK
from lm.model.stack import Stack
from lm.model.transformer import Model


@component
class CopyLayers:
    """A model of other depth, each of whose layers is a copy of one of the old.

    order: for each new layer the old one, from 0: (0, 1, 0, 1) stacks two layers twice, as does G_stack (Du et al.
        2024, arXiv 2405.15319), (0, 0, 1, 1) doubles each (Net2Net's depth), (0, ..., 23, 8, ..., 31) is SOLAR's
        (Kim et al. 2023, 2312.15166); (0, 2) drops layers;
    tower: of an encoder-decoder, "encoder" or "decoder"."""

    order: tuple[int, ...]
    tower: str = ""

    def model(self, model: Model) -> Model:
        found = towers(model, self.tower)
        if len(found) > 1:
            raise UserError("CopyLayers.tower says which tower of an encoder-decoder is meant: give encoder or decoder")
        ((name, tower),) = found.items()
        check_plain(name, tower.stack, model)
        blocks = tower.stack.blocks()
        if not self.order or not all(0 <= i < len(blocks) for i in self.order):
            raise UserError(f"CopyLayers.order={list(self.order)} must name layers from 0 to {len(blocks) - 1}")
        return with_blocks(model, name, [blocks[i] for i in self.order])

    def params(self, old: Model, new: Model, params: Tree, key: jax.Array) -> Tree:
        ((name, tower),) = towers(old, self.tower).items()
        layers = [layer_of(params[name]["stack"], tower.stack, i) for i in self.order]
        return with_layers(params, name, towers(new, self.tower)[name].stack, layers)


@component
class CopyExperts:
    """A mixture of experts from a dense model: in some layers the feed-forward part becomes experts that all begin as
    copies of it, behind a new router (sparse upcycling, Komatsuzaki et al. 2022, arXiv 2212.05055; PanGu-Sigma, Ren et
    al. 2023, 2303.10845).

    With weights that add up to one, as those of the default router do, and room for all tokens, the new model computes
    at first what the old one did. Hidden units of experts have no dropout.

    experts: how many;
    layers: which layers, from 0; () takes every second one, from the second on;
    part: the name of the feed-forward part in its block;
    router, dispatch: of the new layers;
    tower: of an encoder-decoder, "encoder" or "decoder"; "": both."""

    experts: Count
    layers: tuple[int, ...] = ()
    part: str = "mlp"
    router: Router = TopK(k=2, normalize=1.0)
    dispatch: Dispatch = Capacity(2.0)
    tower: str = ""

    def model(self, model: Model) -> Model:
        for name, tower in towers(model, self.tower).items():
            check_plain(name, tower.stack, model)
            chosen = self._chosen(tower.stack)
            blocks = [self._routed(b, i) if i in chosen else b for i, b in enumerate(tower.stack.blocks())]
            model = with_blocks(model, name, blocks)
        return model

    def _chosen(self, stack: Stack) -> frozenset[int]:
        layers = self.layers or tuple(range(1, stack.layers, 2))
        if not layers or not all(0 <= i < stack.layers for i in layers):
            raise UserError(f"CopyExperts.layers={list(self.layers)} must name layers from 0 to {stack.layers - 1}")
        return frozenset(layers)

    def _routed(self, block: Layer, i: int) -> Block:
        parts = dict(block.parts) if isinstance(block, Block) else {}
        mlp = parts.get(self.part)
        if not isinstance(block, Block) or not isinstance(mlp, (MLP, GatedMLP)):
            raise UserError(
                f"CopyExperts.part={self.part!r} is no feed-forward part of layer {i}, which has "
                f"{', '.join(parts) or 'no parts of its own'}"
            )
        parts[self.part] = MoE(self.experts, dataclasses.replace(mlp, dropout=0.0), self.router, self.dispatch)
        return dataclasses.replace(block, parts=tuple(parts.items()))

    def params(self, old: Model, new: Model, params: Tree, key: jax.Array) -> Tree:
        for name, tower in towers(old, self.tower).items():
            chosen = self._chosen(tower.stack)
            layers = [layer_of(params[name]["stack"], tower.stack, i) for i in range(tower.stack.layers)]
            layers = [self._copied(p) if i in chosen else p for i, p in enumerate(layers)]
            params = with_layers(params, name, towers(new, self.tower)[name].stack, layers)
        return params

    def _copied(self, layer: Tree) -> Tree:
        experts = jax.tree.map(lambda x: jnp.broadcast_to(x, (self.experts, *x.shape)), layer[self.part])
        return layer | {self.part: {"experts": experts}}
