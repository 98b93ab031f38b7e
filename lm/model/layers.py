"""The small parts: linear maps, norms, activations."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from lm.core.component import component
from lm.core.errors import UserError, nearest
from lm.core.leaf import dot
from lm.core.param import Constant, Initializer, Normal, Param, Tree

Array = jax.Array
ZEROS, ONES = Constant(0.0), Constant(1.0)


def linear_spec(
    shape: tuple[int, int], axes: tuple[str, str | None], bias: bool = False, init: Initializer = Normal()
) -> Tree:
    """The spec of x [..., in] -> [..., out]: `w` [in, out] and, if asked for, `b` [out]."""
    spec = {"w": Param(shape, axes, init)}
    return spec | {"b": Param(shape[1:], axes[1:], ZEROS, "bias")} if bias else spec


def linear(p: Tree, x: Array) -> Array:
    return dot(x, p["w"], p.get("b"))


ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "relu": jax.nn.relu,
    "relu2": lambda x: jnp.square(jax.nn.relu(x)),
    "gelu": lambda x: jax.nn.gelu(x, approximate=False),
    "gelu_tanh": lambda x: jax.nn.gelu(x, approximate=True),
    "quick_gelu": lambda x: x * jax.nn.sigmoid(1.702 * x),
    "silu": jax.nn.silu,
    "tanh": jnp.tanh,
}


def activation(name: str) -> Callable[[Array], Array]:
    """The function of that name; `gelu` is exact (erf), `gelu_tanh` GPT-2's approximation."""
    if name not in ACTIVATIONS:
        raise UserError(f"activation {name!r} is unknown{nearest(name, ACTIVATIONS)}")
    return ACTIVATIONS[name]


@component
class RMSNorm:
    """x / rms(x) * w, statistics in float32 (Zhang and Sennrich 2019, arXiv 1910.07467)."""

    eps: float = 1e-6

    def spec(self, d: int) -> Tree:
        return {"w": Param((d,), ("embed",), ONES, "norm")}

    def __call__(self, p: Tree, x: Array) -> Array:
        x32 = x.astype(jnp.float32)
        y = x32 * jax.lax.rsqrt(jnp.mean(jnp.square(x32), axis=-1, keepdims=True) + self.eps)
        return (y * p["w"]).astype(x.dtype)


@component
class LayerNorm:
    """(x - mean) / std * w + b, statistics in float32 (Ba et al. 2016, arXiv 1607.06450)."""

    eps: float = 1e-5
    bias: bool = True

    def spec(self, d: int) -> Tree:
        spec = {"w": Param((d,), ("embed",), ONES, "norm")}
        return spec | {"b": Param((d,), ("embed",), ZEROS, "norm")} if self.bias else spec

    def __call__(self, p: Tree, x: Array) -> Array:
        x32 = x.astype(jnp.float32)
        x32 = x32 - jnp.mean(x32, axis=-1, keepdims=True)
        y = x32 * jax.lax.rsqrt(jnp.mean(jnp.square(x32), axis=-1, keepdims=True) + self.eps) * p["w"]
        return (y + p["b"] if self.bias else y).astype(x.dtype)


Norm = RMSNorm | LayerNorm
