"""For optimizers that work on whole tensors: a stack of layers is as many tensors as it has layers."""

from collections.abc import Callable

import jax
import optax

from lm.core.param import Tree, flatten

Array = jax.Array


def stacked(transform: optax.GradientTransformation, spec: Tree) -> optax.GradientTransformation:
    """`transform` applied to each layer's and expert's tensor by itself: vmapped over the axes that the spec calls
    `layers` and `expert`, never by ndim. Tensors that share those axes' sizes are mapped together."""
    batch = {path: p.shape[: p.batch_dims] for path, p in flatten(spec)}

    def grouped(tree: Tree) -> dict[str, dict[str, Array]]:
        groups: dict[str, dict[str, Array]] = {}
        for path, leaf in flatten(tree):
            groups.setdefault("x".join(map(str, batch[path])) or "single", {})[path] = leaf
        return groups

    def mapped(function: Callable, group: str) -> Callable:
        for _ in () if group == "single" else group.split("x"):
            function = jax.vmap(function)
        return function

    def init(params: Tree) -> Tree:
        return {g: mapped(transform.init, g)(leaves) for g, leaves in grouped(params).items()}

    def update(updates: Tree, state: Tree, params: Tree | None = None) -> tuple[Tree, Tree]:
        own, new = grouped(params), {}
        done: dict[str, Array] = {}
        for g, leaves in grouped(updates).items():
            result, new[g] = mapped(transform.update, g)(leaves, state[g], own[g])
            done |= result
        return jax.tree.unflatten(jax.tree.structure(updates), [done[path] for path, _ in flatten(updates)]), new

    return optax.GradientTransformation(init, update)
