"""Weights in int8: a quarter of the memory of float32, for serving, or under adapters that train."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from lm.core.component import component
from lm.core.leaf import Leaf, leaf
from lm.core.param import Constant, Param, Tree
from lm.core.transform import map_leaves, map_tensors, targets

Array = jax.Array


@leaf
class Quantized(Leaf):
    """q * scale, symmetric, with one scale for each slice along `axis` (-2: a scale per column; -1: per row)."""

    q: Any  # int8, the weight's shape
    scale: Any  # float32, the weight's shape with 1 at `axis`
    axis: int = dataclasses.field(default=-2, metadata={"static": True})

    @property
    def weight(self) -> Any:
        return self.q

    def dot(self, x: Array, transpose: bool) -> Array:
        q, scale = self.q.astype(x.dtype), self.scale.astype(x.dtype)  # -127 to 127 are exact in half precision too
        contracted = -1 if transpose else -2
        if transpose:
            q, scale = jnp.swapaxes(q, -1, -2), jnp.swapaxes(scale, -1, -2)
        return (x @ q) * scale if self.axis == contracted else x @ (q * scale)

    def take(self, ids: Array | int, dtype: Any) -> Array:
        scale = self.scale if self.axis == -2 else jnp.take(self.scale, ids, axis=0)
        return (jnp.take(self.q, ids, axis=0) * scale).astype(dtype)

    def dense(self) -> Array:
        return self.q * self.scale


def quantize(w: Array, axis: int = -2) -> Quantized:
    """Round w to int8, one scale per slice along `axis`; no entry moves by more than half its scale, which is the
    slice's largest magnitude / 127."""
    scale = jnp.maximum(jnp.max(jnp.abs(w), axis=axis, keepdims=True), 1e-30) / 127
    return Quantized(jnp.round(w / scale).astype(jnp.int8), scale.astype(jnp.float32), axis)


@component
class Int8:
    """Round the chosen matrices to int8, with one float32 scale per output channel (the vector-wise part of LLM.int8,
    Dettmers et al. 2022, arXiv 2208.07339; no outlier columns, no calibration). Activations stay as they are.

    Rounded weights do not train. Followed by `LoRA`, they are the frozen base of adapters that do. Merging gives the
    rounded values in float32.

    target  pattern of paths; None: every matrix between features. A pattern may name tables too (`embed/token`), which
            have a scale per row
    """

    target: str | None = None

    def spec(self, spec: Tree) -> Tree:
        chosen = targets("Int8", self.target, spec, leaves=False)

        def one(path: str, p: Any) -> Any:
            if path not in chosen:
                return p
            axis = _contracted(p)
            shape, axes = list(p.shape), list(p.axes)
            shape[axis], axes[axis] = 1, None
            q = dataclasses.replace(p, init=Constant(0.0), dtype="int8")
            return Quantized(q, Param(tuple(shape), tuple(axes), Constant(1.0), "buffer"), axis)

        return map_tensors(one, spec)

    def init(self, spec: Tree, params: Tree, key: Array) -> Tree:
        chosen = targets("Int8", self.target, spec, leaves=False)
        return map_tensors(
            lambda path, p, w: quantize(w, _contracted(p)) if path in chosen else w,
            spec,
            params,
        )

    def trainable(self, path: str, p: Param) -> bool:
        return p.dtype != "int8"

    def merge(self, params: Tree) -> Tree:
        return map_leaves(Quantized, lambda x: x.dense(), params)


def _contracted(p: Param) -> int:
    """The axis that products sum over: rows are the outputs of a table of a vocabulary, columns those of all else."""
    return -1 if p.axes[-2] in ("vocab", "position") else -2
