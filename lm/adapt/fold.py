"""Multipliers of a forward pass, folded into weights: for files of programs that know of none.

muP and CompleteP (`config.parametrization`) leave constants in a model, of scores, of logits and of what layers add.
Once training is over they may as well stand in the weights that are multiplied by them."""

import functools
from collections.abc import Iterator
from typing import Any

from lm.core.component import stored_names
from lm.core.errors import UserError
from lm.core.ownership import parts
from lm.core.param import Tree, drop, map_paths, with_aliases
from lm.model.attention import Attention
from lm.model.block import Block, Parallel
from lm.model.embed import Embed
from lm.model.heads import LMHead
from lm.model.mlp import MLP, GatedMLP
from lm.model.moe.layer import MoE
from lm.model.residual import Plain, PreNorm
from lm.model.special.latent import LatentAttention
from lm.model.transformer import Model

Factors = Iterator[tuple[str, float]]  # (path of a parameter, what it is multiplied by)


def folded(model: Model, plain: Model, params: Tree) -> Tree:
    """Parameters of `plain`, which differs from `model` in multipliers and perhaps in fewer ties, that give the same
    outputs as `params` do there.

    Raises `UserError` where a multiplier can stand in no weight."""
    ties = getattr(model, "ties", ())
    whole, factors = with_aliases(params, ties), dict[str, float]()
    for path, factor in _factors(model, plain, with_aliases(model.spec(), ties), ""):
        factors[path] = factors.get(path, 1.0) * factor
    for alias, owner in plain.ties:
        if factors.get(alias, 1.0) != factors.get(owner, 1.0):
            raise UserError(f"{alias} is tied to {owner}, but has a multiplier of its own: untie them")
        whole = drop(whole, alias)
    return map_paths(lambda path, x: x * factors[path] if path in factors else x, whole)


def _factors(part: Any, plain: Any, spec: Tree, path: str) -> Factors:
    yield from _own(part, plain, path)
    for one, other in zip(parts(part, spec), parts(plain, spec), strict=True):
        yield from _factors(one.component, other.component, one.spec, f"{path}/{one.path}".lstrip("/"))


@functools.singledispatch
def _own(part: Any, plain: Any, path: str) -> Factors:
    """Of the multipliers that a component has itself."""
    if getattr(part, "scale", None) != getattr(plain, "scale", None):
        raise UserError(f"a {stored_names(type(part))[0]} at {path} has a multiplier that its weights cannot take")
    yield from ()


@_own.register(Attention)
@_own.register(LatentAttention)
def _(part: Any, plain: Any, path: str) -> Factors:
    ratio = _scale(part) / _scale(plain)
    if ratio == 1:
        return
    if getattr(part, "qk_norm", None) and part.qk_norm.q:
        raise UserError(f"queries at {path} are normed, so that a scale of their scores can stand in no weight")
    for name in ("q", "q_up"):
        yield from ((f"{path}/{name}/w", ratio), (f"{path}/{name}/b", ratio))


def _scale(part: Attention | LatentAttention) -> float:
    if isinstance(part, Attention):
        return part.scale
    return (part.nope_dim + part.rope_dim) ** -0.5 if part.scale is None else part.scale


@_own.register
def _(part: LMHead, plain: LMHead, path: str) -> Factors:
    yield f"{path}/w", part.scale / plain.scale


@_own.register
def _(part: Embed, plain: Embed, path: str) -> Factors:
    yield f"{path}/token", part.scale / plain.scale


@_own.register
def _(part: Block, plain: Block, path: str) -> Factors:
    if part.residual == plain.residual:
        return
    if not isinstance(part.residual, (PreNorm, Plain)) or not isinstance(plain.residual, (PreNorm, Plain)):
        raise UserError(f"the multiplier of what layers at {path} add can stand in no weight")
    for name, layer in part.parts:
        for at in _outputs(layer, f"{path}/{name}"):
            yield at, part.residual.scale / plain.residual.scale


def _outputs(part: Any, path: str) -> Iterator[str]:
    """The parameters that a sub-layer's output is in proportion to."""
    match part:
        case Attention() | LatentAttention():
            yield from (f"{path}/o/w", f"{path}/o/b")
        case MLP() | GatedMLP():
            yield from (f"{path}/down/w", f"{path}/down/b")
        case MoE():
            yield from _outputs(part.expert, f"{path}/experts")
            yield from _outputs(part.shared, f"{path}/shared") if part.shared else ()
            yield f"{path}/b"
        case Parallel():
            for name, one in part.parts:
                yield from _outputs(one, f"{path}/{name}")
        case _:
            raise UserError(f"the multiplier of what a {stored_names(type(part))[0]} adds can stand in no weight")
