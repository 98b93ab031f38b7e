"""A layout that cannot be is refused with its reason, in one line, before anything is compiled."""

import jax
import pytest

from lm.core.component import to_dict
from lm.core.errors import UserError
from lm.core.mesh import make_mesh
from lm.model.moe.top_k import TopK
from lm.objectives.seq2seq import Seq2Seq
from lm.train.config import check
from lm.train.override import override
from lm.train.setup import assemble
from lm.zoo.registry import knobs
from tests.train import tiny

# What is set in a run of eight rows of 16 tokens, by a model with 4 heads of width 4, 2 layers and a vocabulary of 384.
IMPOSSIBLE = {
    "mesh.data=3": r"^mesh data=3 does not divide over the 8 devices here: make the sizes multiply to that number",
    "mesh.slice=3": r"^mesh slice=3, data=-1 does not divide over the 8 devices here",
    "mesh.data=1": r"^mesh 1 does not divide over the 8 devices here",
    "mesh.tensor=0": r"^mesh data=-1, tensor=0: sizes must be positive, and at most one may be -1",
    "mesh.fsdp=-1": r"^mesh data=-1, fsdp=-1: sizes must be positive, and at most one may be -1",
    "mesh.row=2": r"^no sharding rule uses the mesh axis 'row'; config.parallel.rules='2d' or '2.5d' or '3d' does$",
    "parallel.rules=2d mesh.tensor=2": r"^no sharding rule uses .* 'tensor'; config.parallel.rules='default' or 'seq",
    "parallel.rules=3d mesh.depth=2 mesh.row=2 mesh.column=2 data.batch_size=4": r"^config.data.batch_size=4 in 1 part",
    "data.batch_size=12": r"^config.data.batch_size=12 in 1 part\(s\) .* = 8 devices: make it a multiple of 8$",
    "mesh.slice=2 data.batch_size=4": r"does not divide over slice x data .* = 8 devices: make it a multiple of 8$",
    "train.accumulate=2": r"^config.data.batch_size=8 in 2 part\(s\) .* 8 devices: make it a multiple of 16$",
    "mesh.tensor=8": r"^4 heads of Attention do not spread evenly over tensor = 8 devices: take a size .* divides 4$",
    "parallel.rules=2d mesh.column=8": r"^4 heads of Attention do not spread evenly over column = 8 devices",
    "model.d_model=20 mesh.fsdp=8": r"^axis 'embed' of .* has size 20, which mesh axis 'fsdp' of size 8 does not",
    "model.vocab=385 mesh.tensor=2": r"^axis 'vocab' of body/embed/token has size 385, .* 'tensor' .* pad that size",
    "mesh.context=8 data.length=12": r"^rows of 12 tokens \(config.data.length, or the objective's\) do not divide "
    r"over context = 8 devices: make the length a multiple of 8$",
    "parallel.rules=sequence mesh.tensor=4 mesh.context=2 data.length=12": r"over context x tensor = 8 devices",
    "parallel.pipeline=8": r"^2 repeats of a layer group do not spread evenly over 8 pipeline stages",
    "parallel.pipeline=2 model.layers=3": r"^3 repeats of a layer group do not spread evenly over 2 pipeline stages",
    "parallel.pipeline=2 train.unroll=true": r"^config.parallel.pipeline=2 and config.train.unroll are two ways",
    "mesh.stage=2": r"^config.mesh.stage is no knob of this config",
    "parallel.zero=4": r"^config.parallel.zero=4 must be between 1 and 3$",
    "parallel.rules=4d": r"^config.parallel.rules='4d' must be one of default, sequence, 2d, 2.5d, 3d$",
    "train.remat=names": r"^remat='names' keeps nothing but what config.train.remat_names lists: add some of layer_in",
    "train.remat=offload train.remat_names=('hiden',)": r"^config.train.remat_names: .*; did you mean 'hidden'\?$",
}


@pytest.fixture
def uncompiled(monkeypatch):
    def compiled(*_, **__):
        raise AssertionError("something was compiled")

    monkeypatch.setattr(jax.stages.Lowered, "compile", compiled)


@pytest.mark.parametrize("given", IMPOSSIBLE)
def test_what_cannot_be_is_refused(tmp_path, uncompiled, given):
    c = tiny.config(tmp_path)
    with pytest.raises(UserError, match=IMPOSSIBLE[given]) as e:
        override(c, [tuple(knob.split("=", 1)) for knob in given.split()])
        check(c)
        _ = assemble(c).trainer
    assert "\n" not in str(e.value)


def test_the_run_itself_can_be(tmp_path, uncompiled):
    c = tiny.config(tmp_path)
    check(c)
    assert assemble(c).trainer.sharding.mesh.size == 8


def test_experts_and_both_sides(tmp_path, uncompiled):
    c = tiny.config(tmp_path)
    c.mesh.expert = 8
    model = tiny.sparse(TopK())
    with pytest.raises(
        UserError, match=r"^axis 'expert' of .*experts/.* has size 4, which mesh axis 'expert' of size 8"
    ):
        _ = assemble(c, model=model).trainer
    c.mesh.update(expert=1, context=4)
    with c.unlocked():
        c.model = knobs("t5", layers=2, d_model=16, heads=4, d_ff=32, vocab=384)
    c.objective = to_dict(Seq2Seq(16, 6))
    with pytest.raises(UserError, match=r"^rows of 6 tokens \(.*\) do not divide over context = 4 devices"):
        _ = assemble(c).trainer


def test_heads_of_keys_and_values(tmp_path, uncompiled):
    """Two for four devices are two devices for each; three for four go nowhere."""
    c = tiny.config(tmp_path)
    c.mesh.tensor = 4
    for kv, fits in ((4, True), (2, True), (1, True), (3, False)):
        with c.unlocked():
            c.model = knobs("llama", layers=2, d_model=48, heads=12, kv_heads=kv, d_ff=32, vocab=384)
        if fits:
            assert assemble(c).trainer.sharding.ways("heads") == 4
            continue
        with pytest.raises(
            UserError, match=r"^3 heads of keys and values of Attention neither spread evenly over tensor"
        ):
            _ = assemble(c).trainer


class Chip:
    """What `make_mesh` looks at of a TPU."""

    platform, device_kind, core_on_chip, process_index = "tpu", "TPU v4", 0, 0

    def __init__(self, i: int, slices: int) -> None:
        self.id, self.slice_index = i, i // (16 // slices)
        within = i % (16 // slices)
        self.coords = (within % 2, within // 2 % 2, within // 4)


def test_only_the_axis_slice_lies_across_slices():
    chips = [Chip(i, 2) for i in range(16)]
    with pytest.raises(
        UserError, match=r"^mesh slice=1, but these 16 devices lie in 2 TPU slice\(s\), .*mesh.slice=2$"
    ):
        make_mesh({"data": 16}, chips)
    with pytest.raises(
        UserError, match=r"^mesh slice=2, but these 16 devices lie in 1 TPU slice\(s\), .*mesh.slice=1$"
    ):
        make_mesh({"slice": 2, "data": 8}, [Chip(i, 1) for i in range(16)])
