"""Stacks of blocks: what repeats is stored and traced once, so that programs grow with distinct layers."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax

from lm.core.component import component
from lm.core.ctx import Ctx
from lm.core.errors import UserError
from lm.core.param import Tree, stack
from lm.core.walk import Repeats
from lm.model.block import Layer
from lm.model.cache import CacheShape
from lm.model.layers import Norm
from lm.model.residual import Carry, ResiDual
from lm.model.special.resize import Resize

Array = jax.Array


class LayerAddress(NamedTuple):
    """Where a layer's parameters live: segment, repeat (index on the `layers` axis), position in the pattern."""

    segment: int
    repeat: int
    position: int


@component(was=("Segment",))
class LayerGroup:
    """A pattern of blocks repeated; parameters carry a leading `layers` axis of size `repeats`. With `tied`, all
    repeats use one set of parameters, without that axis (ALBERT, Lan et al. 2020, arXiv 1909.11942)."""

    pattern: tuple[Layer, ...]
    repeats: int = 1
    tied: bool = False

    @property
    def layers(self) -> int:
        return self.repeats * len(self.pattern)

    def spec(self, d: int) -> Tree:
        spec = {str(i): block.spec(d) for i, block in enumerate(self.pattern)}
        return spec if self.tied else stack(spec, self.repeats)

    def __call__(
        self, p: Tree, carry: Carry, ctx: Ctx, caches: list | None, first: int | Array = 0
    ) -> tuple[Carry, list | None, Tree]:
        """All layers, in the way of `ctx.execution.walk`. `caches` is a list with one entry per layer; `first` the
        index of the first layer.

        Returns carry, caches, and aux with a leading axis of size `repeats`."""

        def repeat(
            ctx: Ctx, common: Tree, carry: Carry, index: Array | int, own: Tree, cache: list | None
        ) -> tuple[Carry, list | None, Tree]:
            p, new, aux = common if self.tied else own, [], {}
            for i, block in enumerate(self.pattern):
                at = ctx.replace(layer=first + index * n + i)
                carry, c, aux[str(i)] = block(p[str(i)], carry, at, None if cache is None else cache[i])
                new.append(c)
            return carry, None if cache is None else new, aux

        n = len(self.pattern)
        by_repeat = None if caches is None else [caches[r * n : (r + 1) * n] for r in range(self.repeats)]
        repeats = Repeats(self.repeats, None if self.tied else p, p if self.tied else None, by_repeat)
        carry, by_repeat, aux = ctx.execution.walk(repeat, repeats, carry, ctx)
        return carry, None if by_repeat is None else [c for cache in by_repeat for c in cache], aux

    def update(self, p: Tree, aux: Tree) -> Tree:
        if self.tied:
            aux = jax.tree.map(lambda x: x.sum(0), aux)
        updates = {str(i): b.update if self.tied else jax.vmap(b.update) for i, b in enumerate(self.pattern)}
        return p | {i: update(p[i], aux[i]) for i, update in updates.items()}


@component
class Stack:
    """Segments in turn, then the final norm where the residual wiring wants it. `tables` are components evaluated once
    and read by every layer as `ctx.shared[name]`."""

    segments: tuple[LayerGroup | Resize, ...]
    norm: Norm | None = None
    tables: tuple[tuple[str, Any], ...] = ()

    def __post_init__(self) -> None:
        carries = {type(b.residual) is ResiDual for s in self.segments for b in s.pattern}
        resized = [isinstance(s, Resize) for s in self.segments]
        if any(resized[:1]) or (any(resized) and True in carries):
            raise UserError("Resize needs a segment before it, and one stream, which ResiDual has not: choose another")
        if len(carries) > 1:
            raise UserError("a stack cannot mix ResiDual, which carries two streams, with other residual wirings")

    @classmethod
    def of(cls, blocks: Sequence[Layer], *, tied: bool = False, **knobs: Any) -> "Stack":
        """The stack of these layers: a prefix, a repeated pattern and a tail, chosen so that as few blocks as possible
        are traced. Published patterns rarely divide evenly: Gemma 3's 62 layers are 10 x 6 + 2."""
        if not blocks:
            raise ValueError("a stack needs at least one block")
        ids = {b: i for i, b in reversed(list(enumerate(blocks)))}
        kinds, n = [ids[b] for b in blocks], len(blocks)
        best = (n + 1, 0, n, 1)  # blocks traced, prefix, period, repeats
        for period in range(1, n // 2 + 1):
            same = 0  # how many layers from here on equal the one a period later
            for start in range(n - period - 1, -1, -1):
                same = same + 1 if kinds[start] == kinds[start + period] else 0
                repeats = same // period + 1
                traced = n - (repeats - 1) * period
                best = min(best, (traced, start, period, repeats)) if repeats > 1 else best
        _, start, period, repeats = best
        end = start + period * repeats
        parts = [(blocks[:start], 1), (blocks[start : start + period], repeats), (blocks[end:], 1)]
        return cls(tuple(LayerGroup(tuple(b), r, tied and r > 1) for b, r in parts if b), **knobs)

    @property
    def layers(self) -> int:
        return sum(s.layers for s in self.segments)

    def locate(self, layer: int) -> LayerAddress:
        """Where layer i's parameters are."""
        for index, segment in enumerate(self.segments):
            if layer < segment.layers:
                return LayerAddress(index, *divmod(layer, len(segment.pattern)))
            layer -= segment.layers
        raise IndexError(f"layer {layer} is past the last of this stack")

    def blocks(self) -> list[Layer]:
        """The layers one by one."""
        return [b for s in self.segments for _ in range(s.repeats) for b in s.pattern]

    def widths(self, d: int) -> list[int]:
        """The width that each segment takes, the first of which is d, and that of the result."""
        found = [d]
        for segment in self.segments:
            found.append(segment.width if isinstance(segment, Resize) else found[-1])
        return found

    def spec(self, d: int) -> Tree:
        widths = self.widths(d)
        spec = {str(i): s.spec(width) for i, (s, width) in enumerate(zip(self.segments, widths[:-1], strict=True))}
        spec |= {"tables": {name: table.spec(d) for name, table in self.tables}} if self.tables else {}
        return spec | ({"norm": self.norm.spec(widths[-1])} if self.norm else {})

    def cache(self, d: int, shape: CacheShape) -> list:
        """One entry per layer; not stacked, because decoding updates each in place."""
        pairs = zip(self.segments, self.widths(d)[:-1], strict=True)
        return [b.cache(width, shape) for s, width in pairs for _ in range(s.repeats) for b in s.pattern]

    def __call__(self, p: Tree, x: Array, ctx: Ctx, caches: list | None) -> tuple[Array, list | None, Tree]:
        tables = {name: table(p["tables"][name], ctx) for name, table in self.tables}
        ctx = ctx.replace(shared=ctx.shared | tables)
        residual = self.segments[0].pattern[0].residual
        carry, first, new, aux = residual.enter(x), 0, [], {}
        for i, segment in enumerate(self.segments):
            own = None if caches is None else caches[first : first + segment.layers]
            carry, own, aux[str(i)] = segment(p[str(i)], carry, ctx, own, first)
            new.extend(own or [])
            first += segment.layers
        x = residual.leave(carry, lambda y: self.norm(p["norm"], y) if self.norm else y)
        return x, None if caches is None else new, aux

    def update(self, p: Tree, aux: Tree) -> Tree:
        return p | {str(i): s.update(p[str(i)], aux[str(i)]) for i, s in enumerate(self.segments)}
