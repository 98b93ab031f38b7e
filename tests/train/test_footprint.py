"""Memory is judged before anything is compiled, and lack of it told in a line with the remedy."""

import io
import math

import jax
import pytest
from rich.console import Console

from lm.core.errors import UserError
from lm.train import footprint, hardware, loop, prepared
from lm.train.chips import DEVICES, TPUS
from lm.train.setup import assemble
from lm.zoo.registry import knobs
from tests.train import tiny


def parts(folder, sharded: bool = False, **train):
    c = tiny.config(folder)
    c.train.update(train)
    if sharded:
        c.mesh.update(data=2, fsdp=4)
    made = assemble(c, devices=jax.devices()[: 8 if sharded else 1])
    return made.trainer, made.abstract_state, made.abstract_batch


def size(tree) -> int:
    return sum(math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(tree))


def test_an_estimate_is_below_what_the_compiler_says_and_near(tmp_path):
    trainer, state, batch = parts(tmp_path)
    found = footprint.footprint(trainer, state, batch)
    assert found.state == size(state) and found.gradients == size(state.params) and found.batch == size(batch)
    exact = footprint.needed(trainer.jitted(state).lower(state, batch).compile().memory_analysis())
    assert 0.4 * exact < found.total < 1.05 * exact


def test_what_lowers_it(tmp_path):
    plain = footprint.footprint(*parts(tmp_path))
    assert footprint.footprint(*parts(tmp_path, remat="full")).activations < plain.activations / 2
    assert footprint.footprint(*parts(tmp_path, accumulate=4)).activations <= plain.activations / 3
    spread = footprint.footprint(*parts(tmp_path, sharded=True))
    assert spread.state < plain.state / 2 and spread.batch == plain.batch // 8


def test_eight_times_the_experts_on_eight_devices(tmp_path):
    """With eight times the rows, a device holds what one held alone: its share of the experts, and of the tokens."""

    def needs(times: int, **mesh: int) -> tuple[int, footprint.Footprint]:
        c = tiny.config(tmp_path)
        with c.unlocked():
            c.model = knobs("switch_decoder", layers=4, d_model=16, heads=4, d_ff=512, experts=4 * times, vocab=384)
        c.mesh.update(mesh)
        c.data.batch_size *= times
        made = assemble(c, devices=jax.devices()[:times])
        found = footprint.footprint(made.trainer, made.abstract_state, made.abstract_batch)
        return size(made.abstract_state.params), found

    (one, alone), (many, spread) = needs(1), needs(8, expert=8)
    assert many > 5 * one and spread.batch == alone.batch
    assert spread.state < 1.05 * alone.state and spread.gradients < 1.05 * alone.gradients
    assert spread.activations < 1.5 * alone.activations  # scores of 32 experts beside a width of 16


def test_a_limit_is_warned_of_then_refused():
    needed = footprint.Footprint(state=60, gradients=20, batch=0, activations=40)
    assert footprint.check_room(needed, None) == footprint.check_room(needed, 1000) == ""
    assert "may not fit: if it does not, lower config.data.batch_size" in footprint.check_room(needed, 110)
    with pytest.raises(UserError, match=r"needs about .*, and there are 0\.1 KiB: lower config\.data\.batch_size"):
        footprint.check_room(needed, 99)


def test_a_batch_that_no_machine_holds(tmp_path, monkeypatch):
    tiny.use_one_device(monkeypatch)
    c = tiny.config(tmp_path)
    c.data.batch_size = 100_000_000
    pattern = (
        r"^this run needs about [\d.,]+ TiB a device \(state .*\), and there are .*: lower config\.data\.batch_size"
    )
    with pytest.raises(UserError, match=pattern):
        loop.train(c, tmp_path / "run", Console(file=io.StringIO()))
    assert not (tmp_path / "run").exists()


def test_a_step_that_the_compiler_says_is_too_large(tmp_path, monkeypatch):
    tiny.use_one_device(monkeypatch)
    monkeypatch.setattr(prepared, "check_room", lambda needed, limit: "")
    monkeypatch.setattr(prepared, "memory_limit", lambda: 2**20)
    with pytest.raises(UserError, match=r"the compiled train step needs [\d.]+ MiB a device, and there are 1\.0 MiB"):
        loop.train(tiny.config(tmp_path), tmp_path / "run", Console(file=io.StringIO()))


FULL = jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of\nmemory: 95. GiB")


@pytest.mark.parametrize("error", [MemoryError("Unable to allocate 95. GiB"), FULL])
def test_memory_that_is_not_to_be_had(error):
    pattern = r"^out of memory in training \(.*GiB\): lower config\.data\.batch_size"
    with pytest.raises(UserError, match=pattern), footprint.allocating("training"):
        raise error


def test_other_errors_of_the_runtime_stay():
    with pytest.raises(jax.errors.JaxRuntimeError), footprint.allocating("training"):
        raise jax.errors.JaxRuntimeError("INTERNAL: something else")


def test_what_this_machine_has():
    limit = hardware.memory_limit()
    assert limit is not None and 2**24 < limit * jax.local_device_count() < 2**50
    assert DEVICES["TPU v5 lite"] == TPUS["v5e"] and DEVICES["TPU v3"].flops * 2 == TPUS["v3"].flops
