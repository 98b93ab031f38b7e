"""What lies where on a mesh, over several steps; what a mesh computes is tested in test_layouts.py."""

import dataclasses
import functools

import numpy as np
import pytest
from jax.sharding import PartitionSpec

from lm.adapt.lora import LoRA
from lm.compress.int8 import Int8
from lm.core.component import with_knobs
from lm.core.ctx import Execution
from lm.core.errors import UserError
from lm.core.mesh import Sharding, make_mesh
from lm.core.metrics import values
from lm.core.param import flatten
from lm.core.rules import MESH_AXES
from lm.model.moe.dispatch import Dropless
from lm.model.moe.top_k import TopK
from lm.model.transformer import LanguageModel
from lm.parallel.pipeline import Pipelined
from lm.train.config import default
from lm.train.optim.adafactor import Adafactor
from lm.train.parallel import sharding_of
from lm.train.prefetch import put
from lm.zoo.gpt2 import gpt2
from tests.train import tiny

STEPS = 3


ADAPTED = (Int8(r"experts|attention/[qo]/"), LoRA(2, target=r"attention|experts|router|token"))


@functools.cache
def model(kind: str) -> LanguageModel:
    if kind == "dense":
        return tiny.dense(dropout=0.1)
    sparse = tiny.sparse(TopK(k=2), capacity_factor=1.0)
    return with_knobs(sparse, lambda name, value: Dropless() if (kind, name) == ("dropless", "dispatch") else value)


@functools.cache
def run(kind: str, sizes: tuple[tuple[str, int], ...]) -> tuple:
    """First state, last state and losses after a few steps; one device for no sizes."""
    sharding = Sharding(make_mesh(dict(sizes))) if sizes else None
    more = {"transforms": ADAPTED, "ema": 0.9} if kind == "adapted" else {}
    trainer, hyper = tiny.trainer(model(kind), sharding, learning_rate=1e-2, eps=1e-3, **more)
    if "stage" in dict(sizes):
        trainer = dataclasses.replace(trainer, execution=Execution(walk=Pipelined(microbatches=2)))
    state = trainer.init(hyper)
    first, losses, step = tiny.bits(state.params), [], trainer.jitted(state)
    for k in range(STEPS):
        state, metrics = step(state, put(tiny.batch(k), np.arange(tiny.ROWS), tiny.ROWS, sharding))
        losses.append(values(metrics)["objective"])
    assert step._cache_size() == 1
    return first, state, losses


@pytest.mark.parametrize(
    "kind, sizes, sharded",
    [
        ("dense", {"stage": 2, "fsdp": 2, "tensor": 2}, ("attention/o/w", "mlp/up/w", "mlp/up/b")),
        ("adapted", {"stage": 2, "expert": 2, "tensor": 2}, ("experts/up/w/lora_a", "attention/o/w/lora_b")),
        pytest.param("dropless", {"stage": 2, "expert": 4}, ("experts/up/w", "experts/down/w"), marks=pytest.mark.slow),
    ],
    ids=lambda v: "-".join(f"{a}{n}" for a, n in v.items()) if isinstance(v, dict) else None,
)
def test_a_mesh_computes_what_one_device_does(kind, sizes, sharded):
    want_first, want, want_losses = run(kind, ())
    first, state, losses = run(kind, tuple(sizes.items()))
    assert first == want_first, "initial parameters must be the same to the bit"
    np.testing.assert_allclose(losses, want_losses, rtol=2e-5)
    for (path, leaf), (_, right) in zip(flatten(state.params), flatten(want.params), strict=True):
        np.testing.assert_allclose(leaf, right, atol=1e-4, err_msg=path)
    for name in sharded:
        leaf = tiny.at_layer(state.params, name)
        assert not leaf.sharding.is_fully_replicated, name
        pieces = np.prod([sizes.get(a, 1) for a in ("stage", "fsdp", "expert", "tensor")])
        assert leaf.addressable_shards[0].data.size * pieces == leaf.size or "/b" in name or kind == "adapted", name
        moments = [x for path, x in flatten(state.opt) if path.endswith(name)]
        assert [m.sharding for m in moments] == [leaf.sharding] * 2, "Adam's moments lie as the weight does"


def test_adapters_train_and_their_base_stays():
    first, state, losses = run("adapted", (("stage", 2), ("expert", 2), ("tensor", 2)))
    after, adapters = tiny.bits(state.params), ("/lora_a", "/lora_b")
    assert losses[-1] < losses[0]
    moved = {path for path in first if after[path] != first[path]}
    assert moved == {path for path in first if path.endswith(adapters)}
    assert {p.dtype for path, p in flatten(state.params) if path.endswith("/q")} == {np.dtype("int8")}
    assert {path for path, _ in flatten(state.ema)} == moved
    state_of = {path for path, leaf in flatten(state.opt) if np.size(leaf) > 1}
    assert len(state_of) == 2 * len(moved) and all(path.endswith(adapters) for path in state_of)
    small, whole = (tiny.at_layer(state.params, f"experts/up/w/base/{name}") for name in ("scale", "q"))
    assert whole.sharding.spec == PartitionSpec("stage", "expert", None, "tensor")
    assert small.sharding.spec == PartitionSpec("stage", "expert", None, "tensor")


def test_factors_lie_as_their_matrix_does():
    """Adafactor's, of matrices large enough to be factored, on a mesh: the same steps as on one device."""
    large = gpt2(layers=1, d_model=128, heads=4, vocab=tiny.VOCAB, context=tiny.LENGTH)
    ends = []
    for sharding in (None, Sharding(make_mesh({"fsdp": 4, "tensor": 2}))):
        trainer, hyper = tiny.trainer(large, sharding, optimizer=Adafactor(), learning_rate=1e-2)
        state = trainer.init(hyper)
        step = trainer.jitted(state)
        for k in range(2):
            state, _ = step(state, put(tiny.batch(k), np.arange(tiny.ROWS), tiny.ROWS, sharding))
        assert step._cache_size() == 1
        ends.append(state)
    for (path, leaf), (_, right) in zip(flatten(ends[1].params), flatten(ends[0].params), strict=True):
        if not path.endswith("k/b"):  # which has no gradient: what it is scaled up from is rounding
            np.testing.assert_allclose(leaf, right, atol=2e-4, err_msg=path)
    for path, leaf in flatten(ends[1].opt):
        if "mlp/up/w" in path or "mlp/down/w" in path:  # `v_row` is summed over the larger axis, the hidden one of both
            axis = {"v_row": "fsdp", "v_col": "tensor", "v": None}[path.split("/")[2]]
            assert leaf.sharding.spec == PartitionSpec(None, axis), path


def check_mesh(rows: int = 8, accumulate: int = 1, **sizes: int) -> Sharding | None:
    c = default()
    with c.unlocked():
        c.mesh.update({"data": 1} | sizes)
    c.data.batch_size, c.train.accumulate = rows, accumulate
    return sharding_of(c)


def test_an_axis_of_ones_own():
    """Outermost, since it is not known which neighbours it needs; the preset's rules hold for what is not ruled."""
    c = default()
    c.data.batch_size = 8
    c.parallel.update(rules="sequence", own_rules=(("batch", ("replica", "data")), ("embed", "data")))
    with c.unlocked():
        c.mesh.update(data=2, tensor=2, replica=2)
    sharding = sharding_of(c)
    assert list(sharding.mesh.shape) == ["replica", *(axis for axis in MESH_AXES if axis != "stage")]
    assert sharding.mesh.size == 8 and sharding.ways("batch") == 4
    assert sharding.spec(("batch", "seq", "embed")) == PartitionSpec(("replica", "data"), "tensor", None)
    assert sharding.spec(("embed", "mlp")) == PartitionSpec("data", "tensor")
    c.parallel.own_rules = (("batch", 3),)
    with pytest.raises(UserError, match=r"^config.parallel.own_rules: 'batch' goes to 3; give the name of a mesh axis"):
        sharding_of(c)
    c.parallel.own_rules = (("batch", ("replicas", "data")),)
    with pytest.raises(UserError, match=r"^config.mesh.replica: no rule uses an axis of that name; did you mean 'repl"):
        sharding_of(c)
    c.parallel.own_rules = (("batch", ("replica", "data")), ("embed", "dat"))
    with pytest.raises(UserError, match=r"^config.parallel.own_rules: config.mesh has no axis 'dat'; did you mean"):
        sharding_of(c)


def test_errors_name_the_remedy():
    with pytest.raises(UserError, match=r"^mesh data=3 does not divide over the 8 devices here: make .* axis -1$"):
        check_mesh(data=3)
    with pytest.raises(UserError, match=r"^mesh data=-1, tensor=3 does not divide over the 8 devices here"):
        check_mesh(data=-1, tensor=3)
    with pytest.raises(UserError, match=r"sizes must be positive, and at most one may be -1"):
        check_mesh(data=-1, fsdp=-1)
    with pytest.raises(UserError, match=r"^config.mesh.dta: no rule uses an axis of that name; did you mean 'data'\?"):
        check_mesh(dta=8)
    with pytest.raises(UserError, match=r"batch_size=6 in 1 part.* 8 devices: make it a multiple of 8$"):
        check_mesh(rows=6, data=8)
    with pytest.raises(UserError, match=r"batch_size=8 in 2 part.* 8 devices: make it a multiple of 16$"):
        check_mesh(accumulate=2, data=4, fsdp=2)
    assert check_mesh(rows=2, data=2, tensor=4).mesh.size == 8
    with pytest.raises(UserError, match=r"^axis 'expert' of .*experts/.* has size 4, which mesh axis 'expert'"):
        tiny.trainer(tiny.sparse(TopK()), check_mesh(expert=8))
