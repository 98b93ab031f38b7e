"""The router that learns nothing: a fixed random map of tokens to experts.

Shapes: B batch, S tokens of a row, E experts, k choices per token.
"""

import dataclasses

import jax
import jax.numpy as jnp

from lm.core.component import component
from lm.core.ctx import Ctx
from lm.core.errors import UserError
from lm.core.param import Tree
from lm.core.ranges import Count
from lm.model.moe.routers import Router, Routing, check_choices
from lm.model.moe.stats import RouterStats

Array = jax.Array


@component
class Hash(Router):
    """Each token id has `k` random experts, always the same, of weight 1 (hash layers, Roller et al. 2021, arXiv
    2106.04426; their multi-hash has k > 1 and experts of a k-th of the width). It has no parameters, and its balance
    losses no gradient: how even loads are is up to the text. Each layer of a stack has a map of its own.

    With several domains, experts are in as many groups, a group's next to each other, and a token goes to one of those
    of its row's domain, chosen by the same map whatever the group (random routed experts: PanGu-Sigma, Ren et al. 2023,
    2303.10845). The domain is the row `source`; where a batch has none, it is 0.

    k: choices per token
    domains: groups of experts
    seed: of the map"""

    k: Count = 1
    domains: Count = 1
    seed: int = 0

    def spec(self, d: int, experts: int) -> Tree:
        if experts % self.domains:
            raise UserError(f"router.domains={self.domains} does not divide experts={experts}: choose a divisor")
        check_choices(self.k, experts // self.domains)
        return {}

    def __call__(self, p: Tree, x: Array, valid: Array, experts: int, ctx: Ctx) -> Routing:
        of_each = experts // self.domains
        domain = jnp.minimum(ctx.rows.get("source", jnp.zeros(len(x), jnp.int32)), self.domains - 1)
        picks = domain[:, None, None] * of_each + self.map(ctx.rows["tokens"], ctx.layer, of_each)
        served = jnp.broadcast_to(valid[..., None], picks.shape)
        probs = jax.nn.one_hot(picks, experts).mean(axis=2)
        return Routing(jnp.ones(picks.shape), picks, served, RouterStats.of(picks, served, probs, None))

    def among(self, experts: tuple[int, ...], number: int) -> "Hash":
        """That of a domain's own model, as the map is that of all domains."""
        of_each = number // self.domains
        if experts not in [tuple(range(i, i + of_each)) for i in range(0, number, of_each)]:
            raise UserError(f"Hash needs all {of_each} experts of a domain, in their order: keep those of one")
        return dataclasses.replace(self, domains=1)

    def kept(self, p: Tree, experts: tuple[int, ...]) -> Tree:
        return p

    def map(self, ids: Array, layer: Array | int, number: int) -> Array:
        """Token ids [...] -> their choices among so many experts [..., k], in that layer."""
        of_layer = _mixed(_mixed(jnp.uint32(self.seed)) + jnp.asarray(layer, jnp.uint32))
        of_choice = _mixed(of_layer + jnp.arange(self.k, dtype=jnp.uint32))
        return (_mixed(_mixed(ids[..., None].astype(jnp.uint32)) ^ of_choice) % number).astype(jnp.int32)


def _mixed(x: Array) -> Array:
    """uint32 to uint32, one to one, in no visible order: MurmurHash3's finaliser (Appleby 2008). Not one of JAX's
    generators, whose bits may change between versions, while a trained model depends on its map."""
    x = (x ^ (x >> 16)) * jnp.uint32(0x85EBCA6B)
    x = (x ^ (x >> 13)) * jnp.uint32(0xC2B2AE35)
    return x ^ (x >> 16)
