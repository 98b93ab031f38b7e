"""Context parallelism: attention among the tokens of a row that lie on several devices.

Three ways to compute it (`Execution.context`), which give the same: keys and values go round a ring of devices; heads
are exchanged for tokens, so that each device has all tokens of some heads; or each device gathers the keys and values
of all tokens. These lie along the mesh axes to which rules map `seq`, as far as `heads` have not taken them.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from jax.tree_util import Partial

from lm.core.ctx import Ctx, constrain
from lm.core.errors import UserError, nearest
from lm.core.mesh import Sharding, mesh_around
from lm.core.rows import Tokens
from lm.core.rules import as_axes, with_own
from lm.kernels.attention import ring
from lm.kernels.attention.spec import AttentionSpec, Bias, Own
from lm.kernels.choice import say_once

Array = jax.Array
AUTO = "auto"


class AttentionCall(NamedTuple):
    """All arguments of an attention, of whole rows."""

    q: Array  # [B, H, S, d]
    k: Array  # [B, K, T, d]
    v: Array  # [B, K, T, w]
    spec: AttentionSpec
    q_tokens: Tokens
    k_tokens: Tokens
    bias: Bias | None = None
    sinks: Array | None = None
    own: Own | None = None


Local = Callable[[AttentionCall, Ctx], Array]  # by a kernel that knows of no context axis


class Way(NamedTuple):
    """attend: (attention, ctx, local) -> [B, H, S, w]; supports: None, or what stands against it."""

    attend: Callable[[AttentionCall, Ctx, Local], Array]
    supports: Callable[[AttentionCall, Ctx], str | None]


def axes_of(sharding: Sharding) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The mesh axes that cut the heads of queries, and those that cut their tokens."""
    _, heads, tokens, _ = sharding.spec(("batch", "heads", "seq", None))
    return as_axes(heads), as_axes(tokens)


def ways_of(ctx: Ctx) -> int:
    """Over how many devices the tokens of a row are spread."""
    return 1 if ctx.sharding is None else _size(ctx.sharding, axes_of(ctx.sharding)[1])


def _size(sharding: Sharding, axes: tuple[str, ...]) -> int:
    return math.prod(sharding.mesh.shape[axis] for axis in axes)


def attend_over_context(a: AttentionCall, ctx: Ctx, local: Local) -> Array:
    """`local(a, ctx)`, in the way that execution names, or the best one, if tokens lie on several devices.

    Raises `UserError` where the named way cannot do it."""
    if ways_of(ctx) == 1:
        return local(a, ctx)
    name = ctx.execution.context
    if name != AUTO:
        if name not in WAYS:
            raise UserError(f"context={name!r} is no way to attend{nearest(name, (*WAYS, AUTO))}")
        if reason := WAYS[name].supports(a, ctx):
            raise UserError(
                f"context={name!r} cannot run a layer of this model ({reason}): leave it at {AUTO!r}, and each layer "
                "gets the best way for it"
            )
        return WAYS[name].attend(a, ctx, local)
    reasons = {name: way.supports(a, ctx) for name, way in WAYS.items()}
    best = next(name for name, reason in reasons.items() if reason is None)
    if best == "gather" and a.q.shape[2] > 1:  # of a single token, in generation, there is nothing else to do
        missed = "; ".join(f"{name}: {reason}" for name, reason in reasons.items() if reason)
        say_once(f"attention: every device gathers the keys and values of whole rows ({missed})")
    return WAYS[best].attend(a, ctx, local)


# ---------------------------------------------------------------------------------------------------------------------
# Keys and values go round.


def _ring_supports(a: AttentionCall, ctx: Ctx) -> str | None:
    n = ways_of(ctx)
    if reason := ring.supports(a.spec):
        return reason
    if a.bias is not None and not isinstance(a.bias, Partial):
        return "a bias is no jax.tree_util.Partial, whose arrays could be sent"
    for what, x in (("queries", a.q), ("keys", a.k)):
        if x.shape[2] % n:
            return f"{x.shape[2]} {what} do not spread evenly over {n} devices"
    return None


def _ring(a: AttentionCall, ctx: Ctx, local: Local) -> Array:
    assert ctx.sharding is not None
    (_, axes), n = axes_of(ctx.sharding), ways_of(ctx)
    run = ring.Ring(a.spec, axes, n, ctx.zigzag and a.spec.aligned, block=ring.BLOCK)
    by_token, by_row, whole = PartitionSpec(None, None, axes), PartitionSpec(None, axes), PartitionSpec()
    return jax.shard_map(
        run,
        mesh=mesh_around(ctx.sharding.mesh),
        in_specs=(by_token, by_token, by_token, by_row, by_row, whole, whole),
        out_specs=by_token,
        axis_names=set(axes),  # rows and heads lie as ever, by the rules
        check_vma=False,
    )(a.q, a.k, a.v, a.q_tokens, a.k_tokens, a.sinks, a.bias)


# ---------------------------------------------------------------------------------------------------------------------
# Heads for tokens, and back (DeepSpeed-Ulysses, Jacobs et al. 2023, arXiv 2309.14509).


def _by_head(sharding: Sharding) -> Sharding:
    """Where heads lie along the axes of the tokens too, and tokens nowhere."""
    heads, tokens = axes_of(sharding)
    own = (("heads", heads + tokens), ("kv_heads", heads + tokens), ("seq", None))
    return dataclasses.replace(sharding, rules=with_own(own, sharding.rules))


def _ulysses_supports(a: AttentionCall, ctx: Ctx) -> str | None:
    assert ctx.sharding is not None
    heads, parts = a.q.shape[1], _size(ctx.sharding, sum(axes_of(ctx.sharding), ()))
    return f"{heads} heads do not spread evenly over {parts} devices" if heads % parts else None


def _ulysses(a: AttentionCall, ctx: Ctx, local: Local) -> Array:
    """Two layouts and what XLA makes of the way from one to the other: an all-to-all."""
    assert ctx.sharding is not None
    inside = ctx.replace(sharding=_by_head(ctx.sharding))
    parts = _size(ctx.sharding, sum(axes_of(ctx.sharding), ()))

    def spread(x: Array, copies: int = 1) -> Array:
        if copies > 1:  # before they are sent: XLA would send all heads to all devices, and repeat those there
            x = constrain(jnp.repeat(x, copies, axis=1), ctx, "batch", "heads", "seq", None)
        return constrain(x, inside, "batch", "heads", "seq", None)

    copies = parts // math.gcd(a.k.shape[1], parts)  # where there are fewer than devices, several have the same
    q, k, v = spread(a.q), spread(a.k, copies), spread(a.v, copies)
    return constrain(local(a._replace(q=q, k=k, v=v), inside), inside, "batch", "heads", "seq", None)


# ---------------------------------------------------------------------------------------------------------------------
# Keys and values of all tokens on each device.


def _gather(a: AttentionCall, ctx: Ctx, local: Local) -> Array:
    return local(a, ctx)


# The best first: where execution names none, the first that supports an attention runs it.
WAYS: dict[str, Way] = {
    "ring": Way(_ring, _ring_supports),
    "ulysses": Way(_ulysses, _ulysses_supports),
    "gather": Way(_gather, lambda a, ctx: None),
}
