"""FLOPs, counted from the jaxpr: two per multiply-add of every matmul and convolution, times loop trip counts.

One count serves MFU, zoo, scaling and tpu. It covers what a program computes, heads and attention included; causal
attention is not halved (`training_flops` counts the plain kernel), and recomputation is left out."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core as jex

from lm.core.ctx import Ctx, Execution
from lm.core.ownership import walk
from lm.core.param import abstract, count, flatten
from lm.core.transform import Transform
from lm.model.moe.layer import MoE
from lm.model.program import Program
from lm.model.special.head_experts import HeadExperts
from lm.model.transformer import Group, Model

CONVENTION = "matmuls of the forward pass x 3, attention not halved"


def flops(function: Callable, *args: Any) -> int:
    """FLOPs of one call; arguments may be abstract (`jax.ShapeDtypeStruct`)."""
    return _count(jax.make_jaxpr(function)(*args).jaxpr)


def _count(jaxpr: Any) -> int:
    total = 0
    for eqn in jaxpr.eqns:
        name, params = eqn.primitive.name, eqn.params
        if name == "dot_general":
            (lhs_contract, _), _ = params["dimension_numbers"]
            contracted = math.prod(eqn.invars[0].aval.shape[i] for i in lhs_contract)
            total += 2 * contracted * math.prod(eqn.outvars[0].aval.shape)
        elif name == "ragged_dot_general":
            total += _ragged(eqn)
        elif name == "conv_general_dilated":
            kernel = eqn.invars[1].aval.shape
            out_feature = params["dimension_numbers"].rhs_spec[0]
            total += 2 * math.prod(eqn.outvars[0].aval.shape) * math.prod(kernel) // kernel[out_feature]
        elif name == "cond":
            total += max(_count(branch.jaxpr) for branch in params["branches"])
        else:
            trips = params["length"] if name == "scan" else 1
            total += trips * sum(_count(inner) for inner in _inner(params))
    return total


def _ragged(eqn: Any) -> int:
    """Rows by groups, each with a matrix of its own: every row counts once, however many groups there are."""
    dims = eqn.params["ragged_dot_dimension_numbers"]
    (lhs_contract, _), _ = dims.dot_dimension_numbers
    lhs, out = eqn.invars[0].aval.shape, eqn.outvars[0].aval.shape
    groups = out[0] if set(dims.lhs_ragged_dimensions) <= set(lhs_contract) else 1  # a gradient by matrix: one each
    return 2 * math.prod(lhs[i] for i in lhs_contract) * math.prod(out) // groups


def largest(function: Callable, *args: Any) -> int:
    """Bytes of the largest array that one call makes, before anything is fused; arguments may be abstract."""
    return _largest(jax.make_jaxpr(function)(*args).jaxpr)


def _largest(jaxpr: Any) -> int:
    most = 0
    for eqn in jaxpr.eqns:
        sizes = (math.prod(v.aval.shape) * v.aval.dtype.itemsize for v in eqn.outvars if hasattr(v.aval, "dtype"))
        most = max([most, *sizes, *map(_largest, _inner(eqn.params))])
    return most


def _inner(params: dict) -> list:
    """The jaxprs among an equation's parameters."""
    found = []
    for value in params.values():
        for v in value if isinstance(value, (tuple, list)) else (value,):
            if isinstance(v, jex.ClosedJaxpr):
                found.append(v.jaxpr)
            elif isinstance(v, jex.Jaxpr):
                found.append(v)
    return found


def active_parameters(model: Model) -> int:
    """Parameters that one token passes through, all tables included, buffers excluded: of experts those that its router
    chooses."""
    spec = model.spec()
    idle = 0
    for visit in walk(model, spec):
        if isinstance(moe := visit.component, (MoE, HeadExperts)):
            idle += count(visit.spec["experts"]) // moe.experts * round(moe.experts - min(moe.router.k, moe.experts))
    return count(spec) - idle


def forward_flops(model: Model, length: int, encoder_length: int = 0, transforms: tuple[Transform, ...] = ()) -> int:
    """FLOPs of the forward pass, head included, over one row of `length` tokens; of a group, of all its parts."""

    def forward(params: Any, batch: dict) -> list:
        ctx = Ctx(execution=Execution(attention="reference", grouped_matmul="ragged_dot"))
        own = model.resolve(params) if isinstance(model, Group) else {"": params}
        parts = model.parts if isinstance(model, Group) else (("", model),)
        return [part(own[name], batch, ctx) for name, part in parts]

    batch = {"tokens": jax.ShapeDtypeStruct((1, length), jnp.int32)}
    if encoder_length:
        batch["encoder/tokens"] = jax.ShapeDtypeStruct((1, encoder_length), jnp.int32)
    return flops(forward, abstract(Program(model, transforms).spec()), batch)


def training_flops(model: Model, length: int, encoder_length: int = 0, transforms: tuple[Transform, ...] = ()) -> int:
    """FLOPs of one training row: the backward pass costs twice the forward one, once for the gradient of what is
    multiplied and once for that of the weights. Where transforms freeze weights, only what they add has the latter."""
    forward = forward_flops(model, length, encoder_length, transforms)
    program = Program(model, transforms)
    if all(program.trainable(path, p) for path, p in flatten(program.spec())):
        return 3 * forward
    return 3 * forward - forward_flops(model, length, encoder_length)
