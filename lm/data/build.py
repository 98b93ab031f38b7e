"""Writing a token cache: documents are read here, in order, and tokenised shard by shard in processes.

What is in a shard depends on the source alone, so any number of processes makes the same cache. Each shard is complete
when its record is there: a build that was killed goes on with the first shard that is missing. The folder gets its
name when all are done.
"""

import contextlib
import fcntl
import hashlib
import json
import multiprocessing
import os
import threading
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import chain, islice
from multiprocessing import connection
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from lm.core.errors import UserError
from lm.data.cache import TokenCache, shard_digest, write_covered
from lm.data.sources import Document, LongDocument
from lm.data.tokenizers import Tokenizer

FORMAT = 3
SHARD = 16 << 20  # bytes of text, to the end of a document: seconds of work, and of what a kill can cost
Record = dict[str, Any]
Ids = tuple[int, ...]


class Documents(Protocol):
    """What a cache is built from; `lm.data.sources.Source` is one. Other text, another fingerprint."""

    @property
    def fingerprint(self) -> str: ...
    def __iter__(self) -> Iterator[Document | LongDocument]: ...
    def __len__(self) -> int: ...


def build_cache(
    source: Documents,
    tokenizer: Tokenizer,
    directory: str | os.PathLike,
    workers: int | None = None,
    shard: int = SHARD,
    before: Ids = (),
) -> TokenCache:
    """The cache of this source in these tokens below `directory`, written first if it is not there. Each document is
    `before`, such as a begin-of-text, its tokens, and the end-of-text.

    A source of more than one shard is tokenised by `workers` processes (default: one a core). Of several processes
    that want the same cache, one writes it and the others wait. Raises UserError for a folder or disk that cannot be
    written, a corpus without text, and whatever the source finds wrong."""
    identity = f"{FORMAT}:{source.fingerprint}:{tokenizer.fingerprint}:{np.__version__}:{shard}{before or ''}"
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
    """Held by one process at a time, until it ends in whatever way."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _write(source: Documents, tokenizer: Tokenizer, folder: Path, workers: int, shard: int, before: Ids) -> None:
    counts = {"dropped": 0}
    with _Progress(source) as progress:
        records = []
        for record in _shards(_groups(source, shard, counts), tokenizer, folder, workers, before):
            records.append(record)
            progress.show(record)
    if not records:
        raise UserError("the corpus has no text: every document is empty; check the source and its field")
    firsts = np.cumsum([0] + [record["tokens"] for record in records])
    starts = [np.load(_paths(folder, i)[1]) + first for i, first in enumerate(firsts[:-1])]
    np.save(folder / "offsets.npy", np.concatenate([*starts, firsts[-1:]]))
    np.save(folder / "table.npy", tokenizer.token_bytes())
    shards = [{key: record[key] for key in ("name", "tokens", "bytes", "covered", "digest")} for record in records]
    meta = {
        **{key: sum(record[key] for record in records) for key in ("documents", "tokens", "bytes")},
        **counts,
        "dtype": _dtype(tokenizer).str,
        "digest": hashlib.blake2b(repr([s["digest"] for s in shards]).encode(), digest_size=16).hexdigest(),
        "source": source.fingerprint,
        "tokenizer": tokenizer.fingerprint,
        "numpy": np.__version__,
        "shards": shards,
    }
    (folder / "meta.json").write_text(json.dumps(meta, indent=1) + "\n")


def _groups(source: Documents, size: int, counts: dict[str, int]) -> Iterator[list[str]]:
    """The texts of each shard; how many documents had none is added to `counts`."""
    group: list[str] = []
    room = size
    for document in source:
        if not document.text:
            counts["dropped"] += 1
            continue
        group.append(document.text)
        room -= len(document.text.encode())
        if room <= 0:
            yield group
            group, room = [], size
    if group:
        yield group


def _shards(
    groups: Iterator[list[str]], tokenizer: Tokenizer, folder: Path, workers: int, before: Ids
) -> Iterator[Record]:
    """Every shard's record, in order, once its files are written."""
    first = list(islice(groups, 2))
    numbered = enumerate(chain(first, groups))
    if workers == 1 or len(first) < 2:
        for i, texts in numbered:
            yield _finished(folder, i) or write_shard(texts, tokenizer, folder, i, before)
        return
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), initializer=_end_with_parent)
    pending: deque[Future | Record] = deque()
    try:
        for i, texts in numbered:
            pending.append(_finished(folder, i) or pool.submit(write_shard, texts, tokenizer, folder, i, before))
            if len(pending) > 2 * workers:  # bounds the text in memory
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


def _record(shard: Future | Record) -> Record:
    return shard.result() if isinstance(shard, Future) else shard


def _paths(folder: Path, i: int) -> tuple[Path, Path, Path]:
    """Of shard i: tokens, where its documents start, record."""
    return folder / f"{i:05d}.bin", folder / f"{i:05d}.starts.npy", folder / f"{i:05d}.json"


def _dtype(tokenizer: Tokenizer) -> np.dtype:
    return np.dtype("<u2" if tokenizer.vocab_size <= 1 << 16 else "<u4")


def _finished(folder: Path, i: int) -> Record | None:
    """The record of a shard that an earlier build finished, if its files are as it says."""
    data, starts, record = _paths(folder, i)
    try:
        told = json.loads(record.read_text())
        tokens = np.fromfile(data, np.dtype(told["dtype"]))
        sound = shard_digest(tokens, np.load(starts)) == told["digest"]
        if told["covered"] is not None:
            sound &= np.fromfile(data.with_suffix(".bytes"), told["covered"]).sum(dtype=np.int64) == told["bytes"]
    except (OSError, ValueError, EOFError, KeyError, TypeError):
        return None
    return told if sound else None


def write_shard(texts: list[str], tokenizer: Tokenizer, folder: Path, i: int, before: Ids = ()) -> Record:
    """Tokenise and write shard i, its record last. Runs in a worker process."""
    dtype = _dtype(tokenizer)
    encoded = [tokenizer.encode_sized(text) for text in texts]
    ids = [np.concatenate([before, x.ids, [tokenizer.eos_id]]).astype(dtype) for x in encoded]
    tokens = np.concatenate(ids)
    starts = np.cumsum([0] + [len(x) for x in ids[:-1]])
    data, at, record = _paths(folder, i)
    tokens.tofile(data)
    # of a text that is nothing to the tokenizer, the end of text covers all
    rest = [len(text.encode()) - int(x.bytes.sum()) for text, x in zip(texts, encoded, strict=True)]
    sizes = (len(before), 1)  # of what stands around a text
    covered = np.concatenate(
        [np.pad(x.bytes, sizes, constant_values=(0, more)) for x, more in zip(encoded, rest, strict=True)]
    )
    kept = write_covered(data.with_suffix(".bytes"), tokens, covered, tokenizer.token_bytes())
    np.save(at, starts)
    told = {
        "name": data.name,
        "documents": len(texts),
        "tokens": len(tokens),
        "bytes": int(covered.sum()),
        "covered": kept,
        "dtype": dtype.str,
        "digest": shard_digest(tokens, starts),
    }
    unfinished = record.with_suffix(".new")
    unfinished.write_text(json.dumps(told))
    unfinished.replace(record)
    return told


def _end_with_parent() -> None:
    """A worker's first act: watch the process that started it, so that killing that leaves no worker behind."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


class _Progress:
    """A bar on standard error, once tokenising has taken two seconds."""

    def __init__(self, source: Documents) -> None:
        self.source = source

    def __enter__(self) -> "_Progress":
        console = Console(stderr=True)
        self.visible = console.is_terminal or console.is_jupyter
        text = TextColumn("tokenising: {task.completed:,.0f} documents, {task.fields[megabytes]:,.0f} MB")
        self.bar = Progress(text, BarColumn(), TimeRemainingColumn(), console=console, transient=True)
        self.task = self.bar.add_task("", total=len(self.source) if self.visible else None, megabytes=0.0)
        self.start, self.bytes, self.documents = time.monotonic(), 0, 0
        return self

    def show(self, record: Record) -> None:
        self.bytes += record["bytes"]
        self.documents += record["documents"]
        if self.visible and time.monotonic() - self.start > 2:
            self.bar.start()  # does nothing if started
            self.bar.update(self.task, completed=self.documents, megabytes=self.bytes / 1e6)

    def __exit__(self, *exc: object) -> None:
        if self.bar.live.is_started:
            self.bar.stop()
