"""A report's arithmetic, and how it is shown: text, JSON, a picture."""

import dataclasses
import io
import json

import pytest

from tpu.plots import draw
from tpu.report import Memory, Report, Traffic, describe
from tpu.roofline import Roofline

GIB = 2**30
REPORT = Report(
    program="train step",
    topology="v5p:4x4x2",
    chips=32,
    slices=1,
    mesh={"fsdp": 32},
    parameters=7_000_000_000,
    tokens=320_000,
    memory=Memory(
        arguments={"parameters": GIB, "optimizer": 2 * GIB, "batch": 1000},
        activations=4 * GIB,
        allocated=12 * GIB,
        analysis={
            "arguments": 3 * GIB,
            "outputs": 3 * GIB,
            "alias": 3 * GIB,
            "temporaries": 14 * GIB,
            "code": 9,
            "peak": 5,
        },
        available=95 * GIB,
        fits=True,
        largest=((4 * GIB, "bf16[32,4,4096,4096], f32[8]"),),
    ),
    flops=4_000_000,
    model_flops=3_000_000.0,
    bytes=10**9,
    host_bytes=0,
    collectives=(Traffic("all-gather", "fsdp", 3, 96, 2.0 * GIB, 1.5, 0.5),),
    time=Roofline(compute=4.0, memory=2.0, network={"fsdp": 1.5}, run=4.5, held_up=0.5, step=5.0),
    peak=1e6,
    compile_seconds=60.0,
    versions={"JAX": "0.10.2"},
    price=4.5,
    notes=("a loop of unknown length is counted once (f)",),
)


def test_arithmetic():
    assert REPORT.mfu == 3e6 / 1e6 / 5
    assert REPORT.tokens_per_second == 64_000
    # 32 chips at 4.5 an hour for a trillion tokens at 64,000 a second
    assert REPORT.dollars_per_trillion_tokens == pytest.approx(32 * 4.5 * 1e12 / 64_000 / 3600)
    assert (REPORT.memory.used, REPORT.memory.temporaries) == (12 * GIB, 5 * GIB - 1000)
    assert (REPORT.time.floor, REPORT.time.bound) == (4.0, "compute")


def test_without_the_buffer_assignment_memory_analysis_counts():
    memory = dataclasses.replace(REPORT.memory, allocated=None)
    assert memory.used == 17 * GIB and memory.temporaries == 10 * GIB - 1000


def test_text():
    text = describe(REPORT)
    for words in (
        "mesh fsdp=32",
        "fits: 12.0 GiB a chip of 95.0 GiB (13%)",
        "1.33 times the model's",
        "50% overlapped",
    ):
        assert words in text
    assert "MFU 60.0%" in text and "625,000 dollars" in text and "note         a loop" in text
    small = dataclasses.replace(REPORT, price=0.0, collectives=(), notes=())
    assert "dollars" not in describe(small) and "collectives  none" in describe(small)
    full = dataclasses.replace(REPORT, memory=dataclasses.replace(REPORT.memory, fits=False))
    assert "DOES NOT FIT" in describe(full)


def test_json_has_what_is_derived_too():
    found = json.loads(json.dumps(REPORT.to_json()))
    assert found["memory"]["used"] == 12 * GIB and found["time"]["bound"] == "compute" and found["mfu"] == REPORT.mfu
    assert found["collectives"][0]["axes"] == "fsdp"


def test_picture():
    """Bars for each kind of memory that there is, and for each part of the time."""
    figure = draw(REPORT)
    memory, time = figure.axes
    assert [bar.get_height() for bar in memory.patches] == pytest.approx([1, 2, 1000 / GIB, 4, 5 - 1000 / GIB])
    assert sorted(bar.get_width() for bar in time.patches) == [1500.0, 2000.0, 4000.0]
    figure.savefig(written := io.BytesIO(), format="png")
    assert written.getvalue().startswith(b"\x89PNG")
