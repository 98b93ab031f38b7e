"""The schedules of a pipeline: what is done when, and that one forward, one backward computes what one device does."""

import dataclasses
import functools
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.pipelines import needs
from lm.adapt.lora import LoRA
from lm.compress.int8 import Int8
from lm.core.component import with_knobs
from lm.core.ctx import Execution
from lm.core.errors import UserError
from lm.core.mesh import Sharding, make_mesh
from lm.core.param import flatten
from lm.model.attention_bias import BiasTable, BucketedBias
from lm.model.moe.dispatch import Capacity
from lm.model.moe.top_k import TopK
from lm.model.positions import Learned
from lm.model.transformer import LanguageModel
from lm.objectives.token_loss import TokenLoss
from lm.parallel.one_forward_one_backward import OneForwardOneBackward, check_compiles
from lm.parallel.pipeline import Pipelined
from lm.parallel.schedule import Order
from lm.train.config import default
from lm.train.lines import pipeline_line
from lm.train.optim.sgd import SGD
from lm.train.prefetch import put
from lm.train.setup import assemble
from lm.zoo.gpt2 import gpt2
from tests import toys
from tests.train import tiny


@st.composite
def orders(draw) -> Order:
    stages, chunks = draw(st.integers(2, 5)), draw(st.integers(1, 4))
    parts = draw(st.integers(1, 4)) * stages if chunks > 1 else draw(st.integers(1, 12))
    return Order(stages, parts, chunks)


@given(orders())
def test_everything_is_done_once_and_in_turn(order):
    """Forward passes along the stages and rounds, backward passes the other way, each a tick after what it needs."""
    last, rounds = order.stages - 1, range(order.chunks)
    forward, backward = {}, {}
    for s in range(order.stages):
        for n in range(order.items):
            forward[s, *order.item(n)] = n + s
            backward[s, *order.backward_item(n)] = order.delay + n + last - s
            assert order.number(*order.item(n)) == n
    assert len(forward) == len(backward) == order.stages * order.items
    for (s, r, i), t in forward.items():
        if s > 0 or r > 0:
            assert t == forward[(s - 1, r, i) if s else (last, r - 1, i)] + 1
        if s < last or r < rounds[-1]:
            assert backward[s, r, i] == backward[(s + 1, r, i) if s < last else (0, r + 1, i)] + 1
        else:
            assert backward[s, r, i] == t, "the loss is had when the last stage is done"
    assert max(forward.values()) + 1 == order.ticks
    assert max(backward.values()) + 1 == order.ticks + order.delay
    for s in range(order.stages):  # what is kept lies where nothing else is written before it is read
        written = {t - s: t for t in range(order.ticks)}  # idle ones write too
        for n in range(order.items):
            read = backward[s, *order.item(n)]
            assert not any(written[n] < t <= read for k, t in written.items() if k % order.slots == n % order.slots)
    assert order.idle == pytest.approx(1 - order.items / order.ticks)


def everything() -> LanguageModel:
    """A dense layer, four with experts and balance buffers, biases that all share, a tied head, dropout everywhere."""
    bias = BucketedBias(buckets=6, max_distance=7)
    one = toys.attention(bias=(bias,), dropout=0.25)
    routed = toys.block(one, toys.experts(toys.balanced(k=2), Capacity(1.0)), toys.dropping)
    tables = (("relative_bias", BiasTable(6, toys.HEADS, init=toys.WIDE)),)
    body = toys.tower([toys.block(one, residual=toys.dropping)] + [routed] * 4, Learned(tiny.LENGTH), tables=tables)
    model = LanguageModel(body, toys.LMHead(tiny.VOCAB), ties=(("head/w", "body/embed/token"),))
    return with_knobs(model, lambda name, value: tiny.VOCAB if name == "vocab" else value)


def dense() -> LanguageModel:
    return gpt2(layers=4, d_model=16, heads=4, vocab=tiny.VOCAB, context=tiny.LENGTH, dropout=0.1)


def tied_layers() -> LanguageModel:
    return toys.language_model([toys.block(toys.attention(dropout=0.25))] * 4, tied=True)


def adapted() -> LanguageModel:
    return tiny.sparse(TopK(k=2), capacity_factor=1.0)


ADAPTED = (Int8(r"experts|attention/[qo]/"), LoRA(2, target=r"attention|experts|router|token"))


@functools.cache
def step(make, walk=None, sizes=(), accumulate: int = 1, remat: str = "none") -> tuple:
    """Parameters before a step of plain SGD at rate 1, and after it; its metrics."""
    sharding = Sharding(make_mesh(dict(sizes))) if sizes else None
    trainer, hyper = tiny.trainer(
        make(),
        sharding,
        TokenLoss(aux=(("balance", 0.5), ("router_z", 0.01)), z_loss=0.01),
        accumulate,
        transforms=ADAPTED if make is adapted else (),
        optimizer=SGD(momentum=0.0),
        learning_rate=1.0,
        weight_decay=0.0,
        clip=0.0,
    )
    if walk is not None:
        trainer = dataclasses.replace(trainer, execution=Execution(remat, walk))
    state = trainer.init(hyper)
    after, metrics = jax.jit(trainer.step)(state, put(tiny.batch(), np.arange(tiny.ROWS), tiny.ROWS, sharding))
    return tuple({path: np.asarray(x) for path, x in flatten(s.params)} for s in (state, after)), metrics


def same_step(make, walk, sizes, **more) -> None:
    (before, want), metrics = step(make)
    (_, got), found = step(make, walk, tuple(sizes.items()), **more)
    assert found.keys() == metrics.keys()
    for name, metric in metrics.items():
        if name == "router_peak" and isinstance(walk, OneForwardOneBackward):
            continue  # the busiest expert's load, in each microbatch or in all of them
        for a, b in zip(jax.tree.leaves(found[name]), jax.tree.leaves(metric), strict=True):
            np.testing.assert_allclose(a, b, rtol=2e-5, err_msg=name)
    for path, x in want.items():
        if np.issubdtype(x.dtype, np.floating):
            scale = np.abs(x - before[path]).max()
            np.testing.assert_allclose(got[path], x, rtol=0, atol=2e-5 * scale + 1e-7, err_msg=path)


@pytest.mark.parametrize(
    "make, walk, sizes, more",
    [
        (tied_layers, OneForwardOneBackward(8), {"stage": 4, "context": 2}, {"remat": "dots"}),
        (dense, OneForwardOneBackward(4, 2), {"stage": 2, "data": 2, "tensor": 2}, {}),
        (dense, Pipelined(4, 2), {"stage": 2, "data": 2, "tensor": 2}, {}),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in (
                (everything, OneForwardOneBackward(4), {"stage": 4, "data": 2}, {}),
                (everything, OneForwardOneBackward(2, 2), {"stage": 2, "fsdp": 2, "expert": 2}, {"remat": "full"}),
                (adapted, OneForwardOneBackward(2), {"stage": 2, "fsdp": 2, "expert": 2}, {}),
                (dense, OneForwardOneBackward(2), {"stage": 2, "data": 2, "tensor": 2}, {"accumulate": 2}),
            )
        ),
    ],
    ids=[
        "1f1b",
        "interleaved",
        "circular",
        "1f1b-everything",
        "interleaved-everything",
        "1f1b-adapters",
        "accumulated",
    ],
)
def test_a_schedule_computes_what_one_device_does(make, walk, sizes, more):
    same_step(make, walk, sizes, **more)


def test_a_run_says_what_its_pipeline_costs():
    c = default()
    c.data.batch_size = 32
    c.parallel.update(pipeline=4, microbatches=16, schedule="1f1b")
    model = gpt2(layers=8, d_model=16, heads=4, vocab=tiny.VOCAB, context=tiny.LENGTH)
    line = pipeline_line(assemble(c, model=model).trainer)
    assert line == "; 4 pipeline stages, 16 microbatches: 15.8% of the time idle, activations of 7 microbatches kept"
    c.parallel.update(chunks=2, schedule="gpipe")
    line = pipeline_line(assemble(c, model=model).trainer)
    assert line.endswith("of 2 chunks, 16 microbatches: 8.6% of the time idle, activations of 17.5 microbatches kept")
    c.parallel.update(pipeline=1)
    assert pipeline_line(assemble(c, model=model).trainer) == ""


def test_what_the_compiler_for_tpus_aborts_on_is_refused():
    chip = SimpleNamespace(platform="tpu")
    sharding = SimpleNamespace(mesh=SimpleNamespace(shape={"stage": 2}, devices=np.array([chip, chip])))
    with pytest.raises(UserError, match=r"^the compiler for TPUs aborts on splash attention's .* or take gpipe$"):
        check_compiles(sharding, None)
    check_compiles(sharding, "reference")


@pytest.mark.slow
def test_memory_does_not_grow_with_microbatches():
    """By the compiler: temporaries of a train step, of as many rows a microbatch."""
    few, many = (needs("1f1b", microbatches) for microbatches in (4, 16))
    assert many.temporaries < 1.05 * few.temporaries
    gpipe = needs("gpipe", 16)
    assert gpipe.temporaries / many.temporaries == pytest.approx(gpipe.kept / many.kept, rel=0.15)
