"""The token cache: a tokenised corpus as memory-mapped shards, written by `lm.data.tokenize`.

A cache is a folder named after the fingerprints of source, tokenizer and NumPy version: a changed source gets a new
folder, so a running process never has its mapped files replaced. It holds

    00000.bin ...  uint16 or uint32[tokens]   documents in order, each ending in the end-of-text id, and starting with
                                              a begin-of-text id if one was asked for; a long document continues in
                                              the next shard
    00000.bytes    unsigned[tokens]           bytes of text that each token covers, if they differ from table.npy
    00000.target   number[tokens]             a channel (`lm.data.channels`); so of each that the cache has
    table.npy      int32[vocabulary]          bytes of text that each token stands for on its own
    offsets.npy    int64[documents + 1]       where each document starts, and finally the number of tokens
    meta.json      format number, counts, each shard's size and hash, and the digest of the whole, which run records
                   keep
"""

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from lm.core.errors import UserError
from lm.core.formats import TOKEN_CACHE, format_of

HASHED = 1 << 31  # bytes: smaller caches are hashed when opened; for larger ones only file sizes are checked
INT32 = np.dtype(np.int32)
NO_CHANNELS: Mapping[str, np.ndarray] = {}


@dataclass(frozen=True)
class TokenCache:
    directory: Path
    shards: tuple[np.ndarray, ...] = field(repr=False)  # each [tokens], memory-mapped
    offsets: np.ndarray = field(repr=False)  # int64[documents + 1]
    bytes: int  # of UTF-8 text; end-of-text ids cover none
    dropped: int  # documents without text
    digest: str  # of tokens and offsets: identifies the data
    table: np.ndarray | None = field(default=None, repr=False)  # int32[vocabulary]: bytes of each token on its own
    covered: tuple[np.ndarray | None, ...] = field(default=(), repr=False)  # per shard: [tokens], or None: as `table`
    channels: Mapping[str, tuple[np.ndarray, ...]] = field(default_factory=dict, repr=False)  # per shard: [tokens]
    whole: bool = False  # its documents are records that are not to be cut
    left_out: Mapping[str, int] = field(default_factory=dict)  # records that are not in it: why, and how many

    @property
    def documents(self) -> int:
        return len(self.offsets) - 1

    @property
    def size(self) -> int:
        """The number of tokens."""
        return int(self.offsets[-1])

    @cached_property
    def _ends(self) -> np.ndarray:
        """int64[shards]: where each shard ends in the token stream."""
        return np.cumsum([len(shard) for shard in self.shards])

    def read(self, start: int, stop: int) -> np.ndarray:
        """int32[stop - start]: tokens [start, stop) of the stream, 0 <= start <= stop <= size."""
        return self._gather(start, stop, lambda i, place: self.shards[i][place])

    def read_bytes(self, start: int, stop: int) -> np.ndarray:
        """int32[stop - start]: bytes of text that each of these tokens covers. Over a document they add up to the UTF-8
        bytes of its text, even where the tokenizer changes the text."""
        return self._gather(start, stop, self._bytes)

    def read_channel(self, name: str, start: int, stop: int) -> np.ndarray:
        """int32 or float32 [stop - start]: what the channel says of these tokens."""
        shards = self.channels[name]
        return self._gather(start, stop, lambda i, place: shards[i][place], self.channel_type(name))

    def channel_type(self, name: str) -> np.dtype:
        """int32, or float32 of real numbers."""
        real = any(np.issubdtype(shard.dtype, np.floating) for shard in self.channels[name])
        return np.dtype(np.float32 if real else np.int32)

    def _bytes(self, i: int, part: slice) -> np.ndarray | int:
        if self.covered and (own := self.covered[i]) is not None:
            return own[part]
        return 0 if self.table is None else self.table[self.shards[i][part]]

    def _gather(
        self, start: int, stop: int, part: Callable[[int, slice], np.ndarray | int], dtype: np.dtype = INT32
    ) -> np.ndarray:
        """dtype[stop - start], concatenated from `part(shard, slice)` of the shards that hold these tokens."""
        if not 0 <= start <= stop <= self.size:
            raise IndexError((start, stop))
        found = np.empty(stop - start, dtype)
        at = start
        for i in range(int(np.searchsorted(self._ends, start, side="right")), len(self.shards)):
            if at >= stop:
                break
            base = int(self._ends[i]) - len(self.shards[i])
            end = min(stop, int(self._ends[i]))
            found[at - start : end - start] = part(i, slice(at - base, end - base))
            at = end
        return found

    def __reduce__(self):  # data workers map the files themselves instead of receiving a copy
        return TokenCache.open, (self.directory, False)

    @classmethod
    def open(cls, directory: str | os.PathLike, verify: bool = True) -> "TokenCache":
        """Memory-map an existing cache folder.

        Raises UserError if file sizes are inconsistent or, for caches of up to HASHED bytes and unless `verify` is off,
        if the contents have changed since they were written."""
        directory = Path(directory)
        try:
            meta = json.loads((directory / "meta.json").read_text())
            format_of(meta, TOKEN_CACHE, directory)
            offsets = np.load(directory / "offsets.npy", mmap_mode="r")
            table = np.load(directory / "table.npy")
            dtype, listed = np.dtype(meta["dtype"]), [(s["name"], s["tokens"], s["digest"]) for s in meta["shards"]]
            sizes = [(directory / name).stat().st_size for name, _, _ in listed]
            covered = tuple(_covered(directory, shard) for shard in meta["shards"])
            channels = {name: _channel(directory, meta["shards"], name) for name in meta.get("channels", ())}
        except UserError:
            raise
        except (OSError, ValueError, EOFError, KeyError, TypeError) as e:
            raise _damaged(directory, str(e)) from e
        for (name, tokens, _), size in zip(listed, sizes, strict=True):
            if size != tokens * dtype.itemsize:
                raise _damaged(directory, f"{name} has {size} bytes, not {tokens * dtype.itemsize}")
        total = sum(tokens for _, tokens, _ in listed)
        if len(offsets) != meta["documents"] + 1 or offsets[-1] != total:
            raise _damaged(directory, f"offsets.npy tells of {len(offsets) - 1} documents, not {meta['documents']}")
        shards = tuple(np.memmap(directory / name, dtype, mode="r") for name, _, _ in listed)
        if verify and sum(sizes) <= HASHED:
            ends = np.cumsum([0] + [tokens for _, tokens, _ in listed])
            for i, ((name, _, digest), shard, first, last) in enumerate(
                zip(listed, shards, ends[:-1], ends[1:], strict=True)
            ):
                begin, end = np.searchsorted(offsets, (first, last))
                own = {channel: values[i] for channel, values in channels.items()}
                if shard_digest(shard, offsets[begin:end] - first, own) != digest:
                    also = "".join(f", {name.removesuffix('bin')}{channel}" for channel in own)
                    raise _damaged(directory, f"{name}{also} or offsets.npy has changed since it was written")
            covered_bytes = sum(int(own.sum(dtype=np.int64)) for own in covered if own is not None)
            if covered_bytes != sum(s["bytes"] for s in meta["shards"] if s["covered"]):
                raise _damaged(directory, "a file of bytes has changed since it was written")
        more = (channels, meta.get("whole", False), meta.get("left_out", {}))
        return cls(directory, shards, offsets, meta["bytes"], meta["dropped"], meta["digest"], table, covered, *more)


def write_covered(path: Path, covered: np.ndarray) -> str:
    """Write the bytes that each token of a shard covers to `path`. Returns the dtype, the narrowest that fits."""
    narrow = covered.dtype.newbyteorder("<")
    covered.astype(narrow).tofile(path)
    return narrow.str


def write_channel(path: Path, values: np.ndarray) -> str:
    """Write a shard's channel to `path`. Returns the dtype: the narrowest of whole numbers that fits, or float32."""
    narrow = narrowed(values)
    narrow.tofile(path)
    return narrow.dtype.str


def narrowed(values: np.ndarray) -> np.ndarray:
    """A channel in the dtype that a cache keeps it in."""
    if np.issubdtype(values.dtype, np.floating):
        return values.astype("<f4")
    bounds = (int(values.min(initial=0)), int(values.max(initial=0)))
    dtype = np.result_type(*map(np.min_scalar_type, bounds))
    return values.astype(dtype.newbyteorder("<"))


def _covered(directory: Path, shard: dict) -> np.ndarray | None:
    if shard["covered"] is None:
        return None
    return _mapped((directory / shard["name"]).with_suffix(".bytes"), shard["covered"], shard["tokens"])


def _channel(directory: Path, shards: list[dict], name: str) -> tuple[np.ndarray, ...]:
    """[tokens] of each shard."""
    return tuple(
        _mapped((directory / s["name"]).with_suffix(f".{name}"), s["channels"][name], s["tokens"]) for s in shards
    )


def _mapped(path: Path, kept_as: str, tokens: int) -> np.ndarray:
    dtype = np.dtype(kept_as)
    if path.stat().st_size != tokens * dtype.itemsize:
        raise ValueError(f"{path.name} has {path.stat().st_size} bytes, not {tokens * dtype.itemsize}")
    return np.memmap(path, dtype, mode="r")


def shard_digest(tokens: np.ndarray, starts: np.ndarray, channels: Mapping[str, np.ndarray] = NO_CHANNELS) -> str:
    """Hash of a shard's tokens, document starts and channels, as they are kept."""
    digest = hashlib.blake2b(np.ascontiguousarray(tokens).view(np.uint8).data, digest_size=16)
    digest.update(np.ascontiguousarray(starts, np.int64).view(np.uint8).data)
    for name in sorted(channels):
        digest.update(f"{name}{channels[name].dtype.str}".encode())
        digest.update(np.ascontiguousarray(channels[name]).view(np.uint8).data)
    return digest.hexdigest()


def _damaged(directory: Path, what: str) -> UserError:
    return UserError(f"token cache {directory} is damaged ({what}); delete the folder to have it built anew")
