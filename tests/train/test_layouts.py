"""Twelve layouts of eight devices, in which every two axes of a mesh meet, compute what one device does: the loss, its
gradients and one step of a decoder, of one with experts and of an encoder-decoder."""

import dataclasses
import functools
import itertools
import os
import pickle
import subprocess
import sys
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest

from lm.core.ctx import Execution
from lm.core.mesh import Sharding, make_mesh
from lm.core.metrics import values
from lm.core.param import flatten
from lm.core.remat import REMAT
from lm.core.rules import MESH_AXES, PRESETS
from lm.model.moe.top_k import TopK
from lm.model.transformer import Model
from lm.objectives.seq2seq import Seq2Seq
from lm.parallel.pipeline import Pipelined
from lm.train.prefetch import own_rows, put
from lm.train.step import Trainer
from lm.zoo.t5 import t5
from tests.train import tiny
from tests.train.test_processes import port

ROWS = 16  # for eight devices and two microbatches
# Loss; Adam's first moments, which after a step are a tenth of the gradient; parameters after a step.
Step = tuple[float, dict[str, Any], dict[str, Any]]


class Layout(NamedTuple):
    """Axes of two devices each, and how the step is computed on them."""

    axes: tuple[str, ...]
    rules: str = "default"
    zero: int = 3
    remat: str = "none"
    accumulate: int = 1

    def __str__(self) -> str:
        return "-".join(self.axes) + ("" if self.rules == "default" else f"-{self.rules}")


# The first seven are the lines of the smallest projective plane: any two of seven axes are on one of them.
LAYOUTS = (
    Layout(("slice", "data", "expert"), remat="dots", accumulate=2),
    Layout(("data", "fsdp", "context"), zero=1, accumulate=2),
    Layout(("fsdp", "expert", "tensor"), zero=2, remat="full", accumulate=2),
    Layout(("stage", "expert", "context"), remat="names"),
    Layout(("slice", "context", "tensor"), remat="offload"),
    Layout(("stage", "data", "tensor")),
    Layout(("slice", "stage", "fsdp"), remat="dots", accumulate=2),
    Layout(("fsdp", "context", "tensor"), "sequence", zero=2),
    Layout(("stage", "data", "tensor"), "sequence", remat="full", accumulate=2),
    Layout(("fsdp", "row", "column"), "2d", zero=1, remat="names"),
    Layout(("depth", "row", "column"), "2.5d", accumulate=2),
    Layout(("depth", "row", "column"), "3d", remat="offload"),
)


def test_every_two_meet():
    plain = [axis for axis in MESH_AXES if axis not in ("depth", "row", "column")]
    together = {frozenset(pair) for layout in LAYOUTS for pair in itertools.combinations(layout.axes, 2)}
    assert {frozenset(pair) for pair in itertools.combinations(plain, 2)} <= together
    assert {layout.rules for layout in LAYOUTS} == set(PRESETS) and len(LAYOUTS) == 12
    assert {layout.zero for layout in LAYOUTS if "fsdp" in layout.axes} == {1, 2, 3}
    assert {layout.remat for layout in LAYOUTS} == set(REMAT)
    assert {layout.accumulate for layout in LAYOUTS if "stage" in layout.axes} == {1, 2}


@functools.cache
def model(kind: str) -> Model:
    if kind == "decoder":
        return tiny.dense(dropout=0.1)
    if kind == "experts":
        return tiny.sparse(TopK(k=2), capacity_factor=1.0)
    return t5(layers=2, d_model=16, heads=4, d_ff=32, vocab=tiny.VOCAB)


@functools.cache
def batch(kind: str) -> dict[str, np.ndarray]:
    rows = tiny.batch(rows=ROWS)
    if kind != "encoder-decoder":
        return rows
    read = tiny.batch(1, rows=ROWS)
    return rows | {f"encoder/{name}": read[name] for name in ("tokens", "segments")}


def trainer_of(kind: str, layout: Layout | None) -> tuple[Trainer, dict[str, Any]]:
    sharding, execution, accumulate = None, Execution(), 1
    if layout is not None:
        sizes = {axis: 2 for axis in MESH_AXES if axis in layout.axes}
        sharding = Sharding(make_mesh(sizes), PRESETS[layout.rules], layout.zero)
        names = {"names": ("queries", "hidden"), "offload": ("layer_input",)}.get(layout.remat, ())
        execution, accumulate = Execution(layout.remat, remat_names=names), layout.accumulate
        if "stage" in layout.axes:
            execution = dataclasses.replace(execution, walk=Pipelined(microbatches=2))
    trainer, hyper = tiny.trainer(model(kind), sharding, accumulate=accumulate, clip=0.0, b1=0.9)
    objective = Seq2Seq(tiny.LENGTH, tiny.LENGTH) if kind == "encoder-decoder" else trainer.objective
    return dataclasses.replace(trainer, execution=execution, objective=objective), hyper


def first_batch(kind: str, trainer: Trainer) -> dict[str, jax.Array]:
    rows = own_rows(ROWS, trainer.sharding)
    return put({name: x[rows] for name, x in batch(kind).items()}, rows, ROWS, trainer.sharding)


@functools.cache
def step(kind: str, layout: Layout | None) -> Step:
    trainer, hyper = trainer_of(kind, layout)
    state = trainer.init(hyper)
    state, metrics = trainer.jitted(state)(state, first_batch(kind, trainer))
    moments = {path: leaf for path, leaf in flatten(state.opt) if path.startswith("mu/")}
    return values(metrics)["objective"], moments, dict(flatten(state.params))


def by_cost() -> list[Any]:
    """Fast tests are those of the decoder by which every two axes meet, and an example of each other kind."""
    fast = {"decoder": (*range(8), 9, 11), "experts": (0,), "encoder-decoder": (4,)}
    pairs = itertools.product(fast, range(len(LAYOUTS)))
    return [
        pytest.param(
            kind,
            LAYOUTS[i],
            marks=() if i in fast[kind] else pytest.mark.slow,
            id=f"{kind}-{LAYOUTS[i]}",
        )
        for kind, i in pairs
    ]


@pytest.mark.parametrize(("kind", "layout"), by_cost())
def test_a_layout_computes_what_one_device_does(kind, layout):
    close(step(kind, layout), step(kind, None))


def close(found: Step, right: Step) -> None:
    """Of arrays on several devices, what this process holds of them."""
    (loss, moments, params), (want_loss, want_moments, want) = found, right
    np.testing.assert_allclose(loss, want_loss, rtol=2e-5)
    assert moments.keys() == want_moments.keys() and len(moments) > 10 and params.keys() == want.keys()
    largest = max(np.abs(m).max() for m in want_moments.values())
    for path, x in moments.items():
        for part in x.addressable_shards:
            value = np.asarray(want_moments[path])[part.index]
            np.testing.assert_allclose(part.data, value, atol=2e-5 * largest, rtol=2e-5, err_msg=path)
    for path, x in params.items():
        for part in x.addressable_shards:
            np.testing.assert_allclose(part.data, np.asarray(want[path])[part.index], atol=1e-4, err_msg=path)


LOWERED = """
import hashlib, sys
from tests.train.test_layouts import LAYOUTS, first_batch, trainer_of
kind, *numbers = sys.argv[1:]
for number in map(int, numbers):
    trainer, hyper = trainer_of(kind, LAYOUTS[number])
    state = trainer.init(hyper)
    text = trainer.jitted(state).lower(state, first_batch(kind, trainer)).as_text()
    print(LAYOUTS[number], hashlib.md5(text.encode()).hexdigest())
"""


@pytest.mark.parametrize(
    ("kind", "numbers"), [("decoder", (1, 6)), pytest.param("experts", range(len(LAYOUTS)), marks=pytest.mark.slow)]
)
def test_all_processes_compile_the_same_program(kind, numbers):
    """Sets of strings have another order in each process, and collectives that follow it wait for each other."""
    environments = [os.environ | {"PYTHONHASHSEED": str(seed), "PYTHONPATH": str(tiny.ROOT)} for seed in (1, 2)]
    command = [sys.executable, "-c", LOWERED, kind, *map(str, numbers)]
    both = [subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) for env in environments]
    one, other = (process.communicate(timeout=600)[0].splitlines() for process in both)
    assert one == other and len(one) == len(numbers)


# Two and four processes of one device each, so that every axis lies across processes.
ACROSS = {
    2: (("data",), ("fsdp",), ("tensor",), ("stage",)),
    4: (("stage", "tensor"), ("slice", "fsdp"), ("data", "tensor"), ("fsdp", "context")),
}
PROCESS = """
import pickle, sys
from lm.train.processes import connect
count, number, at, right = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4]
connect(at, count, number, 120.0, print)
from tests.train.test_layouts import ACROSS, Layout, close, step
with open(right, "rb") as file:
    want = pickle.load(file)
for axes in ACROSS[count]:
    close(step("decoder", Layout(axes)), want)
"""


@pytest.mark.slow
@pytest.mark.parametrize("count", ACROSS)
def test_processes_compute_what_one_does(tmp_path, count):
    right = tmp_path / "one_device"
    right.write_bytes(pickle.dumps(jax.tree.map(np.asarray, step("decoder", None))))
    at = f"127.0.0.1:{port()}"
    commands = [[sys.executable, "-c", PROCESS, str(count), str(i), at, str(right)] for i in range(count)]
    started = [subprocess.Popen(c, env=tiny.one_device(), stderr=subprocess.PIPE, text=True) for c in commands]
    for process in started:
        _, said = process.communicate(timeout=600)
        assert process.returncode == 0, said
