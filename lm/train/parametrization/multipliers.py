"""The constants of a model's forward pass that follow its width and depth: of scores, of logits, of what layers add.

A model takes those of its base, times what the ratios of their sizes ask for, whatever its own were; so doing it again
changes nothing, and its JSON says them."""

import dataclasses
import functools
from typing import Any, NamedTuple

from lm.core.component import stored_names
from lm.core.errors import UserError
from lm.core.param import Tree, with_aliases
from lm.model.attention import Attention
from lm.model.embed import Embed
from lm.model.heads import LMHead
from lm.model.residual import Plain, PostNorm, PreNorm, ResiDual, Sandwich
from lm.model.special.adaptive import AdaptiveEmbed, AdaptiveHead
from lm.model.special.branch import Branched
from lm.model.special.latent import LatentAttention
from lm.model.stack import Stack


class _Place(NamedTuple):
    """Where a component stands.

    spec, base: its parameters, and those of the same component of the base
    branch: what its layer adds to the residual stream is multiplied by so much more than in the base"""

    spec: Tree
    base: Tree
    branch: float = 1.0

    def below(self, name: str) -> "_Place":
        """Of a part; one without a place of its own in the spec stands at its owner's."""
        for key in name.split("/"):
            if key not in self.spec:
                return self
            self = self._replace(spec=self.spec[key], base=self.base[key])
        return self


def multiplied(part: Any, base: Any, specs: tuple[Tree, Tree], alpha: float) -> Any:
    """A model, or a component of one, with multipliers as the base's ask for. `specs`: its parameters' and the base's,
    which `compared` finds alike.

    Raises `UserError` where the base differs in more than sizes, and for what has no multiplier that it needs."""
    return _multiplied(part, base, _Place(*specs), alpha)


def _multiplied(part: Any, base: Any, place: _Place, alpha: float) -> Any:
    if not dataclasses.is_dataclass(part) and not isinstance(part, tuple):
        return part
    if not _alike(part, base):
        raise UserError(
            f"config.parametrization.base is another model: it has {base!r} where config.model has {part!r}; give it "
            "the same knobs but for sizes"
        )
    if isinstance(part, tuple):
        return tuple(_item(i, x, y, place, alpha) for i, (x, y) in enumerate(zip(part, base, strict=True)))
    if ties := getattr(part, "ties", ()):
        place = place._replace(spec=with_aliases(place.spec, ties), base=with_aliases(place.base, ties))
    if isinstance(part, Stack):
        assert isinstance(base, Stack)
        place = place._replace(branch=(part.layers / base.layers) ** -alpha)
    places, changed = getattr(part, "places", {}), {}
    for field in dataclasses.fields(part):
        at = places.get(field.name, field.name)
        inner = place.below(at if isinstance(at, str) else at[0])
        changed[field.name] = _multiplied(getattr(part, field.name), getattr(base, field.name), inner, alpha)
    return _own(dataclasses.replace(part, **changed), base, place)  # type: ignore[type-var]


def _alike(part: Any, base: Any) -> bool:
    return type(part) is type(base) and (not isinstance(part, tuple) or len(part) == len(base))


def _item(index: int, item: Any, base: Any, place: _Place, alpha: float) -> Any:
    if isinstance(item, tuple) and len(item) == 2 and dataclasses.is_dataclass(item[1]):
        return item[0], _multiplied(item[1], base[1], place.below(item[0]), alpha)
    return _multiplied(item, base, place.below(str(index)), alpha)


@functools.singledispatch
def _own(part: Any, base: Any, place: _Place) -> Any:
    """The component with its own multipliers; what it holds has them by now."""
    if getattr(part, "head_dim", None) != getattr(base, "head_dim", None):
        raise UserError(
            f"a {stored_names(type(part))[0]} has no knob for the scale of its scores, which config.parametrization "
            "would change with head_dim: give the base the same head_dim, and fewer heads"
        )
    return part


@_own.register
def _(part: Attention, base: Attention, place: _Place) -> Attention:
    """Queries and keys come to resemble each other, so that their products grow with head_dim, not its root."""
    scale = base.scale * base.head_dim / part.head_dim
    return (
        part
        if scale == part.scale
        else dataclasses.replace(part, softmax=dataclasses.replace(part.softmax, scale=scale))
    )


@_own.register
def _(part: LatentAttention, base: LatentAttention, place: _Place) -> LatentAttention:
    size, base_size = part.nope_dim + part.rope_dim, base.nope_dim + base.rope_dim
    scale = (base_size**-0.5 if base.scale is None else base.scale) * base_size / size
    return part if scale == size**-0.5 else dataclasses.replace(part, scale=scale)


@_own.register(Embed)
@_own.register(AdaptiveEmbed)
def _(part: Any, base: Any, place: _Place) -> Any:
    """Rows begin and move alike at every width, so a factor sqrt(D) is the base's."""
    return dataclasses.replace(part, scale=base.scale)


@_own.register
def _(part: LMHead, base: LMHead, place: _Place) -> LMHead:
    """The table begins and moves alike at every width, whether or not tokens are looked up in it too."""
    narrower = place.base["w"].shape[-1] / place.spec["w"].shape[-1]
    return dataclasses.replace(part, scale=base.scale * narrower)


@_own.register(PreNorm)
@_own.register(Plain)
@_own.register(Sandwich)
def _(part: Any, base: Any, place: _Place) -> Any:
    return dataclasses.replace(part, scale=base.scale * place.branch)


@_own.register(PostNorm)
@_own.register(ResiDual)
@_own.register(Branched)
def _(part: Any, base: Any, place: _Place) -> Any:
    if place.branch != 1:
        raise UserError(
            f"a layer's {stored_names(type(part))[0]} has no multiplier of what is added, which config.parametrization."
            "alpha needs: give the base as many layers, set alpha=0, or take a model with PreNorm"
        )
    return part


@_own.register
def _(part: AdaptiveHead, base: AdaptiveHead, place: _Place) -> AdaptiveHead:
    raise UserError("an AdaptiveHead has no multiplier of logits, which config.parametrization needs: take an LMHead")
