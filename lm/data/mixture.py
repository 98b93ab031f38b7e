"""Weighted mixtures by address: from which source row n of a run comes, and which row of that source it is."""

import heapq
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from itertools import count
from typing import NamedTuple

from lm.core.errors import UserError


class _Split(NamedTuple):
    """A node of a mixture: two parts, each a source or another split."""

    share: Fraction  # of the left
    left: "int | _Split"
    right: "int | _Split"

    def on_left(self, n: int) -> int:
        """How many of the first n rows go left: n * share, rounded to the nearest."""
        return (2 * n * self.share.numerator + self.share.denominator) // (2 * self.share.denominator)


@dataclass(frozen=True)
class Mixture:
    """A mixture of sources with these weights, in any unit.

    Two sources stay within half a row of their exact shares at every prefix of the stream. More sources form a binary
    tree of such splits (lightest joined first), where each level adds at most half a row times the share that it
    splits: no order of rows keeps even three equal sources within half a row (Tijdeman 1980, "The chairman assignment
    problem"). Weights are exact fractions, so the stream never drifts from them.
    """

    weights: tuple[float, ...]

    def __post_init__(self):
        for weight in self.weights:
            if not 0 < weight < float("inf"):
                raise UserError(f"a mixture's weight is {weight}; give a number above 0, or leave the source out")
        if not self.weights:
            raise UserError("a mixture has no source; give one or more (source, weight)")

    @cached_property
    def _root(self) -> int | _Split:
        order = count()  # breaks ties, so that nodes are never compared
        heap: list = [(Fraction(w), next(order), source) for source, w in enumerate(self.weights)]
        heapq.heapify(heap)
        while len(heap) > 1:
            (a, _, left), (b, _, right) = heapq.heappop(heap), heapq.heappop(heap)
            heapq.heappush(heap, (a + b, next(order), _Split(a / (a + b), left, right)))
        return heap[0][2]

    def before(self, n: int) -> tuple[int, ...]:
        """How many of the first n rows come from each source."""
        found = [0] * len(self.weights)
        nodes: list[tuple[int | _Split, int]] = [(self._root, n)]
        while nodes:
            node, rows = nodes.pop()
            if isinstance(node, _Split):
                left = node.on_left(rows)
                nodes += [(node.left, left), (node.right, rows - left)]
            else:
                found[node] = rows
        return tuple(found)

    def locate(self, n: int) -> tuple[int, int]:
        """Row n of the mixture as (source, index among that source's rows)."""
        node = self._root
        while isinstance(node, _Split):
            before = node.on_left(n)
            node, n = (node.left, before) if node.on_left(n + 1) > before else (node.right, n - before)
        return node, n
