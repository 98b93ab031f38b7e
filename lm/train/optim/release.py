"""Freezing by step: parameters that do not move until a step of the run, such as layers that are unfrozen one after the
other (ULMFiT, Howard and Ruder 2018, arXiv 1801.06146, section 3.3)."""

import dataclasses
import re
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lm.core.errors import UserError
from lm.core.param import Param, Tree, flatten, map_paths
from lm.train.optim.optimizer import Steps

Array = jax.Array


@dataclasses.dataclass(frozen=True)
class Release:
    """Which parameters train from which step on. Each group of equal steps has an optimizer state of its own, whose
    count begins when it is released: Adam corrects its bias as of a new run."""

    at: Tree  # int array by parameter, None for what does not train: [], or [layers] of a stack whose layers differ
    spec: Tree

    @classmethod
    def of(cls, rules: Sequence[tuple[str, Steps]], spec: Tree) -> "Release | None":
        """For what trains by `spec`; None without rules, (pattern, steps), of which the first match counts. Raises
        `UserError`."""
        if not rules:
            return None
        compiled = _checked(rules, [path for path, _ in flatten(spec)])

        def one(path: str, p: Param) -> np.ndarray:
            steps = np.array(next((steps for pattern, steps in compiled if pattern.search(path)), 0), np.int32)
            layers = p.shape[0] if p.axes[:1] == ("layers",) else None
            if steps.ndim and steps.shape != (layers,):
                have = "is no stack of layers" if layers is None else f"is a stack of {layers} layers"
                raise UserError(
                    f"config.optimizer.frozen_until: {path} {have}, and the rule has {len(steps)} steps: give one "
                    "step, or one for each layer"
                )
            return steps

        return cls(map_paths(one, spec), spec)

    @property
    def steps(self) -> list[int]:
        """The steps at which some are released, in order."""
        return sorted({int(step) for _, at in flatten(self.at) for step in np.ravel(at)})

    def moves(self, step: Array) -> Tree:
        """bool by parameter, to be multiplied with it: whether it trains at `step`, counted from 0."""

        def one(p: Param, at: np.ndarray) -> Array:
            return (step >= at).reshape(at.shape + (1,) * (len(p.shape) - at.ndim))

        return jax.tree.map(one, self.spec, self.at)

    def group(self, tree: Tree, step: int) -> Tree:
        """The part of a tree (of arrays or of `Param`s) that is released at `step`, None for the rest."""

        def one(at: np.ndarray, x: Any) -> Any:
            if not at.ndim:
                return x if at == step else None
            layers = np.flatnonzero(at == step)
            if not len(layers):
                return None
            return dataclasses.replace(x, shape=(len(layers), *x.shape[1:])) if isinstance(x, Param) else x[layers]

        return jax.tree.map(one, self.at, tree)

    def joined(self, like: Tree, groups: dict[int, Tree]) -> Tree:
        """The inverse of `group`: a tree like `like` from the part of each step."""
        parts = {step: dict(flatten(tree)) for step, tree in groups.items()}

        def one(path: str, at: np.ndarray, x: Array) -> Array:
            if not at.ndim:
                return parts[int(at)][path]
            for step in np.unique(at):
                x = x.at[np.flatnonzero(at == step)].set(parts[int(step)][path])
            return x

        return map_paths(one, self.at, like)

    def bind(self, direction: Any, step: Array | int) -> optax.GradientTransformation:
        """The transform `direction(spec)` for each group by itself, at `step`."""

        def init(params: Tree) -> tuple:
            return tuple(direction(self.group(self.spec, s)).init(self.group(params, s)) for s in self.steps)

        def update(grads: Tree, states: tuple, params: Tree | None = None) -> tuple[Tree, tuple]:
            updates, kept = {}, []
            for s, state in zip(self.steps, states, strict=True):
                own = direction(self.group(self.spec, s))
                updates[s], new = own.update(self.group(grads, s), state, self.group(params, s))
                kept.append(jax.tree.map(lambda a, b, s=s: jnp.where(step >= s, a, b), new, state))
            return self.joined(grads, updates), tuple(kept)

        return optax.GradientTransformation(init, update)


def _checked(rules: Sequence[tuple[str, Steps]], paths: Sequence[str]) -> list[tuple[re.Pattern, Steps]]:
    made = []
    for rule in rules:
        try:
            pattern, steps = rule
            compiled = re.compile(pattern)
        except (re.error, TypeError, ValueError) as e:
            raise UserError(f"config.optimizer.frozen_until: {rule!r} is no (pattern, steps): {e}") from e
        counts = steps if isinstance(steps, tuple | list) else (steps,)
        if not counts or not all(type(n) is int and 0 <= n < 2**31 for n in counts):
            raise UserError(
                f"config.optimizer.frozen_until: {pattern!r} is frozen for {steps!r} steps: give a whole number, or a "
                "tuple of one for each layer"
            )
        if not any(compiled.search(path) for path in paths):
            shown = ", ".join(paths[:3])
            raise UserError(
                f"config.optimizer.frozen_until: {pattern!r} is in no path of what trains; these are {shown} ..."
            )
        made.append((compiled, steps))
    return made
