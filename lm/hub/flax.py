"""Our models as Flax modules: `as_linen(model)` and `as_nnx(model)`, for training loops and tools written for those.

The parameter tree is that of `model.spec()`, names and values, so that parameters go back and forth as they are:

    module = as_linen(model)
    params = module.init(key, batch)["params"]       # equal to lm.core.param.initialize(model.spec(), key)
    scores = module.apply({"params": params}, batch)  # equal to model(params, batch)

A tool that changes how Flax modules multiply (qwix: quantisation, low-rank adapters) finds every weight of the Linen
module as a module of its own, whose path is the parameter's, and whose product is a plain `jax.lax.dot_general`:

    rules = [qwix.QuantizationRule(module_path=".*mlp.*", weight_qtype="int8", act_qtype="int8")]
    small = qwix.quantize_model(as_linen(model), qwix.PtqProvider(rules))
"""

import dataclasses
import zlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen, nnx
from flax.core.scope import Scope

from lm.core.ctx import Ctx
from lm.core.errors import UserError
from lm.core.leaf import Leaf, leaf
from lm.core.param import Param, Tree, flatten, get, initialize, put
from lm.core.rows import Batch
from lm.model.transformer import Model

Array = jax.Array
WEIGHTS = ("w", "token")  # entries that are read through `dot` and `take` alone


def as_linen(model: Model, dtype: jax.typing.DTypeLike = jnp.float32) -> "LinenModel":
    """The model as a `flax.linen.Module`: `module.apply({"params": params}, batch)` is `model(params, batch)`.

    `rngs={"dropout": key}` turns dropout on. In half precision, weights' gradients are rounded to it, as Flax's are."""
    return LinenModel(model, dtype)


def as_nnx(
    model: Model, params: Tree | None = None, *, key: Array | None = None, dtype: jax.typing.DTypeLike = jnp.float32
) -> "NNXModel":
    """The model as a `flax.nnx.Module` that holds these parameters, or those that `key` (default: that of seed 0)
    draws: `module(batch)` is `model(params, batch)`. `nnx.to_pure_dict(nnx.state(module))` gives the parameters."""
    if params is None:
        params = initialize(model.spec(), jax.random.key(0) if key is None else key)
    return NNXModel(model, params, dtype)


# ---------------------------------------------------------------------------------------------------------------------
# NNX


class Buffer(nnx.Variable):
    """A tensor without gradient: `nnx.grad` looks at `nnx.Param`s alone."""


class NNXModel(nnx.Module):
    """A model with its parameters, nested as in its spec."""

    def __init__(self, model: Model, params: Tree, dtype: jax.typing.DTypeLike) -> None:
        self.model, self.dtype = model, dtype
        spec = model.spec()
        _check(spec, params)
        for name, part in spec.items():
            held = jax.tree.map(lambda p, x: (Buffer if p.kind == "buffer" else nnx.Param)(x), part, params[name])
            setattr(self, name, nnx.data(held))

    def __call__(self, batch: Batch, ctx: Ctx = Ctx()) -> Any:
        """Scores of a batch; `ctx` may hold a key for dropout and a mesh's rules."""
        held = {name: getattr(self, name) for name in self.model.spec()}
        params = jax.tree.map(lambda v: v[...], held, is_leaf=lambda v: isinstance(v, nnx.Variable))
        return self.model(params, batch, ctx, self.dtype)


def _check(spec: Tree, params: Tree) -> None:
    """Every tensor of the spec must be there. There may be more: what a tool has put beside a weight."""
    for path, p in flatten(spec):
        try:
            given = get(params, path)
        except KeyError:
            raise UserError(f"params lack {path!r}: give a tree with the names of model.spec()") from None
        if given.shape != p.shape:
            raise UserError(f"{path} has shape {given.shape}, the model's is {p.shape}: give parameters of this model")


# ---------------------------------------------------------------------------------------------------------------------
# Linen


class LinenModel(linen.Module):
    """A model; its parameters are the collection `params`."""

    model: Any
    dtype: Any = jnp.float32

    def __call__(self, batch: Batch, ctx: Ctx = Ctx()) -> Any:
        """Scores of a batch; `ctx` may hold a mesh's rules."""
        if self.has_rng("dropout"):
            ctx = ctx.replace(key=self.make_rng("dropout"))
        spec = self.model.spec()
        if not self.is_initializing():
            params: Tree = self.variables.get("params", {})
            _check(spec, params)
            return self.model(_named(spec, params, self.path), batch, ctx, self.dtype)
        # Flax hands one key to all modules, each with the path to fold into it: the root's is the caller's own.
        key = self.scope.rngs["params"].as_jax_rng()  # type: ignore[union-attr]
        params = initialize(spec, key)
        uses = _Uses()
        scores = self.model(_named(spec, params, self.path, uses), batch, ctx, self.dtype)
        for name, use in uses.found.items():
            params = _made(params, name, use, self.path, get(spec, name).batch_dims, key)
        for name, tree in params.items():
            self.put_variable("params", name, tree)
        return scores


class _Weight(linen.Module):
    """The module that owns one weight, or rather one layer's or expert's slice of it."""

    entry: str

    def __call__(self, x: Array, transpose: bool) -> Array:
        return _product(x, self.get_variable("params", self.entry), transpose)


def _product(x: Array, w: Any, transpose: bool) -> Array:
    """What `lm.core.leaf.dot` promises, in one call of `jax.lax.dot_general`, which tools replace."""
    w = w.astype(x.dtype) if isinstance(w, jax.Array) else w  # a tool's own kind of weight is left to the tool
    ahead = w.ndim - 2
    batch = tuple(range(x.ndim - w.ndim, x.ndim - 2))
    dims = (((x.ndim - 1,), (ahead + transpose,)), (batch, tuple(range(ahead))))
    y = jax.lax.dot_general(x, w, dims, preferred_element_type=jnp.promote_types(x.dtype, jnp.float32))
    return jnp.moveaxis(y, range(ahead), batch) if batch else y


class _Use(NamedTuple):
    """How a weight is used: the arguments of its product."""

    shape: tuple[int, ...]
    dtype: Any
    transpose: bool


class _Uses:
    """How each weight is used, by name. Compared by identity, so that a pytree may hold it."""

    def __init__(self) -> None:
        self.found: dict[str, _Use] = {}


@leaf
class _Named(Leaf):
    """A weight that knows its name. `own` holds it and what a tool has put beside it; `root` is the path of the whole
    model's module; `uses` records how each weight is used; it is set only during `init`."""

    own: dict[str, Any]
    name: str = dataclasses.field(metadata={"static": True})
    root: tuple[str, ...] = dataclasses.field(metadata={"static": True})
    uses: _Uses | None = dataclasses.field(metadata={"static": True})

    @property
    def weight(self) -> Any:
        return self.own[self.name.rpartition("/")[2]]

    def dot(self, x: Array, transpose: bool) -> Array:
        if self.uses is not None:
            self.uses.found[self.name] = _Use(x.shape, x.dtype, transpose)
            return _product(x, self.weight, transpose)
        return _module(self.name, self.root, self.own)(x, transpose)

    def take(self, ids: Array | int, dtype: Any) -> Array:
        if isinstance(self.weight, jax.Array):
            return jnp.take(self.weight, ids, axis=0).astype(dtype)
        return _dequantized(self.weight[ids].array).astype(dtype)

    def dense(self) -> Array:
        return self.weight if isinstance(self.weight, jax.Array) else _dequantized(self.weight.array)


def _dequantized(w: Any) -> Array:
    import qwix  # it made this kind of weight

    return qwix.dequantize(w)


def _module(name: str, root: tuple[str, ...], own: dict[str, Any], **scope: Any) -> _Weight:
    *path, entry = name.split("/")
    parent: Any = Scope({"params": own}, path=(*root, *path), **scope)  # Flax's hints know modules alone
    return _Weight(entry, parent=parent)


def _named(spec: Tree, params: Tree, root: tuple[str, ...], uses: _Uses | None = None, at: str = "") -> Tree:
    """The parameters, weights as `_Named`."""
    result = {}
    for key, part in spec.items():
        if not isinstance(part, Param):
            result[key] = _named(part, params.get(key, {}), root, uses, f"{at}{key}/")
        elif key in WEIGHTS and part.kind == "weight":
            beside = {k: v for k, v in params.items() if k.startswith(f"{key}_") and k not in spec}
            result[key] = _Named({key: params[key], **beside}, f"{at}{key}", root, uses)
        else:
            result[key] = params[key]
    return result


def _made(params: Tree, name: str, use: _Use, root: tuple[str, ...], batch_dims: int, key: Array) -> Tree:
    """The parameters, with what a tool makes of one weight: in its stead, or beside it. Each layer and expert is made
    for itself, as a module that is not stacked."""

    def make(w: Array, key: Array) -> dict[str, Any]:
        entry = name.rpartition("/")[2]
        module = _module(name, root, {entry: w}, rngs={"params": key}, mutable=["params"], flags={"initializing": True})
        module(jnp.zeros(use.shape, use.dtype), use.transpose)
        return dict(module.variables["params"])

    w = get(params, name)
    keys = jax.random.split(jax.random.fold_in(key, zlib.crc32(name.encode())), w.shape[:batch_dims])
    for _ in range(batch_dims):
        make = jax.vmap(make)
    parent = name.rpartition("/")[0]
    for entry, value in make(w, keys).items():
        params = put(params, f"{parent}/{entry}", _stacked(value, batch_dims))
    return params


def _stacked(value: Any, batch_dims: int) -> Any:
    """qwix notes at a weight which axes have scales of their own: batch axes do, and shift the others."""
    if not (batch_dims and hasattr(value, "how")):
        return value
    channels = (*range(batch_dims), *(a + batch_dims for a in value.how.channelwise_axes))
    tiled = {a + batch_dims: size for a, size in value.how.tiled_axes.items()}
    return value.replace(how=dataclasses.replace(value.how, channelwise_axes=channels, tiled_axes=tiled))
