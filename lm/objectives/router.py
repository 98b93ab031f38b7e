"""Losses made of the statistics that mixture-of-experts routers leave in a model's `aux`."""

from typing import Any

import jax
import jax.numpy as jnp

Array = jax.Array


def router_stats(aux: Any) -> list[dict[str, Array]]:
    """Every `router` record in out, each with axes [layers, B, ...]."""
    if not isinstance(aux, dict):
        return []
    return [s for k, v in aux.items() for s in ([v] if k == "router" else router_stats(v))]


def balance_and_z(aux: Any) -> tuple[Array, Array]:
    """Switch's load-balance loss and the router z-loss, both summed over rows (weighted by the row's tokens) and
    averaged over routed layers; divide by the batch's tokens.

    Balance is E * sum_e f_e P_e per row, f_e the share of choices, P_e the mean probability (Fedus et al. 2021, arXiv
    2101.03961, eq. 4); 1 when even. z is mean logsumexp(logits)^2 (ST-MoE, Zoph et al. 2022, arXiv 2202.08906)."""
    balance, z, layers = jnp.zeros(()), jnp.zeros(()), 0
    for stats in router_stats(aux):
        share = stats["load"] / jnp.maximum(stats["load"].sum(-1, keepdims=True), 1)
        mean = stats["prob"] / jnp.maximum(stats["tokens"][..., None], 1)
        experts = stats["load"].shape[-1]
        balance += jnp.sum(experts * jnp.sum(share * mean, axis=-1) * stats["tokens"])
        z += jnp.sum(stats["z"])
        layers += stats["tokens"].shape[0]
    return balance / max(layers, 1), z / max(layers, 1)


def load_metrics(aux: Any) -> dict[str, Array]:
    """Sums for logging: `router_dropped` choices, `router_choices`, and `router_peak` (the busiest expert's load over
    an even one, averaged over layers, times choices)."""
    found = router_stats(aux)
    if not found:
        return {}
    sums = [
        {
            "router_dropped": s["dropped"].sum(),
            "router_choices": s["load"].sum(),
            "router_peak": (s["load"].sum(1).max(-1) * s["load"].shape[-1]).sum(),
        }
        for s in found
    ]
    return jax.tree.map(lambda *x: sum(x[1:], x[0]), *sums)
