"""Every weight is used through `dot` or `take`, which dispatch on the leaf: a plain array, or a leaf type with its own
arithmetic (quantised, low-rank adapted). A parameter tree may mix them freely; no model code knows.
"""

import abc
import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from lm.core.matmul import matmul

Array = jax.Array


def dot(x: Array, w: Any, bias: Any = None, *, transpose: bool = False, dtype: Any = None) -> Array:
    """x [..., in] times w [in, out] plus bias [out] -> [..., out], in x's dtype or `dtype`; with `transpose`, w is
    stored [out, in].

    With batch axes (experts) the leading axes of x and w correspond, as in `jnp.matmul`."""
    if isinstance(w, Leaf):
        y = w.dot(x, transpose).astype(dtype or x.dtype)
        return y if bias is None else y + bias.astype(y.dtype)
    return matmul(x, w, bias, transpose, dtype)


def take(w: Any, ids: Array, dtype: Any = jnp.float32) -> Array:
    """Rows of a table w [rows, width] at ids [...] -> [..., width]."""
    return w.take(ids, dtype) if isinstance(w, Leaf) else jnp.take(w, ids, axis=0).astype(dtype)


class Leaf(abc.ABC):
    """What a leaf type must offer. Its arrays keep the leading `layers` axis of the tensor they stand for."""

    @property
    @abc.abstractmethod
    def shape(self) -> tuple[int, ...]:
        """Of the tensor it stands for."""

    @abc.abstractmethod
    def dot(self, x: Array, transpose: bool) -> Array: ...

    @abc.abstractmethod
    def take(self, ids: Array, dtype: Any) -> Array: ...


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Quantized(Leaf):
    """Symmetric int8 with one scale per slice along `axis` (-2: per output column, -1: per row of a table)."""

    q: Array  # int8, the tensor's shape
    scale: Array  # float32, the tensor's shape with 1 at `axis`
    axis: int = dataclasses.field(default=-2, metadata={"static": True})

    @property
    def shape(self) -> tuple[int, ...]:
        return self.q.shape

    def dot(self, x: Array, transpose: bool) -> Array:
        q, scale = self.q.astype(x.dtype), self.scale.astype(x.dtype)
        contracted = -1 if transpose else -2
        if transpose:
            q, scale = jnp.swapaxes(q, -1, -2), jnp.swapaxes(scale, -1, -2)
        return (x @ q) * scale if self.axis == contracted else x @ (q * scale)

    def take(self, ids: Array, dtype: Any) -> Array:
        scale = self.scale if self.axis == -2 else jnp.take(self.scale, ids, axis=0)
        return (jnp.take(self.q, ids, axis=0) * scale).astype(dtype)


def quantize(w: Array, axis: int = -2) -> Quantized:
    """Round w to int8, one scale per slice along `axis`."""
    scale = jnp.maximum(jnp.max(jnp.abs(w), axis=axis, keepdims=True), 1e-30) / 127
    return Quantized(jnp.round(w / scale).astype(jnp.int8), scale.astype(jnp.float32), axis)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class LoRA(Leaf):
    """w + scale * a b with w frozen (Hu et al. 2021, arXiv 2106.09685). `w` may itself be a leaf (QLoRA)."""

    w: Any  # [..., in, out]
    a: Array  # [..., in, rank]
    b: Array  # [..., rank, out]
    scale: float = dataclasses.field(default=1.0, metadata={"static": True})

    @property
    def shape(self) -> tuple[int, ...]:
        return self.w.shape

    def dot(self, x: Array, transpose: bool) -> Array:
        frozen = dot(x, jax.lax.stop_gradient(self.w), transpose=transpose)
        first, second = (self.b, self.a) if transpose else (self.a, self.b)
        return frozen + self.scale * dot(dot(x, first, transpose=transpose), second, transpose=transpose)

    def take(self, ids: Array, dtype: Any) -> Array:
        low = self.scale * take(self.a, ids, dtype) @ self.b.astype(dtype)
        return take(jax.lax.stop_gradient(self.w), ids, dtype) + low
