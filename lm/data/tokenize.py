"""Writing a token cache: this process reads documents in order, and worker processes tokenise them shard by shard.

The contents of a shard depend only on source and tokenizer, so any number of workers produces the same cache. A long
document is read and tokenised in parts (`lm.data.cuts`): it may span several shards but needs no more memory. What else
a record may be, and what is known of its tokens besides, is said by `lm.data.records`. A shard
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
from collections import Counter, deque
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
from lm.data.cache import TokenCache, narrowed, shard_digest, write_channel, write_covered
from lm.data.progress import Progress
from lm.data.records.documents import Documents
from lm.data.records.records import Item, Readable, Records
from lm.data.transforms.transform import TransformedSource
from lm.text.format import TextFormat
from lm.text.tokenizers import Tokenizer

SHARD = (
    16 << 20
)  # bytes of text, to the end of a document or of a part of a long one: seconds of work, and of what a kill can cost
DROPPED = "dropped.json"  # beside the cache of transformed documents: the report of what was dropped
SPAWN = multiprocessing.get_context("spawn")
ShardRecord = dict[str, Any]
Ids = tuple[int, ...]


class Corpus(Protocol):
    """What a cache is built from, such as `lm.data.sources.Source`. Different text has a different fingerprint."""

    @property
    def fingerprint(self) -> str: ...
    @property
    def done(self) -> float: ...  # the share that has been read
    def __iter__(self) -> Iterator[Readable]: ...


def build_cache(
    source: Corpus,
    tokenizer: Tokenizer,
    directory: str | os.PathLike,
    workers: int | None = None,
    shard: int = SHARD,
    before: Ids = (),
    records: Records = Documents(),
    text: TextFormat | None = None,
) -> TokenCache:
    """Open the cache of this source and tokenizer below `directory`, writing it first if necessary. Each document
    becomes `before` (such as a begin-of-text), its tokens, and the end-of-text. `records` that are none become what
    these say, for a model that expects text as `text` says (by default, as a decoder of ours does).

    A source of more than one shard is tokenised by `workers` processes (default: one per core). If several processes
    want the same cache, one writes it and the others wait. Raises UserError for a folder or disk that cannot be
    written, a corpus without text, and any error of the source."""
    text = (text or TextFormat.of(tokenizer, None, reads=False))._replace(tokenizer=tokenizer, before=before)
    identity = (
        f"{TOKEN_CACHE.number}:{source.fingerprint}:{tokenizer.fingerprint}:{np.__version__}:{shard}{before or ''}"
        f"{records.fingerprint(text)}"
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
                    _write(source, records, text, unfinished, workers or os.cpu_count() or 1, shard)
                    unfinished.rename(final)
                    for leftover in chain(final.glob("*.json"), final.glob("*.starts.npy")):
                        if leftover.name not in ("meta.json", DROPPED):
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


def _write(source: Corpus, records: Records, text: TextFormat, folder: Path, workers: int, shard: int) -> None:
    records.check(source)
    counts = {"dropped": 0, "read": 0}
    tally = Tally()
    groups = _groups(source, records, text, shard, counts)
    with Progress("tokenising", lambda: (source.done * tally.value / max(1, counts["read"]), tally.value)):
        written = list(_shards(groups, records, text, folder, workers, tally))
    left_out = Counter[str]()
    for record in written:
        left_out.update(record["left_out"])
    if isinstance(source, TransformedSource):
        left_out.update(source.report.counts)
        (folder / DROPPED).write_text(json.dumps(source.report.as_dict(), indent=1, ensure_ascii=False) + "\n")
    if not sum(record["tokens"] for record in written):
        why = ", ".join(f"{count:,} {reason}" for reason, count in left_out.items()) or "every document is empty"
        raise UserError(f"the corpus has no text: {why}; check the source and its field")
    firsts = np.cumsum([0] + [record["tokens"] for record in written])
    starts = [np.load(_paths(folder, i)[1]) + first for i, first in enumerate(firsts[:-1])]
    np.save(folder / "offsets.npy", np.concatenate([*starts, firsts[-1:]]))
    np.save(folder / "table.npy", text.tokenizer.token_bytes())
    kept = ("name", "tokens", "bytes", "covered", "digest", *(("channels",) if records.channels else ()))
    shards = [{key: record[key] for key in kept} for record in written]
    meta = {
        KEY: TOKEN_CACHE.number,
        **{key: sum(record[key] for record in written) for key in ("documents", "tokens", "bytes")},
        "dropped": counts["dropped"],
        "dtype": _dtype(text.tokenizer).str,
        "digest": hashlib.blake2b(repr([s["digest"] for s in shards]).encode(), digest_size=16).hexdigest(),
        "source": source.fingerprint,
        "tokenizer": text.tokenizer.fingerprint,
        "numpy": np.__version__,
        **({"channels": records.channels} if records.channels else {}),
        **({"whole": True} if records.whole else {}),
        **({"left_out": left_out} if left_out else {}),
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


def _groups(
    source: Corpus, records: Records, text: TextFormat, size: int, counts: dict[str, int]
) -> Iterator[list[Item]]:
    """The items of each shard: whole documents, of a long one parts. Adds to `counts` how many documents had no text,
    and how much is read."""
    group: list[Item] = []
    room = size
    for document in source:
        empty = True
        for item in records.items(document, text):
            empty = False
            group.append(item)
            room -= item.size
            counts["read"] += item.size
            if room <= 0:
                yield group
                group, room = [], size
        counts["dropped"] += empty
    if group:
        yield group


def _shards(
    groups: Iterator[list[Item]], records: Records, text: TextFormat, folder: Path, workers: int, tally: Tally
) -> Iterator[ShardRecord]:
    """Every shard's record, in order, once its files are written."""
    first = list(islice(groups, 2))
    numbered = ((i, items, _finished(folder, i, tally)) for i, items in enumerate(chain(first, groups)))
    if workers == 1 or len(first) < 2:
        for i, items, finished in numbered:
            yield finished or write_shard(items, records, text, folder, i, tally)
        return
    pool = ProcessPoolExecutor(workers, SPAWN, initializer=_begin_worker, initargs=(tally,))
    pending: deque[Future | ShardRecord] = deque()
    try:
        for i, items, finished in numbered:
            pending.append(finished or pool.submit(_work, items, records, text, folder, i))
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


def _work(items: list[Item], records: Records, text: TextFormat, folder: Path, i: int) -> ShardRecord:
    return write_shard(items, records, text, folder, i, _tally)


def _record(shard: Future | ShardRecord) -> ShardRecord:
    return shard.result() if isinstance(shard, Future) else shard


def _paths(folder: Path, i: int) -> tuple[Path, Path, Path]:
    """Of shard i: tokens, where its documents start, record."""
    return folder / f"{i:05d}.bin", folder / f"{i:05d}.starts.npy", folder / f"{i:05d}.json"


def _dtype(tokenizer: Tokenizer) -> np.dtype:
    return np.dtype("<u2" if tokenizer.vocab_size <= 1 << 16 else "<u4")


def _finished(folder: Path, i: int, tally: Tally) -> ShardRecord | None:
    """The record of a shard that an earlier build finished, if its files match the record."""
    data, starts, record = _paths(folder, i)
    try:
        entry = json.loads(record.read_text())
        tokens = np.fromfile(data, np.dtype(entry["dtype"]))
        channels = {name: np.fromfile(data.with_suffix(f".{name}"), kind) for name, kind in entry["channels"].items()}
        sound = shard_digest(tokens, np.load(starts), channels) == entry["digest"]
        if entry["covered"] is not None:
            sound &= np.fromfile(data.with_suffix(".bytes"), entry["covered"]).sum(dtype=np.int64) == entry["bytes"]
    except (OSError, ValueError, EOFError, KeyError, TypeError):
        return None
    if not sound:
        return None
    tally.add(entry["bytes"])
    return entry


def write_shard(
    items: list[Item], records: Records, text: TextFormat, folder: Path, i: int, tally: Tally | None = None
) -> ShardRecord:
    """Tokenise and write shard i, its record last. Runs in a worker process."""
    dtype, table = _dtype(text.tokenizer), text.tokenizer.token_bytes()
    ids, sizes, begins = [np.zeros(0, dtype)], [np.zeros(0, np.uint8)], []  # of each item, in narrow types
    channels: dict[str, list[np.ndarray]] = {name: [np.zeros(0, np.uint8)] for name in records.channels}
    left_out: Counter[str] = Counter()
    same = True  # as the table says
    for item in items:
        made = records.encode(item, text)
        if tally is not None:
            tally.add(item.size)
        if made.left_out:
            left_out[made.left_out] += 1
            continue
        same &= np.array_equal(table[made.ids], made.covered)
        ids.append(made.ids.astype(dtype))
        sizes.append(made.covered.astype(np.min_scalar_type(int(made.covered.max(initial=0)))))
        begins.append(item.begins)
        for name, values in channels.items():
            values.append(narrowed(made.channels[name]))
    tokens, covered = np.concatenate(ids), np.concatenate(sizes)
    firsts = np.cumsum([len(x) for x in ids])[:-1]
    starts = firsts[np.array(begins, bool)].astype(np.int64)
    data, at, record = _paths(folder, i)
    tokens.tofile(data)
    joined = {name: narrowed(np.concatenate(values)) for name, values in channels.items()}
    kept = None if same else write_covered(data.with_suffix(".bytes"), covered)
    np.save(at, starts)
    entry = {
        "name": data.name,
        "documents": len(starts),
        "tokens": len(tokens),
        "bytes": int(covered.sum(dtype=np.int64)),
        "covered": kept,
        "dtype": dtype.str,
        "channels": {name: write_channel(data.with_suffix(f".{name}"), values) for name, values in joined.items()},
        "left_out": left_out,
        "digest": shard_digest(tokens, starts, joined),
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
