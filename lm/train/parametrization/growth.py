"""How the tensors of a model stand to those of a smaller base model of the same family: from their two spec trees.

The parametrization is muP (maximal update; Yang et al. 2022, arXiv 2203.03466) in the form of the spectral condition
(Yang, Simon and Bernstein 2023, 2310.17813): a matrix [in, out] and its update both have a spectral norm of the order
of sqrt(out / in), so that states of any width hold elements of one size, and change by one size in a step. Depth is
that of CompleteP (Dey et al. 2025, 2505.01618): what a layer adds to the residual stream is multiplied by depth^-alpha.
"""

import dataclasses
import math
from collections.abc import Mapping

from lm.core.errors import UserError
from lm.core.param import TABLES, Gaussian, Normal, Param, Tree, flatten, map_paths


@dataclasses.dataclass(frozen=True)
class Growth:
    """A tensor of the model against the same one of the base, all numbers being ratios.

    base: the latter's `Param`
    init: of the standard deviations with which they begin
    update: of what an element should change by in a step
    gradient: of an element of their gradients"""

    base: Param
    init: float = 1.0
    update: float = 1.0
    gradient: float = 1.0


def fans(p: Param) -> tuple[int, int]:
    """(fan-in, fan-out) of one layer's, and one expert's, tensor. A table is a matrix that reads one of its rows, and a
    gain or a bias one that reads a single number."""
    inner, axes = p.shape[p.batch_dims :], p.axes[p.batch_dims :]
    if p.kind != "weight" or len(inner) < 2 or TABLES & set(axes):
        return 1, inner[-1] if inner else 1
    return math.prod(inner[:-1]), inner[-1]


def growth(p: Param, base: Param, deep: float, alpha: float) -> Growth:
    """Of a tensor in layers that are `deep` times as many as the base's (1 outside of them)."""
    if p.kind == "buffer":
        return Growth(base)
    (inputs, outputs), (base_inputs, base_outputs) = fans(p), fans(base)
    wide_in, wide_out = inputs / base_inputs, outputs / base_outputs
    # A matrix of random elements has a spectral norm of about sqrt(in) + sqrt(out) times their size.
    reach = min(1.0, outputs / inputs) / min(1.0, base_outputs / base_inputs)
    return Growth(
        base,
        init=math.sqrt(reach / wide_in),
        update=deep ** (alpha - 1) / wide_in,
        gradient=deep**-alpha / wide_out,
    )


def compared(spec: Tree, base: Tree, depths: Mapping[str, float], alpha: float) -> Tree:
    """A `Growth` for each tensor of `spec`, of which `base` has one with the same path and axes. `depths`: by which
    ratio the layers of the stack at a path are more than the base's.

    Raises `UserError` for specs of different models."""
    ours, theirs = dict(flatten(spec)), dict(flatten(base))
    for path in sorted(ours.keys() | theirs.keys()):
        here, there = (tree[path].axes if path in tree else "absent" for tree in (ours, theirs))
        if here != there:
            raise UserError(
                f"config.parametrization.base is another model: parameter {path!r} has axes {there} there, {here} in "
                "config.model; give it the same knobs but for sizes, and layers enough for the same pattern"
            )

    def one(path: str, p: Param) -> Growth:
        return growth(p, theirs[path], _deep(path, depths), alpha)

    return map_paths(one, spec)


def _deep(path: str, depths: Mapping[str, float]) -> float:
    for stack, ratio in depths.items():
        below = path.removeprefix(f"{stack}/")
        if below != path and below.partition("/")[0].isdigit():  # a segment; its norm and its tables are no layers
            return ratio
    return 1.0


def reinitialized(spec: Tree, grown: Tree) -> Tree:
    """`spec` with the base's initial values, as large as they should be here. What is no Gaussian stays as it is."""

    def one(path: str, p: Param, g: Growth) -> Param:
        if p.kind == "buffer" or not isinstance(g.base.init, Gaussian):
            return p
        return dataclasses.replace(p, init=Normal(g.base.init.deviation(g.base.shape) * g.init))

    return map_paths(one, spec, grown)
