"""Writing a token cache: this process reads documents in order, and worker processes tokenise them shard by shard.

The contents of a shard depend only on source and tokenizer, so any number of workers produces the same cache. A long
document is read and tokenised in parts (`lm.data.cuts`): it may span several shards but needs no more memory. A shard
is complete once its record exists, so a build that was killed resumes at the first missing shard. The folder gets its
final name when all shards are done.
"""

import contextlib
import fcntl
import hashlib
import json
import multiprocessing
import os
import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import chain, islice
from multiprocessing import connection
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from lm.core.errors import UserError
from lm.core.formats import KEY, TOKEN_CACHE
from lm.data.cache import TokenCache, shard_digest, write_covered
from lm.data.cuts import TextPart, encode_part, parts_of
from lm.data.progress import Progress
from lm.data.sources import Document, LongDocument
from lm.text.tokenizers import Tokenizer

SHARD = (
    16 << 20
)  # bytes of text, to the end of a document or of a part of a long one: seconds of work, and of what a kill can cost
SPAWN = multiprocessing.get_context("spawn")
Record = dict[str, Any]
Ids = tuple[int, ...]


class Corpus(Protocol):
    """What a cache is built from, such as `lm.data.sources.Source`. Different text has a different fingerprint."""

    @property
    def fingerprint(self) -> str: ...
    @property
    def done(self) -> float: ...  # the share that has been read
    def __iter__(self) -> Iterator[Document | LongDocument]: ...


def build_cache(
    source: Corpus,
    tokenizer: Tokenizer,
    directory: str | os.PathLike,
    workers: int | None = None,
    shard: int = SHARD,
    before: Ids = (),
) -> TokenCache:
    """Open the cache of this source and tokenizer below `directory`, writing it first if necessary. Each document
    becomes `before` (such as a begin-of-text), its tokens, and the end-of-text.

    A source of more than one shard is tokenised by `workers` processes (default: one per core). If several processes
    want the same cache, one writes it and the others wait. Raises UserError for a folder or disk that cannot be
    written, a corpus without text, and any error of the source."""
    identity = (
        f"{TOKEN_CACHE.number}:{source.fingerprint}:{tokenizer.fingerprint}:{np.__version__}:{shard}{before or ''}"
    )
    root = Path(directory).expanduser()
    final = root / hashlib.blake2b(identity.encode(), digest_size=12).hexdigest()
    if not final.exists():
        unfinished = root / f".{final.name}"
        try:
            unfinished.mkdir(parents=True, exist_ok=True)
            with _locked(unfinished):
                if final.exists():  # another process was faster; it has renamed the folder, or this one is left over
                    with contextlib.suppress(FileNotFoundError):
                        unfinished.rmdir()
                else:
                    _write(source, tokenizer, unfinished, workers or os.cpu_count() or 1, shard, before)
                    unfinished.rename(final)
                    for leftover in chain(final.glob("*.json"), final.glob("*.starts.npy")):
                        if leftover.name != "meta.json":
                            leftover.unlink()
        except OSError as e:
            raise UserError(
                f"cannot write to cache folder {root}: {e.strerror}; make room or choose another: what is done is kept"
            ) from e
    return TokenCache.open(final)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """A lock held by one process at a time; the system releases it when the process ends."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _write(source: Corpus, tokenizer: Tokenizer, folder: Path, workers: int, shard: int, before: Ids) -> None:
    counts = {"dropped": 0, "read": 0}
    tally = Tally()
    groups = _groups(source, tokenizer, shard, counts)
    with Progress("tokenising", lambda: (source.done * tally.value / max(1, counts["read"]), tally.value)):
        records = list(_shards(groups, tokenizer, folder, workers, before, tally))
    if not records:
        raise UserError("the corpus has no text: every document is empty; check the source and its field")
    firsts = np.cumsum([0] + [record["tokens"] for record in records])
    starts = [np.load(_paths(folder, i)[1]) + first for i, first in enumerate(firsts[:-1])]
    np.save(folder / "offsets.npy", np.concatenate([*starts, firsts[-1:]]))
    np.save(folder / "table.npy", tokenizer.token_bytes())
    shards = [{key: record[key] for key in ("name", "tokens", "bytes", "covered", "digest")} for record in records]
    meta = {
        KEY: TOKEN_CACHE.number,
        **{key: sum(record[key] for record in records) for key in ("documents", "tokens", "bytes")},
        "dropped": counts["dropped"],
        "dtype": _dtype(tokenizer).str,
        "digest": hashlib.blake2b(repr([s["digest"] for s in shards]).encode(), digest_size=16).hexdigest(),
        "source": source.fingerprint,
        "tokenizer": tokenizer.fingerprint,
        "numpy": np.__version__,
        "shards": shards,
    }
    (folder / "meta.json").write_text(json.dumps(meta, indent=1) + "\n")


class Tally:
    """Counts the bytes of text tokenised so far, across processes."""

    def __init__(self) -> None:
        self._shared = SPAWN.Value("q", 0)

    @property
    def value(self) -> int:
        return self._shared.value

    def add(self, count: int) -> None:
        with self._shared.get_lock():
            self._shared.value += count


def _groups(source: Corpus, tokenizer: Tokenizer, size: int, counts: dict[str, int]) -> Iterator[list[TextPart]]:
    """The texts of each shard: whole documents, of a long one parts. Adds to `counts` how many documents had no text,
    and how much is read."""
    group: list[TextPart] = []
    room = size
    for document in source:
        for part in parts_of(document.name, document.pieces(), tokenizer):
            if not part.text and part.begins:
                counts["dropped"] += 1
                continue
            group.append(part)
            taken = len(part.text.encode())
            room -= taken
            counts["read"] += taken
            if room <= 0:
                yield group
                group, room = [], size
    if group:
        yield group


def _shards(
    groups: Iterator[list[TextPart]], tokenizer: Tokenizer, folder: Path, workers: int, before: Ids, tally: Tally
) -> Iterator[Record]:
    """Every shard's record, in order, once its files are written."""
    first = list(islice(groups, 2))
    numbered = ((i, parts, _finished(folder, i, tally)) for i, parts in enumerate(chain(first, groups)))
    if workers == 1 or len(first) < 2:
        for i, parts, finished in numbered:
            yield finished or write_shard(parts, tokenizer, folder, i, before, tally)
        return
    pool = ProcessPoolExecutor(workers, SPAWN, initializer=_begin_worker, initargs=(tally,))
    pending: deque[Future | Record] = deque()
    try:
        for i, parts, finished in numbered:
            pending.append(finished or pool.submit(_work, parts, tokenizer, folder, i, before))
            if len(pending) > workers + 1:  # bounds the text in memory
                yield _record(pending.popleft())
        while pending:
            yield _record(pending.popleft())
    except BrokenProcessPool as e:
        raise UserError(
            "a tokenising process ended before its work (out of memory?): run again to go on from there; a script "
            "that trains must keep its code under `if __name__ == '__main__':`"
        ) from e
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _work(parts: list[TextPart], tokenizer: Tokenizer, folder: Path, i: int, before: Ids) -> Record:
    return write_shard(parts, tokenizer, folder, i, before, _tally)


def _record(shard: Future | Record) -> Record:
    return shard.result() if isinstance(shard, Future) else shard


def _paths(folder: Path, i: int) -> tuple[Path, Path, Path]:
    """Of shard i: tokens, where its documents start, record."""
    return folder / f"{i:05d}.bin", folder / f"{i:05d}.starts.npy", folder / f"{i:05d}.json"


def _dtype(tokenizer: Tokenizer) -> np.dtype:
    return np.dtype("<u2" if tokenizer.vocab_size <= 1 << 16 else "<u4")


def _finished(folder: Path, i: int, tally: Tally) -> Record | None:
    """The record of a shard that an earlier build finished, if its files match the record."""
    data, starts, record = _paths(folder, i)
    try:
        entry = json.loads(record.read_text())
        tokens = np.fromfile(data, np.dtype(entry["dtype"]))
        sound = shard_digest(tokens, np.load(starts)) == entry["digest"]
        if entry["covered"] is not None:
            sound &= np.fromfile(data.with_suffix(".bytes"), entry["covered"]).sum(dtype=np.int64) == entry["bytes"]
    except (OSError, ValueError, EOFError, KeyError, TypeError):
        return None
    if not sound:
        return None
    tally.add(entry["bytes"])
    return entry


def write_shard(
    parts: list[TextPart], tokenizer: Tokenizer, folder: Path, i: int, before: Ids = (), tally: Tally | None = None
) -> Record:
    """Tokenise and write shard i, its record last. Runs in a worker process."""
    dtype, table = _dtype(tokenizer), tokenizer.token_bytes()
    ids, sizes = [], []  # of each part, in narrow types
    same = True  # as the table says
    for part in parts:
        of_part, covered = encode_part(tokenizer, part)
        size = len(part.text.encode())
        if tally is not None:
            tally.add(size)
        begin, end = (before if part.begins else ()), ([tokenizer.eos_id] if part.ends else [])
        # of a text that is nothing to the tokenizer, the end of text covers all
        rest = [size - int(covered.sum())] * len(end)
        covered = np.concatenate([np.zeros(len(begin)), covered, rest]).astype(np.int32)
        ids.append(np.concatenate([begin, of_part, end]).astype(dtype))
        same &= np.array_equal(table[ids[-1]], covered)
        sizes.append(covered.astype(np.min_scalar_type(int(covered.max(initial=0)))))
    tokens = np.concatenate(ids)
    lengths = np.cumsum([0] + [len(x) for x in ids])
    starts = np.array([first for first, part in zip(lengths, parts, strict=False) if part.begins], np.int64)
    data, at, record = _paths(folder, i)
    tokens.tofile(data)
    kept = None if same else write_covered(data.with_suffix(".bytes"), np.concatenate(sizes))
    np.save(at, starts)
    entry = {
        "name": data.name,
        "documents": len(starts),
        "tokens": len(tokens),
        "bytes": sum(int(x.sum(dtype=np.int64)) for x in sizes),
        "covered": kept,
        "dtype": dtype.str,
        "digest": shard_digest(tokens, starts),
    }
    unfinished = record.with_suffix(".new")
    unfinished.write_text(json.dumps(entry))
    unfinished.replace(record)
    return entry


_tally: Tally | None = None  # of a worker process


def _begin_worker(tally: Tally) -> None:
    """Initialise a worker: it watches its parent process, so that it does not outlive a parent that is killed."""
    global _tally
    _tally = tally
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
