"""What routers did, as sums from which losses and metrics are computed.

Shapes: L layers, B batch, S tokens of a row, E experts, G groups of them, k choices per token.
"""

import dataclasses
from collections.abc import Hashable, Iterable, Sequence

import jax
import jax.numpy as jnp

from lm.core.metrics import AuxRecord, Each, Entropy, Mean, Metrics

Array = jax.Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class RouterStats(AuxRecord):
    """What a router did, by row of the batch; float32, of a stack with a leading axis for its layers. Sums over a row's
    tokens, so that rows add up under any microbatching.

    A router with losses or metrics of its own returns a subclass (a registered dataclass as well)."""

    load: Array  # [B, E] choices, before any was dropped
    prob: Array  # [B, E] probabilities
    z: Array  # [B] squared logsumexp of the logits
    dropped: Array  # [B] choices that were not served: zero from the router, filled in once they are dispatched
    tokens: Array  # [B]
    entropy: Array  # [B] of each token's probabilities, nats
    first: Array  # [B, E] first choices
    scored: Array | None = None  # [B, E] the k highest scores, where biases or groups choose otherwise
    sent: Array | None = None  # [B, G] tokens with a choice in a group, over the groups that a token may choose from

    @classmethod
    def of(
        cls, experts: Array, served: Array, probs: Array, logits: Array | None, **more: Array | None
    ) -> "RouterStats":
        """Those of these choices [B, S, k], of which `served` says which count: none of padding. probs and logits
        [B, S, E], None of a router without; `more`: optional fields."""
        return cls.counted(chosen(experts, served, probs.shape[-1]), served.any(axis=-1), probs, logits, **more)

    @classmethod
    def counted(
        cls, choices: Array, valid: Array, probs: Array, logits: Array | None, **more: Array | None
    ) -> "RouterStats":
        """Those of choices that are counted already: [B, n, E], the first of n of first choices. valid [B, S]: the
        tokens that count; probs [B, S, E]; logits [B, S, any number]."""
        real = valid.astype(jnp.float32)
        log_z = jnp.zeros(valid.shape) if logits is None else jax.nn.logsumexp(logits, axis=-1)
        return cls(
            load=choices.sum(axis=1),
            prob=(probs * real[..., None]).sum(axis=1),
            z=(jnp.square(log_z) * real).sum(axis=1),
            dropped=jnp.zeros(len(valid)),
            tokens=real.sum(axis=1),
            entropy=(jax.scipy.special.entr(probs).sum(axis=-1) * real).sum(axis=1),
            first=choices[:, 0],
            **more,
        )

    def losses(self) -> dict[str, Mean]:
        """Balance losses of a row are n * sum_i f_i P_i over n experts or groups, f_i the share of choices and P_i the
        mean probability: 1 when even. Papers differ in whose shares they are, and by constant factors, which the weight
        of a loss takes up.

        `balance`: of all choices (Switch, Fedus et al. 2021, arXiv 2101.03961, eq. 4; the expert-level loss of
            DeepSeekMoE, Dai et al. 2024, 2401.06066, eq. 12; DeepSeek-V2's, 2405.04434, eq. 23);
        `balance_first`: of first choices (GShard, Lepikhin et al. 2020, 2006.16668, algorithm 1, which prints it over
            E^2; GLaM, 2112.06905);
        `balance_layers`: of the choices of all layers of a tower together (Mixtral in transformers, whose loss is k
            times as large, and over all rows: `balance_of_batch`);
        `balance_scores`: of the k highest scores, whatever biases or groups chose (DeepSeek-V3's sequence-wise loss,
            2412.19437, eq. 17), from routers that have a balance bias;
        `balance_groups`: of groups of experts, as of devices (DeepSeekMoE's device-level loss, eq. 15);
        `balance_sent`: G * sum_i s_i P_i, s_i the share of tokens sent to group i, over the number of groups that a
            token is limited to (DeepSeek-V2's communication balance, eq. 29). Both from routers that have groups;
        `router_z`: mean logsumexp(logits)^2 (ST-MoE, Zoph et al. 2022, 2202.08906)."""
        layers = len(self.tokens)

        def by_layer(balance: Array) -> Mean:  # [L, B]
            return Mean(jnp.sum(balance * self.tokens), layers)

        together = _balance(self.load.sum(0), self.prob.sum(0), self.tokens.sum(0))
        losses = {
            "balance": by_layer(_balance(self.load, self.prob, self.tokens)),
            "balance_first": by_layer(_balance(self.first, self.prob, self.tokens)),
            "balance_layers": Mean(jnp.sum(together * self.tokens.mean(0)), 1),
            "router_z": Mean(jnp.sum(self.z), layers),
        }
        if self.scored is not None:
            losses["balance_scores"] = by_layer(_balance(self.scored, self.prob, self.tokens))
        if self.sent is not None:
            groups = self.sent.shape[-1]
            load, prob = (x.reshape(*x.shape[:-1], groups, -1).sum(-1) for x in (self.load, self.prob))
            losses["balance_groups"] = by_layer(_balance(load, prob, self.tokens))
            every = jnp.square(jnp.maximum(self.tokens, 1))
            losses["balance_sent"] = by_layer(groups * jnp.sum(self.sent * prob, axis=-1) / every)
        return losses

    @property
    def asked(self) -> Array:
        """[..., B]: what `dropped` is part of."""
        return self.load.sum(-1)

    def metrics(self) -> Metrics:
        """`router_dropped`: share of the choices; `router_peak`: the busiest expert's load over an even one, averaged
        over layers."""
        peak = (self.load.sum(1).max(-1) * self.load.shape[-1]).sum()
        return {
            "router_dropped": Mean(self.dropped.sum(), self.asked.sum()),
            "router_peak": Mean(peak, self.load.sum()),
        }

    def by_layer(self) -> Metrics:
        """`router_load`: of each expert over an even one; `router_dropped`: share of the choices; `router_entropy`: of
        a token's probabilities, on average, and `router_spread`: of the mean of all tokens' probabilities, nats, which
        is log E where the router uses all experts alike."""
        choices = self.load.sum((1, 2))
        return {
            "router_load": Each(self.load.sum(1) * self.load.shape[-1], choices[:, None]),
            "router_dropped": Each(self.dropped.sum(1), self.asked.sum(1)),
            "router_entropy": Each(self.entropy.sum(1), self.tokens.sum(1)),
            "router_spread": Entropy(self.prob.sum(1)),
        }

    @property
    def alike(self) -> Hashable:
        shapes = tuple((name, None if x is None else x.shape[1:]) for name, x in vars(self).items())
        return type(self), shapes

    @classmethod
    def joined(cls, records: Sequence["RouterStats"]) -> "RouterStats":
        return jax.tree.map(lambda *x: jnp.concatenate(x), *records)


def balance_of_batch(stats: Sequence[RouterStats]) -> Array:
    """The balance loss over the tokens of all rows and layers together, as transformers computes it: E * sum_e c_e P_e,
    P_e the mean probability of expert e, c_e how often per token it is among the k highest scores (whatever biases make
    of that); k where all are even. For all records of a model at once: unlike `RouterStats.losses` it is no sum over
    rows."""

    def total(values: Iterable[Array]) -> Array:
        return sum((jnp.sum(x, axis=(0, 1)) for x in values), jnp.zeros(()))

    counts = total(s.load if s.scored is None else s.scored for s in stats)
    prob, tokens = total(s.prob for s in stats), total(s.tokens for s in stats)
    return jnp.size(prob) * jnp.sum(counts * prob) / jnp.square(tokens)


def chosen(experts: Array, served: Array, number: int) -> Array:
    """How often each of so many experts is chosen by row: experts, bool served [B, S, k] -> float32 [B, k, E]."""
    return (jax.nn.one_hot(experts, number, dtype=jnp.float32) * served[..., None]).sum(axis=1)


def _balance(counts: Array, prob: Array, tokens: Array) -> Array:
    """counts and sums of probabilities [..., n] of so many tokens [...] -> n * sum_i f_i P_i [...]."""
    share = counts / jnp.maximum(counts.sum(-1, keepdims=True), 1)
    return counts.shape[-1] * jnp.sum(share * prob, axis=-1) / jnp.maximum(tokens, 1)
