"""The reader of compiled programs: FLOPs, memory traffic and collectives of small programs, to the unit. Programs of
this machine's CPU where JAX makes what is asked for, hand-written text for what only TPUs do."""

import functools
import textwrap
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from lm.inspect import cost
from tpu import hlo
from tpu.collectives import axes, groups_of
from tpu.flops import _meetings
from tpu.hbm import read_allocation, saved
from tpu.work import Work, work

MESH = {"data": 2, "tensor": 4}


def mesh():
    return jax.make_mesh(tuple(MESH.values()), tuple(MESH), axis_types=(AxisType.Auto,) * 2)


def work_of(function, *args, devices=1) -> Work:
    return work(hlo.read(jax.jit(function).lower(*args).compile().as_text()), devices)


def read(text: str) -> hlo.Program:
    return hlo.read(textwrap.dedent(text))


def array(*shape, dtype=jnp.float32):
    return jax.ShapeDtypeStruct(shape, dtype)


def test_matmuls_count_two_for_a_multiply_and_add():
    assert work_of(lambda x, w: x @ w, array(3, 5), array(5, 7)).flops == 2 * 3 * 5 * 7


def test_batches_of_matmuls():
    assert work_of(lambda x, w: jnp.einsum("bij,bjk->bik", x, w), array(4, 3, 5), array(4, 5, 7)).flops == 4 * 210


def test_a_scan_counts_its_trips():
    def layers(x, w):
        return jax.lax.scan(lambda x, w: (jnp.tanh(x @ w), None), x, w)[0]

    assert work_of(layers, array(8, 16), array(5, 16, 16)).flops == 5 * 2 * 8 * 16 * 16


def test_loops_within_loops():
    def once(x, w):
        return jax.lax.fori_loop(0, 3, lambda _, x: x @ w, x)

    done = work_of(
        lambda x, w: jax.lax.scan(lambda x, _: (once(x, w), None), x, length=4)[0], array(8, 16), array(16, 16)
    )
    assert done.flops == 12 * 2 * 8 * 16 * 16 and not done.notes


def test_of_branches_the_costliest_counts():
    def either(which, x):
        return jax.lax.cond(which, lambda x: x @ x @ x, lambda x: x @ x, x)

    assert work_of(either, array(dtype=bool), array(8, 8)).flops == 2 * 2 * 8**3


def test_a_loop_of_unknown_length_counts_once_and_is_told():
    done = work_of(lambda n, x: jax.lax.fori_loop(0, n, lambda _, x: x @ x, x), array(dtype=jnp.int32), array(8, 8))
    assert done.flops == 2 * 8**3
    assert len(done.notes) == 1 and "unknown length" in done.notes[0]


def test_a_train_step_counts_as_its_trace_does():
    """Forward and backward pass of scanned layers, against the count of the traced program."""

    def loss(w, x):
        return jnp.sum(jax.lax.scan(lambda x, w: (jnp.sin(x @ w), None), x, w)[0])

    args = array(6, 16, 16), array(8, 16)
    step = jax.grad(loss, argnums=(0, 1))
    assert work_of(step, *args).flops == cost.flops(step, *args) == 3 * 6 * 2 * 8 * 16 * 16


def shard_mapped(function, in_specs, out_specs, *args) -> Work:
    mapped = jax.shard_map(function, mesh=mesh(), in_specs=in_specs, out_specs=out_specs, check_vma=False)
    return work_of(mapped, *args, devices=8)


@pytest.mark.parametrize(
    ("exchange", "kind", "sent"),
    [  # of x [4, 8] of float32 on each chip, among four
        (lambda x: jax.lax.psum(x, "tensor"), "all-reduce", 2 * 128 * 3 / 4),
        (lambda x: jax.lax.all_gather(x, "tensor"), "all-gather", 4 * 128 * 3 / 4),
        (lambda x: jax.lax.psum_scatter(x, "tensor", tiled=True), "reduce-scatter", 128 * 3 / 4),
        (lambda x: jax.lax.all_to_all(x, "tensor", 0, 0), "all-to-all", 128 * 3 / 4),
        (lambda x: jax.lax.ppermute(x, "tensor", [(i, (i + 1) % 4) for i in range(4)]), "collective-permute", 128),
    ],
)
def test_collectives(exchange, kind, sent):
    def five_times(x):
        return jax.lax.scan(lambda _, k: (None, exchange(x + k)), None, jnp.arange(5.0))[1]

    (found,) = shard_mapped(five_times, P("data", "tensor"), P(None, "data"), array(8, 32)).collectives
    collective, trips = found
    assert (collective.kind, trips, collective.sent) == (kind, 5, sent)
    assert axes(collective.groups, MESH) == ("tensor",)


def test_sharded_matmul_has_the_collective_that_the_layout_asks_for():
    """[2, 4] mesh: x cut over both, w over the contracted axis: one sum of [8, 16] float32 over tensor."""
    x, w = (
        jax.ShapeDtypeStruct(shape, jnp.float32, sharding=jax.NamedSharding(mesh(), spec))
        for shape, spec in (((16, 32), P("data", "tensor")), ((32, 16), P("tensor")))
    )
    done = work_of(lambda x, w: x @ w, x, w, devices=8)
    ((found, trips),) = done.collectives
    assert (found.kind, found.bytes, trips) == ("all-reduce", 8 * 16 * 4, 1)
    assert axes(found.groups, MESH) == ("tensor",)
    assert done.flops == 2 * 8 * 8 * 16


# Attributes of replica groups in each of the ways that XLA writes them.
ROWS = ((0, 1, 2, 3), (4, 5, 6, 7))
COLUMNS = ((0, 4), (1, 5), (2, 6), (3, 7))


@pytest.mark.parametrize(
    ("text", "groups"),
    [
        ("replica_groups={{0,1,2,3},{4,5,6,7}}, dimensions={0}", ROWS),
        ("replica_groups={}, dimensions={0}", (tuple(range(8)),)),
        ("replica_groups=[2,4]<=[8], dimensions={0}", ROWS),
        ("replica_groups=[4,2]<=[2,4]T(1,0), dimensions={0}", COLUMNS),
        ("replica_groups=mesh['a'=2,'b'=4] {'b'}, dimensions={0}", ROWS),
        ("replica_groups=mesh['a'=2,'b'=4] {'a'}, dimensions={0}", COLUMNS),
        ("replica_groups=mesh['a'=2,'b'=4] {'a','b'}, dimensions={0}", (tuple(range(8)),)),
        ("replica_groups=mesh['a'=4,'b'=2], device_ids=([2,4]T(1,0)) {'b'}, dimensions={0}", COLUMNS),
        ("replica_groups=mesh['a'=4,'b'=2], device_ids=([2,4]T(1,0)) {'a'}, dimensions={0}", ROWS),
        ("replica_groups=mesh['a'=8] {'a':(2)4}, dimensions={0}", ROWS),
        ("replica_groups=mesh['a'=8] {'a':(1)2}, dimensions={0}", COLUMNS),
    ],
)
def test_replica_groups(text, groups):
    assert groups_of(text, 8) == groups
    over = ("data", "tensor") if len(groups) == 1 else ("tensor",) if groups == ROWS else ("data",)
    assert axes(groups, MESH) == over


@settings(max_examples=20)
@given(st.integers(1, 9), st.integers(1, 5), st.integers(1, 3), st.integers(0, 3), st.integers(1, 3), st.integers(1, 2))
def test_positions_of_a_convolution(size, kernel, stride, before, dilation, kernel_dilation):
    """Against the sum of a convolution of ones."""
    x, w = jnp.ones((1, 1, size)), jnp.ones((1, 1, kernel))
    reach, whole = (kernel - 1) * kernel_dilation + 1, (size - 1) * dilation + 1
    if whole + 2 * before < reach:
        return
    y = jax.lax.conv_general_dilated(x, w, (stride,), [(before, before)], (dilation,), (kernel_dilation,))
    found = _meetings(size, kernel, y.shape[2], stride, before, dilation, kernel_dilation)
    assert found == round(float(y.sum()))


# What TPUs' programs look like: a loop whose length is not told, a collective spread over fusions, a reduce-scatter, a
# batch of matmuls as a dilated convolution, kernels with and without a stated cost.
TPU = (Path(__file__).parent / "program.hlo").read_text()


@functools.cache
def tpu_program() -> Work:
    return work(hlo.read(TPU), 8)


def test_trips_are_read_from_the_counter_where_the_compiler_does_not_tell():
    """From 0 in steps of 2 below 16."""
    assert {x.trips for x in tpu_program().executed if x.collective} == {8}


def test_a_collective_spread_over_fusions_counts_once_and_overlaps():
    gathers = [(c, n) for c, n in tpu_program().collectives if c.kind == "all-gather"]
    assert [(c.bytes, c.asynchronous, n) for c, n in gathers] == [(32 * 16 * 2, True, 8)]


def test_an_all_reduce_of_which_a_part_is_kept_is_a_reduce_scatter():
    (found,) = [c for c, _ in tpu_program().collectives if c.kind == "reduce-scatter"]
    assert (found.kind, found.bytes, found.sent) == ("reduce-scatter", 32 * 16 * 4, 32 * 16 * 4 * 3 / 4)


SEVERAL = """
    HloModule several

    %add (x: f32[], y: f32[]) -> f32[] {
      %x = f32[] parameter(0)
      %y = f32[] parameter(1)
      ROOT %sum = f32[] add(%x, %y)
    }

    ENTRY %main (a: f32[8,4], b: f32[8,2]) -> (f32[2,4], f32[2,2]) {
      %a = f32[8,4]{1,0} parameter(0)
      %b = f32[8,2]{1,0} parameter(1)
      %both = (f32[8,4]{1,0}, f32[8,2]{1,0}) all-reduce(%a, %b), replica_groups={{0,1,2,3}}, to_apply=%add
      %first = f32[8,4]{1,0} get-tuple-element(%both), index=0
      %second = f32[8,2]{1,0} get-tuple-element(%both), index=1
      %zero = s32[] constant(0)
      %part = f32[2,4]{1,0} dynamic-slice(%first, %zero, %zero), dynamic_slice_sizes={2,4}
      %other = f32[2,2]{1,0} dynamic-slice(%second, %zero, %zero), dynamic_slice_sizes={2,2}
      ROOT %out = (f32[2,4]{1,0}, f32[2,2]{1,0}) tuple(%part, %other)
    }
    """


def test_so_are_several_arrays_that_are_added_up_at_once():
    ((found, _),) = work(read(SEVERAL), 4).collectives
    assert (found.kind, found.sent) == ("reduce-scatter", (32 + 16) * 4 * 3 / 4)
    ((found, _),) = work(read(SEVERAL.replace("tuple(%part, %other)", "tuple(%part, %second)")), 4).collectives
    assert found.kind == "all-reduce"


def test_what_slices_send_each_other_through_their_hosts():
    (found,) = [c for c, _ in tpu_program().collectives if c.kind == "all-reduce"]
    assert (found.bytes, found.asynchronous) == (8 * 16 * 4, True)
    assert axes(found.groups, {"slice": 2, "data": 4}) == ("slice",)


def test_matmuls_written_as_dilated_convolutions_and_kernels():
    """Scores as a convolution, softmax and values as the compiler's kernel, both again as splash's, and what a kernel
    states."""
    scores = 2 * 4 * 32 * 512 * 512 * 128
    assert tpu_program().flops == 8 * (4 * scores + 1000)


def test_a_kernel_that_does_not_state_its_cost_is_told():
    assert tpu_program().notes == ("a kernel does not state its FLOPs, which are not counted (jit(step)/quiet)",)


def test_memory_traffic_leaves_out_what_lies_on_the_chip():
    moved = {x.name: x.hbm for x in tpu_program().executed}
    assert moved["wide"] == 32 * 16 * (2 + 4)
    assert moved["new"] == 8 * 16 * 4  # its result has S(1)
    assert moved["kernel"] == 77


FUSED = """
HloModule m

%f (p: f32[64,8,16], i: s32[], q: f32[64,8,16]) -> f32[64,8,16] {
  %p = f32[64,8,16]{2,1,0} parameter(0)
  %i = s32[] parameter(1)
  %q = f32[64,8,16]{2,1,0} parameter(2)
  %zero = s32[] constant(0)
  %layer = f32[1,8,16]{2,1,0} dynamic-slice(%p, %i, %zero, %zero), dynamic_slice_sizes={1,8,16}
  ROOT %kept = f32[64,8,16]{2,1,0} dynamic-update-slice(%q, %layer, %i, %zero, %zero)
}

ENTRY %main (a: f32[64,8,16], i: s32[], b: f32[64,8,16]) -> f32[64,8,16] {
  %a = f32[64,8,16]{2,1,0} parameter(0)
  %i = s32[] parameter(1)
  %b = f32[64,8,16]{2,1,0} parameter(2)
  ROOT %moved = f32[64,8,16]{2,1,0} fusion(%a, %i, %b), kind=kLoop, calls=%f
}
"""


def test_slices_and_updates_in_place_move_only_their_part():
    """A layer read from one stack and written to another, and the index."""
    assert work(hlo.read(FUSED), 1).hbm == 2 * 8 * 16 * 4 + 4


@pytest.mark.parametrize(("remat", "stacks"), [(True, 1), (False, 2)])
def test_saved_activations(remat, stacks):
    """Of six layers sin(x w): their inputs [6, 8, 16], and what the derivative needs, if not recomputed."""

    def layer(x, w):
        return jnp.sin(x @ w), None

    def loss(w, x):
        return jnp.sum(jax.lax.scan(jax.checkpoint(layer) if remat else layer, x, w)[0])

    compiled = jax.jit(jax.grad(loss)).lower(array(6, 16, 16), array(8, 16)).compile()
    assert saved(hlo.read(compiled.as_text())) == stacks * 6 * 8 * 16 * 4


def test_shapes_of_odd_dtypes():
    program = read("""
        ENTRY %main (a: s4[7]) -> (s4[7], pred[3], f8e4m3fn[5], u64[2]) {
          %a = s4[7]{0} parameter(0)
          ROOT %t = (s4[7]{0}, pred[3]{0}, f8e4m3fn[5]{0}, u64[2]{0}) tuple(%a, %a, %a, %a)
        }
        """)
    assert [s.bytes for s in program.entry.instructions["t"].shapes] == [4, 3, 5, 16]


def test_computations_that_run_beside():
    """On a TPU's sparse cores, which gather and scatter: their collectives overlap."""
    program = read("""
        %beside (a: f32[8]) -> f32[32] {
          %a = f32[8]{0} parameter(0)
          ROOT %all-gather = f32[32]{0} all-gather(%a), channel_id=1, replica_groups={{0,1,2,3}}, dimensions={0}
        }, execution_thread="sparsecore"

        ENTRY %main (b: f32[8]) -> f32[32] {
          %b = f32[8]{0} parameter(0)
          %begun = ((f32[8]{0}), f32[32]{0}, u32[]) async-start(%b), async_execution_thread="sparsecore", calls=%beside
          ROOT %ended = f32[32]{0} async-done(%begun)
        }
        """)
    ((found, trips),) = work(program, 4).collectives
    assert (found.kind, found.bytes, found.asynchronous, trips) == ("all-gather", 128, True, 1)


def test_text_without_a_program_is_refused():
    with pytest.raises(ValueError, match="no entry computation"):
        hlo.read("module @jit_f {}")


MEMORY = """Memory Space: default (color=0)
Total bytes: 5368709120 (5.00GiB)
  cumulative_size;       size;       offset; used_by_n_values; shapes_list
  ------------------------------------------------------------
    1.50GiB( 75%);    1.50GiB;          512;                2; f32[8,4096], bf16[3,5]
    2.00GiB(100%);  512.00MiB;         1024;                1; f32[4]

Memory Space: vmem (color=1)
Total bytes: 99 (99B)
"""


def test_the_compilers_memory_report():
    found = read_allocation(MEMORY)
    assert found == (5 * 2**30, ((3 * 2**29, "f32[8,4096], bf16[3,5]"), (2**29, "f32[4]")))
    assert read_allocation("") is None


def test_every_opcode_and_type_of_a_real_program_is_read():
    """A train step of this machine: as many instructions as lines that have one."""

    def loss(w, x):
        return jnp.sum(jax.nn.softmax(jnp.sort(x @ w, axis=-1)).astype(jnp.bfloat16))

    text = jax.jit(jax.value_and_grad(loss)).lower(array(16, 16), array(8, 16)).compile().as_text()
    found = sum(len(c.instructions) for c in hlo.read(text).computations.values())
    assert found == text.count("\n  %") + text.count("\n  ROOT %")
