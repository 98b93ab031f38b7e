"""Local copies: what a process's devices hold of a run's state, on its machine's own disk, between the checkpoints.

A checkpoint goes to the file system that all processes share, which may be far and slow. A local copy takes neither
network nor other processes, so it may be made often. It survives the death of the process, not that of the machine: it
serves where all that a process needs is found on its machine in undamaged pieces, at the same step on all of them; else
the last checkpoint does (as the emergency checkpoints of Orbax and MaxText do).

`<folder>/<run>/<step>.<process>of<processes>.npz` holds an array `<n>` for each piece, in the native layout of numpy, and
`about`, JSON: the step's meta, as a checkpoint has it, the shapes of all leaves, and of each piece its path in the state
and its bounds along each axis. A zip file knows the checksum of each of its members, and one that is cut short has no directory."""

import contextlib
import functools
import getpass
import json
import re
import secrets
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.experimental import multihost_utils

from lm.runs.upgrade import upgraded

# Copies that stay while another is written. When this process begins one, every other has done the same step, and so has
# its copy before the last one complete: with two, there is always one that all have.
KEEP = 2
MOST = 8  # copies of a run that are looked at, the newest first
NAME = re.compile(r"(\d+)\.(\d+)of(\d+)\.npz")
BROKEN = (OSError, ValueError, KeyError, EOFError, NotImplementedError, zipfile.BadZipFile)  # what reading a damaged file raises
Flat = Mapping[str, Any]  # leaves by their path
Index = tuple[tuple[int, int], ...]  # where a piece begins and ends along each axis


class Copy(NamedTuple):
    """A state, as it was found."""

    step: int
    leaves: dict[str, jax.Array]
    meta: dict


class _Piece(NamedTuple):
    bounds: Index
    read: Callable[[], np.ndarray]


class _Unfit(ValueError):
    """A copy lacks something that this process needs."""


def run_id(workdir: Path, chief: bool) -> str:
    """What tells this run's copies from those of another one that was in the same folder before: kept in local.json."""
    path, number = workdir / "local.json", secrets.randbits(31)
    if chief:
        try:
            number = int(json.loads(path.read_text())["id"], 16)
        except BROKEN:
            path.write_text(json.dumps({"id": f"{number:08x}"}) + "\n")
    if jax.process_count() > 1:
        number = int(multihost_utils.broadcast_one_to_all(np.array(number, np.int32)))
    return f"{number:08x}"


def default_folder() -> Path:
    """In the system's folder for temporary files, which is on the machine's own disk as a rule."""
    return Path(tempfile.gettempdir()) / f"pure-lm-{getpass.getuser()}"


class LocalCopies:
    """The copies of one run on this machine. They are written in the background; `close` waits for that."""

    def __init__(self, folder: Path, tell: Callable[[str], None]) -> None:
        """folder: of this run alone; `tell`: hears of copies that cannot be written or used, which end no run."""
        self.folder, self.tell = folder, tell
        self._background = ThreadPoolExecutor(1)
        self._pending: Future | None = None

    def write(self, step: int, leaves: Flat, meta: dict) -> None:
        """Copy to the host what this process's devices hold, and begin to write it."""
        self.wait()
        pieces = list(_pieces(leaves))
        about = {
            "meta": meta,
            "shapes": {path: x.shape for path, x in leaves.items()},
            "pieces": [(path, index) for path, index, _ in pieces],
        }
        arrays = {str(n): array for n, (_, _, array) in enumerate(pieces)}
        arrays["about"] = np.frombuffer(json.dumps(about).encode(), np.uint8)
        self._pending = self._background.submit(self._save, step, arrays)

    def _save(self, step: int, arrays: dict[str, np.ndarray]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        own = sorted((at for at in self._found() if at[1:] == _own()), reverse=True)
        for old in own[KEEP:]:
            self._path(*old).unlink(missing_ok=True)
        mine = f"{jax.process_index()}of{jax.process_count()}.npz"
        unfinished = self.folder / f"{mine}.new"
        try:
            with unfinished.open("wb") as file:
                np.savez(file, **arrays)  # type: ignore[arg-type]
            unfinished.replace(self.folder / f"{step}.{mine}")
        finally:
            unfinished.unlink(missing_ok=True)

    def wait(self) -> None:
        """Wait for the copy that is being written."""
        if self._pending is not None:
            pending, self._pending = self._pending, None
            try:
                pending.result()
            except OSError as e:
                self.tell(f"no local copy in {self.folder} ({e.strerror}): checkpoints are kept as before")

    def newest(self, like: Flat, after: int) -> Copy | None:
        """The newest copy of a step after `after` that all processes can have, laid out as `like`; None if there is
        none. All processes must call it together."""
        found = {(step, count) for step, _, count in self._found() if step > after}
        agreed = _agreed(found)
        if found and not agreed:
            self.tell(f"the local copies in {self.folder} are not used: other processes have none of the same steps")
        for step, count in agreed:
            copy, wrong = None, ""
            try:
                copy = self._read(step, count, like)
            except BROKEN as e:
                wrong = " ".join(str(e).split())[:160]
            if _gathered(not wrong).all():
                return copy
            if wrong:
                self.tell(f"the local copy of step {step} in {self.folder} is not used: {wrong}")
        return None

    def _read(self, step: int, count: int, like: Flat) -> Copy:
        """The copy that so many processes made. Raises one of `BROKEN` where this process cannot have its part."""
        pieces: dict[str, list[_Piece]] = {}
        with contextlib.ExitStack() as files:
            for at in sorted(self._found()):
                if (at[0], at[2]) != (step, count):
                    continue
                file = files.enter_context(np.load(self._path(*at)))
                about = json.loads(file["about"].tobytes())
                for path, x in like.items():
                    if about["shapes"].get(path) != list(x.shape):
                        raise _Unfit(f"{path} has the shape {about['shapes'].get(path)} there, not {list(x.shape)}")
                for n, (path, bounds) in enumerate(about["pieces"]):
                    piece = _Piece(tuple(map(tuple, bounds)), functools.partial(file.__getitem__, str(n)))
                    pieces.setdefault(path, []).append(piece)
                meta = upgraded(about["meta"], self._path(*at))

            def leaf(path: str, x: Any) -> jax.Array:
                def region(index: Any) -> np.ndarray:
                    return _assembled(path, _bounds(index, x.shape), x.dtype, pieces[path])

                return jax.make_array_from_callback(x.shape, x.sharding, region)

            return Copy(step, {path: leaf(path, x) for path, x in like.items()}, meta)

    def forget(self, after: int) -> None:
        """Delete the copies of steps after this one, which will be done anew."""
        self.wait()
        for at in self._found():
            if at[0] > after:
                self._path(*at).unlink(missing_ok=True)

    def close(self) -> None:
        self.wait()
        self._background.shutdown()

    def _found(self) -> list[tuple[int, int, int]]:
        """(step, process, processes) of each copy."""
        names = [NAME.fullmatch(path.name) for path in self.folder.glob("*.npz")]
        return [(int(m[1]), int(m[2]), int(m[3])) for m in names if m is not None]

    def _path(self, step: int, process: int, count: int) -> Path:
        return self.folder / f"{step}.{process}of{count}.npz"


def _own() -> tuple[int, int]:
    return jax.process_index(), jax.process_count()


def _bounds(index: Any, shape: tuple[int, ...]) -> Index:
    return tuple(s.indices(n)[:2] for s, n in zip(index, shape, strict=True))


def _pieces(leaves: Flat) -> Iterator[tuple[str, Index, np.ndarray]]:
    """(path, bounds, values) of each different part that this process's devices hold."""
    shards = {
        (path, _bounds(shard.index, x.shape)): shard.data for path, x in leaves.items() for shard in x.addressable_shards
    }
    for data in shards.values():
        data.copy_to_host_async()
    for (path, bounds), data in shards.items():
        yield path, bounds, np.array(data)  # a copy on a CPU too: the next step reuses the array's memory


def _assembled(path: str, wanted: Index, dtype: Any, pieces: Iterable[_Piece]) -> np.ndarray:
    """A region of a leaf out of the pieces that overlap it."""
    whole = np.empty([last - first for first, last in wanted], dtype)
    missing = np.ones(whole.shape, bool)
    for bounds, read in pieces:
        common = [(max(a, c), min(b, d)) for (a, b), (c, d) in zip(bounds, wanted, strict=True)]
        into = tuple(slice(a - first, b - first) for (a, b), (first, _) in zip(common, wanted, strict=True))
        if all(a < b for a, b in common) and missing[into].any():
            out_of = tuple(slice(a - first, b - first) for (a, b), (first, _) in zip(common, bounds, strict=True))
            whole[into] = read().view(dtype)[out_of]  # numpy's files know bfloat16 as two bytes
            missing[into] = False
    if missing.any():
        raise _Unfit(f"it lacks a part of {path}, which another machine may hold")
    return whole


def _gathered(values: Any) -> np.ndarray:
    """[processes, ...]: these values of all processes."""
    values = np.asarray(values)
    return multihost_utils.process_allgather(values) if jax.process_count() > 1 else values[None]


def _agreed(found: set[tuple[int, int]]) -> list[tuple[int, int]]:
    """Those that all processes have found, the newest first."""
    newest = sorted(found, reverse=True)[:MOST]
    padded = np.array(newest + [(-1, -1)] * (MOST - len(newest)), np.int32)
    each = [{(int(step), int(count)) for step, count in of_one if step >= 0} for of_one in _gathered(padded)]
    return sorted(set.intersection(*each), reverse=True)
