"""Rematerialisation: what the backward pass of a layer reads again, and what it computes anew.

Values of a layer have names, by which a policy keeps them or moves them to the host's memory."""

from collections.abc import Callable
from typing import Any

import jax
from jax.ad_checkpoint import checkpoint_name

from lm.core.errors import UserError, nearest

PRODUCT = "product"  # with a weight, of a function with a gradient of its own, into which policies do not see
REMAT = ("none", "full", "dots", "names", "offload")

# B rows, S tokens, D model width, H heads, K of keys and values, T keys, d head width, F feed-forward width
NAMES = {
    "layer_input": "the residual stream before a layer (a repeat of a layer group), [B, S, D]",
    "queries": "as the attention kernel reads them, [B, H, S, d]",
    "keys": "likewise, [B, K, T, d]",
    "values": "likewise, [B, K, T, d]",
    "heads": "what attention heads give, [B, H, S, d]",
    "hidden": "products of a feed-forward layer that its activation reads, [B, S, F], two where it is gated",
    "sublayer": "what a sub-layer adds to the residual stream, [B, S, D]",
}


def named(x: Any, name: str) -> Any:
    """x, a tree of arrays, under one of `NAMES`."""
    assert name in NAMES, name
    return jax.tree.map(lambda leaf: checkpoint_name(leaf, name), x)


def rematerialised(f: Callable, remat: str, names: tuple[str, ...] = (), in_loop: bool = True) -> Callable:
    """`f`, of which the backward pass keeps what `remat` says:

        none      everything that it reads
        full      the arguments
        dots      the arguments and the products with weights
        names     the arguments and the values of these names
        offload   likewise, but those of these names wait in the host's memory (on a CPU that is the same memory)

    `in_loop`: f is the body of a loop, of which XLA sees one iteration: it cannot merge what is computed anew with the
    original."""
    if remat == "none":
        return f
    policies = jax.checkpoint_policies
    match remat:
        case "full":
            policy = policies.nothing_saveable
        case "dots":
            policy = policies.save_from_both_policies(
                policies.dots_with_no_batch_dims_saveable, policies.save_only_these_names(PRODUCT)
            )
        case "names":
            policy = policies.save_only_these_names(*names)
        case "offload":
            policy = policies.save_and_offload_only_these_names(
                names_which_can_be_saved=[],
                names_which_can_be_offloaded=list(names),
                offload_src="device",
                offload_dst="pinned_host",
            )
        case _:
            raise UserError(f"remat={remat!r} is no policy{nearest(remat, REMAT)}")
    return jax.checkpoint(f, policy=policy, prevent_cse=not in_loop)


def check_names(remat: str, names: tuple[str, ...], where: str) -> None:
    """Raise `UserError` for names that are none, and where a policy takes none or needs some."""
    for name in names:
        if name not in NAMES:
            raise UserError(f"{where}: no value of a layer is called {name!r}{nearest(name, NAMES)}")
    if names and remat not in ("names", "offload"):
        raise UserError(
            f"{where}={names!r} says what to keep, which remat={remat!r} does not ask: take names or offload"
        )
    if remat in ("names", "offload") and not names:
        raise UserError(f"remat={remat!r} keeps nothing but what {where} lists: add some of {', '.join(NAMES)}")
