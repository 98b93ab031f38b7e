"""What lies in the slots of experts where the router itself fills them, instead of choosing experts for each token.

Shapes: B batch, S tokens of a row, D model width, E experts; C slots of an expert for a row; R routing groups of a row,
N tokens and P slots of an expert in a group.
"""

import abc
import dataclasses

import jax
import jax.numpy as jnp

from lm.model.moe.stats import RouterStats

Array = jax.Array


class Slots(abc.ABC):
    """How slots are made of a row's tokens, and tokens of what experts make of the slots."""

    @abc.abstractmethod
    def gather(self, x: Array) -> Array:
        """Tokens x [B, S, D] -> what lies in the slots, [E, B, C, D]."""

    @abc.abstractmethod
    def combine(self, y: Array, length: int) -> Array:
        """What experts made of the slots, y [E, B, C, D] -> that of the tokens, [B, S, D], S being `length`."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Picks(Slots):
    """A token in each slot."""

    tokens: Array  # [B, E, C] int32: its index in the row
    weights: Array  # [B, E, C] float32: of the slot in the token's sum; 0 where it is not used

    def gather(self, x: Array) -> Array:
        rows = jax.vmap(lambda row, at: row[at])(x, self.tokens)
        return jnp.swapaxes(jnp.where(self.weights[..., None] > 0, rows, 0), 0, 1)

    def combine(self, y: Array, length: int) -> Array:
        y = jnp.swapaxes(y, 0, 1) * self.weights[..., None].astype(y.dtype)
        return jax.vmap(lambda row, at: jnp.zeros((length, y.shape[-1]), y.dtype).at[at].add(row))(y, self.tokens)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Blend(Slots):
    """A mixture of a group's tokens in each slot, and of slots for each token. C = R P."""

    into: Array  # [B, R, N, E, P] weights of tokens in slots
    back: Array  # [B, R, N, E, P] weights of slots in tokens

    def gather(self, x: Array) -> Array:
        slots = jnp.einsum("brnd,brnep->ebrpd", in_groups(x, self.into.shape[2]), self.into.astype(x.dtype))
        return slots.reshape(*slots.shape[:2], -1, slots.shape[-1])

    def combine(self, y: Array, length: int) -> Array:
        y = y.reshape(*y.shape[:2], self.back.shape[1], -1, y.shape[-1])
        tokens = jnp.einsum("ebrpd,brnep->brnd", y, self.back.astype(y.dtype))
        return tokens.reshape(len(tokens), -1, y.shape[-1])[:, :length]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class SlotRouting:
    """How a router that fills slots does that for a batch."""

    slots: Slots
    stats: RouterStats
    logits: Array | None = None  # [B, S, E], of routers that have one for each expert


def in_groups(x: Array, tokens: int) -> Array:
    """x [B, S, ...] in groups of so many tokens, the last one filled up with zeros: [B, R, N, ...]."""
    pad = -x.shape[1] % tokens
    return jnp.pad(x, ((0, 0), (0, pad)) + ((0, 0),) * (x.ndim - 2)).reshape(len(x), -1, tokens, *x.shape[2:])
