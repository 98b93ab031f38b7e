"""Local copies of a run's state: found again in whatever pieces, used where they are whole, and never in the way."""

import json
import threading
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec, SingleDeviceSharding

from lm.runs import local
from lm.runs.checkpoint import Checkpoints, open_model
from lm.runs.goodput import read_ledger
from lm.runs.local import LocalCopies, run_id
from lm.train.loop import train
from tests.train import tiny

META = {"format": 3, "skips": [[3, 2]]}


def mesh(*sizes: int) -> jax.sharding.Mesh:
    return jax.make_mesh(sizes, ("a", "b")[: len(sizes)], axis_types=(jax.sharding.AxisType.Auto,) * len(sizes))


def values() -> dict[str, jax.Array]:
    rng = np.random.default_rng(0)
    return {
        "matrix": jnp.asarray(rng.normal(size=(8, 12)), jnp.float32),
        "half": jnp.asarray(rng.normal(size=(16,)), jnp.bfloat16),
        "count": jnp.int32(7),
        "empty": jnp.zeros((0, 4)),
    }


def laid_out(specs: dict[str, PartitionSpec], on: jax.sharding.Mesh) -> dict[str, NamedSharding]:
    return {path: NamedSharding(on, specs.get(path, PartitionSpec())) for path in values()}


def like(shardings: dict) -> dict[str, jax.ShapeDtypeStruct]:
    return {path: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=shardings[path]) for path, x in values().items()}


CUT = laid_out({"matrix": PartitionSpec("a", "b"), "half": PartitionSpec("b")}, mesh(4, 2))
OTHER = laid_out({"matrix": PartitionSpec("b", "a"), "half": PartitionSpec("a")}, mesh(4, 2))
ALONE = dict.fromkeys(values(), SingleDeviceSharding(jax.devices()[0]))


@pytest.mark.parametrize("now", [CUT, OTHER, ALONE], ids=["as it was", "cut otherwise", "on one device"])
def test_a_copy_comes_back_to_the_bit(tmp_path, now):
    copies = LocalCopies(tmp_path / "x", pytest.fail)
    state = {path: jax.device_put(x, CUT[path]) for path, x in values().items()}
    copies.write(12, state, META)
    copies.close()
    found = LocalCopies(tmp_path / "x", pytest.fail).newest(like(now), after=11)
    assert found is not None and found.step == 12 and found.meta["skips"] == META["skips"]
    assert tiny.bits(found.leaves) == tiny.bits(values())
    assert {path: x.sharding for path, x in found.leaves.items()} == now
    assert LocalCopies(tmp_path / "x", pytest.fail).newest(like(now), after=12) is None


def test_pieces_are_saved_once(tmp_path):
    """Of what all devices hold alike there is one piece."""
    copies = LocalCopies(tmp_path, pytest.fail)
    copies.write(1, {path: jax.device_put(x, CUT[path]) for path, x in values().items()}, META)
    copies.close()
    with np.load(tmp_path / "1.0of1.npz") as file:
        paths = [path for path, _ in json.loads(file["about"].tobytes())["pieces"]]
    assert {path: paths.count(path) for path in paths} == {"matrix": 8, "half": 2, "count": 1, "empty": 1}


def test_the_newest_that_is_whole(tmp_path):
    lines: list[str] = []
    copies = LocalCopies(tmp_path, lines.append)
    for step in (0, 1, 2, 3):
        copies.write(step, values(), META)
    copies.wait()
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"{step}.0of1.npz" for step in (1, 2, 3)]
    whole = (tmp_path / "3.0of1.npz").read_bytes()
    at = whole.index(np.asarray(values()["matrix"]).tobytes()) + 9
    for harm in (whole[: len(whole) // 2], whole[:-7], b"", whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :]):
        (tmp_path / "3.0of1.npz").write_bytes(harm)
        found = copies.newest(like(ALONE), after=0)
        assert found is not None and found.step == 2
        assert lines.pop().startswith(f"the local copy of step 3 in {tmp_path} is not used: ")
    copies.forget(after=2)
    found = copies.newest(like(ALONE), after=0)
    assert found is not None and found.step == 2 and not lines


def test_a_part_that_another_machine_held(tmp_path):
    """Two processes of two devices each, and the file of one of them is not here."""
    lines: list[str] = []
    copies = LocalCopies(tmp_path, lines.append)
    two = [SingleDeviceSharding(d) for d in jax.devices()[:2]]
    state = values()["matrix"]
    for process, (rows, sharding) in enumerate(zip((slice(0, 4), slice(4, 8)), two, strict=True)):
        arrays = {"0": np.asarray(jax.device_put(state[rows], sharding))}
        pieces = [("matrix", [[rows.start, rows.stop], [0, 12]])]
        about = {"meta": META, "shapes": {"matrix": [8, 12]}, "pieces": pieces}
        arrays["about"] = np.frombuffer(json.dumps(about).encode(), np.uint8)
        np.savez(tmp_path / f"5.{process}of2.npz", **arrays)
    wanted = {"matrix": jax.ShapeDtypeStruct((8, 12), jnp.float32, sharding=two[0])}
    found = copies.newest(wanted, after=0)
    assert found is not None and tiny.bits(found.leaves) == tiny.bits({"matrix": state})
    (tmp_path / "5.1of2.npz").unlink()
    assert copies.newest(wanted, after=0) is None
    assert lines == [
        f"the local copy of step 5 in {tmp_path} is not used: it lacks a part of matrix, which another machine may hold"
    ]


def test_what_not_all_processes_have_is_not_used(tmp_path, monkeypatch):
    lines: list[str] = []
    copies = LocalCopies(tmp_path, lines.append)
    for step in (4, 6):
        copies.write(step, values(), META)
    copies.wait()
    others = np.full((local.MOST, 2), -1, np.int32)
    others[0] = (4, 1)  # one that was killed while the last copy was being written
    gather = local._gathered
    monkeypatch.setattr(
        local, "_gathered", lambda x: np.concatenate([gather(x), others[None] if np.ndim(x) else gather(x)])
    )
    found = copies.newest(like(ALONE), after=0)
    assert found is not None and found.step == 4 and not lines
    others[0] = (2, 1)
    assert copies.newest(like(ALONE), after=0) is None
    assert "other processes have none of the same steps" in lines[0]


def test_another_shape_is_not_used(tmp_path):
    lines: list[str] = []
    copies = LocalCopies(tmp_path, lines.append)
    copies.write(1, values(), META)
    copies.wait()
    smaller = like(ALONE) | {"matrix": jax.ShapeDtypeStruct((4, 12), jnp.float32, sharding=ALONE["matrix"])}
    assert copies.newest(smaller, after=0) is None and "matrix has the shape [8, 12] there, not [4, 12]" in lines[0]


def test_a_disk_that_is_full_is_told_and_ends_nothing(tmp_path, monkeypatch):
    lines: list[str] = []
    copies = LocalCopies(tmp_path / "x", lines.append)
    copies.write(1, values(), META)
    copies.wait()

    def full(file, **_):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as m:
        m.setattr(np, "savez", full)
        copies.write(2, values(), META)
        copies.wait()
    assert lines == [f"no local copy in {tmp_path / 'x'} (No space left on device): checkpoints are kept as before"]
    assert [path.name for path in (tmp_path / "x").iterdir()] == ["1.0of1.npz"]
    copies.write(3, values(), META)
    copies.close()
    assert len(list((tmp_path / "x").iterdir())) == 2 and len(lines) == 1


def test_another_run_in_the_same_folder_has_another_id(tmp_path):
    first = run_id(tmp_path, chief=True)
    assert run_id(tmp_path, chief=True) == first
    (tmp_path / "local.json").unlink()
    assert run_id(tmp_path, chief=True) != first


class Killed(BaseException):
    pass


@pytest.mark.slow
def test_a_run_goes_on_from_its_local_copy_to_the_same_bits(tmp_path, monkeypatch):
    """Killed after step 10, with a checkpoint at 6 and a copy at 9; then with that copy cut short."""
    from lm.train import session

    tiny.use_one_device(monkeypatch)
    config = tiny.config(tmp_path, ema=0.9)
    config.log.update(checkpoint_every=6, local_checkpoint_every=3, local_dir=str(tmp_path / "disk"))
    train(config, tmp_path / "calm")
    assert not list((tmp_path / "disk").rglob("*.npz")), "a run that is finished needs none"
    record = session.Session.record

    def killed(self):
        record(self)
        if self.step == 10 and self.begun < 9:
            self.checkpoints.wait()
            self.copies.wait()
            raise Killed

    monkeypatch.setattr(session.Session, "record", killed)
    for harm, resumed in ((False, 9), (True, 6)):
        run = tmp_path / f"run{harm}"
        with pytest.raises(Killed):
            train(config, run)
        (copy,) = (tmp_path / "disk" / run_id(run, True)).glob("9.*")
        if harm:
            copy.write_bytes(copy.read_bytes()[:-100])
        monkeypatch.setattr(session.Session, "record", record)
        train(config, run)
        monkeypatch.setattr(session.Session, "record", killed)
        starts = [line["step"] for line in read_ledger(run / "goodput.jsonl") if line.get("event") == "start"]
        assert starts == [0, resumed]
        assert tiny.bits(open_model(run).params) == tiny.bits(open_model(tmp_path / "calm").params)


def test_training_goes_on_while_a_checkpoint_is_written(tmp_path, monkeypatch):
    """The write of step 2 ends only when step 5 is done."""
    from lm.runs import manifest
    from lm.train import session

    tiny.use_one_device(monkeypatch)
    config = tiny.config(tmp_path)
    config.train.steps = 7
    config.log.checkpoint_every = 100
    done, write, record, seen = threading.Event(), manifest.write, session.Session.record, []

    def slow(folder: Path) -> None:
        if folder.name == "2":
            assert done.wait(60), "steps wait for the checkpoint"
        write(folder)

    def noted(self):
        record(self)
        if self.step == 2:
            self.save()
        if self.step == 5:
            seen.append(manifest.is_sealed(tmp_path / "run/checkpoints/2"))
            done.set()

    monkeypatch.setattr(manifest, "write", slow)
    monkeypatch.setattr(session.Session, "record", noted)
    train(config, tmp_path / "run")
    assert seen == [False] and Checkpoints(tmp_path / "run", read_only=True).steps == [2, 7]
