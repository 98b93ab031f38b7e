"""The small parts: linear maps, norms, activations."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from lm.core.component import component
from lm.core.errors import UserError, nearest
from lm.core.leaf import dot, dots
from lm.core.param import Constant, Initializer, Normal, Param, Tree

Array = jax.Array
ZEROS, ONES = Constant(0.0), Constant(1.0)


def linear_spec(
    shape: tuple[int, int], axes: tuple[str | None, str | None], bias: bool = False, init: Initializer = Normal()
) -> Tree:
    """The spec of x [..., in] -> [..., out]: `w` [in, out] and, if asked for, `b` [out]."""
    spec = {"w": Param(shape, axes, init)}
    return spec | {"b": Param(shape[1:], axes[1:], ZEROS, "bias")} if bias else spec


def linear(p: Tree, x: Array) -> Array:
    return dot(x, p["w"], p.get("b"))


def linears(ps: Sequence[Tree], x: Array) -> list[Array]:
    """`linear` of each of several on the same x."""
    return dots(x, [p["w"] for p in ps], [p.get("b") for p in ps])


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


GAINS = ("w", "1+w", "none")  # what multiplies: the weight, one plus it (Gemma, Nemotron), nothing (OLMo, Galactica)


def _gain_spec(gain: str, bias: bool, d: int) -> Tree:
    if gain not in GAINS:
        raise UserError(f"gain={gain!r} of a norm is unknown{nearest(gain, GAINS)}")
    start = {"w": ONES, "1+w": ZEROS}
    spec = {"w": Param((d,), ("embed",), start[gain], "norm")} if gain in start else {}
    return spec | ({"b": Param((d,), ("embed",), ZEROS, "norm")} if bias else {})


def _affine(gain: str, p: Tree, y: Array) -> Array:
    y = y * p["w"] if gain == "w" else y * (1 + p["w"]) if gain == "1+w" else y
    return y + p["b"] if "b" in p else y


@component
class RMSNorm:
    """x / rms(x) * w, statistics in float32 (Zhang and Sennrich 2019, arXiv 1910.07467). `gain`: see `GAINS`."""

    eps: float = 1e-6
    gain: str = "w"

    def spec(self, d: int) -> Tree:
        return _gain_spec(self.gain, False, d)

    def __call__(self, p: Tree, x: Array) -> Array:
        x32 = x.astype(jnp.float32)
        y = x32 * jax.lax.rsqrt(jnp.mean(jnp.square(x32), axis=-1, keepdims=True) + self.eps)
        return _affine(self.gain, p, y).astype(x.dtype)


@component
class LayerNorm:
    """(x - mean) / std * w + b, statistics in float32 (Ba et al. 2016, arXiv 1607.06450). `gain`: see `GAINS`."""

    eps: float = 1e-5
    bias: bool = True
    gain: str = "w"

    def spec(self, d: int) -> Tree:
        return _gain_spec(self.gain, self.bias, d)

    def __call__(self, p: Tree, x: Array) -> Array:
        x32 = x.astype(jnp.float32)
        x32 = x32 - jnp.mean(x32, axis=-1, keepdims=True)
        y = x32 * jax.lax.rsqrt(jnp.mean(jnp.square(x32), axis=-1, keepdims=True) + self.eps)
        return _affine(self.gain, p, y).astype(x.dtype)


Norm = RMSNorm | LayerNorm
