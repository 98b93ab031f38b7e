"""What both sides of `make bench` share: the shapes, and the lines by which one process is asked to time a variant."""

import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple


class Shape(NamedTuple):
    d: int
    layers: int
    heads: int
    length: int
    vocab: int
    rows: int

    @property
    def tokens(self) -> int:
        return self.rows * self.length


SHAPES = {
    "d256": Shape(256, 6, 4, 256, 8192, 16),
    "d512": Shape(512, 8, 8, 512, 8192, 8),
    "tiny": Shape(64, 2, 2, 64, 512, 2),
}


class Decode(NamedTuple):
    prompt: int
    new: int
    rows: tuple[int, ...]


MATMUL = 2048  # rows and columns of the product that measures the peak
DECODE = Decode(prompt=16, new=48, rows=(1, 8))


def serve(makers: Mapping[str, Callable[[str], Callable[[], object]]]) -> None:
    """Answer requests on standard input, a JSON list [variant, shape, calls] a line, with the seconds per call.

    A variant is made, and called once to compile, when it is first asked for."""
    answers = os.fdopen(os.dup(1), "w")  # what libraries print must not mix with the answers
    os.dup2(2, 1)
    made: dict[tuple[str, str], Callable[[], object]] = {}
    for line in sys.stdin:
        variant, shape, calls = json.loads(line)
        if (variant, shape) not in made:
            made[variant, shape] = makers[variant](shape)
            made[variant, shape]()
        time.sleep(0.3)  # the other side's threads have stopped spinning for more work by then
        made[variant, shape]()  # caches and pages are this variant's own again
        start = time.perf_counter()
        for _ in range(calls):
            made[variant, shape]()
        print(json.dumps((time.perf_counter() - start) / calls), file=answers, flush=True)
