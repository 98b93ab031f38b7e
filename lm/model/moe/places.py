"""Where the choices of tokens stand while experts work on them: tokens are copied to the places of their choices, and
what experts make of them is summed up where it came from.

Both are gathers, and so are their gradients: each copies the other way (a scatter, which is how XLA would turn a gather
round, costs a CPU several times as much).

Shapes: T tokens, k choices of each, P places, E experts, D model width; R routing groups, M choices of a group."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

Array = jax.Array


class Places(NamedTuple):
    """A choice has one place at most and a place one choice at most."""

    choices: Array  # [P] int32: the choice that stands there, token * k + which; T k: nothing does
    places: Array  # [T, k] int32: where a choice stands; P: nowhere

    @classmethod
    def of(cls, places: Array, number: int) -> "Places":
        """Where each choice stands, [T, k], among so many places; `number` itself: nowhere."""
        choices = jnp.full(number, places.size).at[places.reshape(-1)].set(jnp.arange(places.size), mode="drop")
        return cls(choices, places)


def spread(x: Array, at: Places) -> Array:
    """Tokens x [T, D] at the places of their choices, [P, D]; zeros where nothing stands."""
    return _spread(x, at)


def combine(y: Array, weights: Array, at: Places) -> Array:
    """What stands at places, y [P, D], as a sum over the choices of each token, with weights [T, k] float32 -> [T, D];
    zero for choices that stand nowhere. Sums are in float32."""
    return _combine(y, weights, at)


@jax.custom_vjp
def _spread(x: Array, at: Places) -> Array:
    return _rows(x, at.choices // at.places.shape[1])


def _spread_forward(x: Array, at: Places) -> tuple[Array, Places]:
    return _spread(x, at), at


def _spread_backward(at: Places, d: Array) -> tuple[Array, None]:
    parts = (_rows(d, places) for places in at.places.T)
    return sum(parts, jnp.zeros((), jnp.float32)).astype(d.dtype), None


_spread.defvjp(_spread_forward, _spread_backward)


@jax.custom_vjp
def _combine(y: Array, weights: Array, at: Places) -> Array:
    parts = (weight[:, None] * _rows(y, places) for weight, places in zip(weights.T, at.places.T, strict=True))
    return sum(parts, jnp.zeros((), jnp.float32)).astype(y.dtype)


def _combine_forward(y: Array, weights: Array, at: Places) -> tuple[Array, tuple]:
    return _combine(y, weights, at), (y, weights, at)


def _combine_backward(saved: tuple, d: Array) -> tuple[Array, Array, None]:
    y, weights, at = saved
    d_y = _rows(weights.reshape(-1), at.choices)[:, None] * _rows(d, at.choices // weights.shape[1])
    d_weights = [jnp.sum(_rows(y, places) * d.astype(jnp.float32), axis=1) for places in at.places.T]
    return d_y.astype(y.dtype), jnp.stack(d_weights, axis=1), None


_combine.defvjp(_combine_forward, _combine_backward)


def _rows(x: Array, index: Array) -> Array:
    """Rows of x, zeros for indices past its end."""
    return x.at[index].get(mode="fill", fill_value=0)


class Queues(NamedTuple):
    """The choices of each routing group, queued up for their experts: those for the first expert, then those for the
    second, and so on, and last those that are not valid."""

    ranks: Array  # [R, N, k] int32: where a choice stands among all of its group
    sizes: Array  # [R, E] int32: choices for each expert


def queues(experts: Array, valid: Array, number: int) -> Queues:
    """For each expert of a group its choices: first ones of tokens before second ones, earlier tokens before later
    ones. experts: [R, N, k], of which `number`, E, exist; valid: bool [R, N, k]."""
    r, n, k = experts.shape
    expert = jnp.where(valid, experts, number).swapaxes(1, 2).reshape(r, k * n)
    index = jnp.broadcast_to(jnp.arange(k * n), expert.shape)
    expert, order = jax.lax.sort((expert, index), num_keys=1, is_stable=True)
    ends = jax.vmap(lambda row: jnp.searchsorted(row, jnp.arange(1, number + 1)))(expert)
    ranks = jnp.zeros_like(order).at[jnp.arange(r)[:, None], order].set(index, unique_indices=True)
    return Queues(ranks.reshape(r, k, n).swapaxes(1, 2), jnp.diff(ends, axis=1, prepend=0))
