"""Times by the published figures of a chip, on tori whose answers can be told by hand."""

import math
from typing import NamedTuple

import numpy as np
import pytest

from lm.train.chips import TPUS, Chip
from tpu.collectives import Collective
from tpu.roofline import Torus, roofline, seconds
from tpu.work import Executed, Work

CHIP = Chip(flops=100.0, hbm=1, bandwidth=10.0, link=1.0, dcn=0.1)


class Device(NamedTuple):
    coords: tuple[int, ...]
    slice_index: int = 0


def torus(generation, *shape, slices=1):
    return Torus.of([Device(c, s) for s in range(slices) for c in np.ndindex(shape)], generation)


def collective(kind, size, groups, asynchronous=False):
    return Collective(kind, size, groups, asynchronous, "c", "")


ALL16 = (tuple(range(16)),)


@pytest.mark.parametrize(
    ("generation", "shape", "groups", "links"),
    [
        ("v5e", (4, 4), (tuple(range(4)),), 1),  # a line of a small slice, which is no ring
        ("v5e", (4, 4), ALL16, 2),  # both axes
        ("v5e", (16, 16), (tuple(range(16)),), 2),  # a ring
        ("v5e", (16, 16), ((0, 2, 4, 6, 8, 10, 12, 14),), 1),  # every second of a ring: two groups share it
        ("v5p", (4, 4, 4), (tuple(range(64)),), 6),
        ("v5p", (4, 4, 2), (tuple(range(32)),), 3),
        ("v5p", (4, 4, 4), ((0, 16, 32, 48),), 2),
    ],
)
def test_a_gather_uses_the_links_of_its_group(generation, shape, groups, links):
    n = len(groups[0])
    found = collective("all-gather", 64 * n, groups)
    assert seconds(found, torus(generation, *shape), CHIP) == pytest.approx(64 * (n - 1) / links)


def test_a_sum_takes_twice_a_gather():
    times = [seconds(collective(kind, 64, ALL16), torus("v5e", 4, 4), CHIP) for kind in ("all-reduce", "all-gather")]
    assert times[0] == 2 * times[1]


def test_an_exchange_among_all_is_bound_by_the_middle_of_a_line():
    """Four chips in a line with 8 bytes each: the middle link carries half of what two chips send, 2 x 4 bytes."""
    assert seconds(collective("all-to-all", 8, (tuple(range(4)),)), torus("v5e", 4, 4), CHIP) == 8.0


def test_permutes_by_distance():
    along = torus("v5e", 4, 4)
    ring = ((0, 1), (1, 2), (2, 3), (3, 0))  # three neighbours, and three links back
    assert seconds(collective("collective-permute", 8, ring), along, CHIP) == pytest.approx(8 * 6 / 4)
    assert seconds(collective("collective-permute", 8, ((0, 0),)), along, CHIP) == 0


def test_between_slices_through_the_data_centre():
    both = torus("v5e", 2, 2, slices=2)
    assert seconds(collective("all-reduce", 8, ((0, 4), (1, 5), (2, 6), (3, 7))), both, CHIP) == pytest.approx(80.0)
    work = Work((Executed("sum", "", 1, collective=collective("all-reduce", 8, ((0, 4),))),), ())
    assert roofline(work, {"slice": 2, "data": 4}, both, CHIP).network == {"dcn": pytest.approx(80.0)}


def test_what_overlaps_and_what_does_not():
    """A matmul of 3 s, twice; a copy of 2 s; a gather beside them of 2 s, and a sum of 6 s that holds them up."""
    groups = (tuple(range(4)), tuple(range(4, 8)), tuple(range(8, 12)), tuple(range(12, 16)))
    work = Work(
        (
            Executed("matmul", "", 2, flops=300, hbm=20),
            Executed("copy", "", 1, hbm=20),
            Executed("gather", "", 1, collective=collective("all-gather", 8, groups, True)),
            Executed("sum", "", 1, collective=collective("all-reduce", 4, groups)),
        ),
        (),
    )
    found = roofline(work, {"data": 4, "fsdp": 4}, torus("v5e", 4, 4), CHIP)
    assert (found.compute, found.memory, found.network) == (6.0, 6.0, {"fsdp": 12.0})
    assert (found.run, found.held_up, found.step) == (8.0, 6.0, 14.0)
    assert (found.floor, found.bound) == (12.0, "fsdp")


def test_chips_that_can_be_compiled_for_have_all_figures_of_one_slice():
    for name in ("v4", "v5e", "v5p", "v6e"):
        chip = TPUS[name]
        assert min(chip.flops, chip.bandwidth, chip.link) > 0
        assert 100 < chip.flops / chip.bandwidth < 1000  # FLOPs per byte at the ridge: no slip of a unit
        assert math.isfinite(chip.dcn)
