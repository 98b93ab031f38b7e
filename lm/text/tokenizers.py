"""Text to token ids and back: bytes (ByT5, arXiv:2105.13626), SentencePiece (arXiv:1808.06226), and Hugging Face's
tokenizer.json (`lm.text.hf_tokenizer`).

The first two share their special ids (pad 0, end of text 1, unknown 2), all of them their attributes:

    vocab_size, pad_id, eos_id, unk_id, bos_id (or None), sentinels (their number), fingerprint
    encode(text)   -> int32[tokens]        without an end-of-text id
    encode_sized(text)                     these ids, and how many bytes of the text each covers (`lm.text.covered`)
    encode_marked(text)                    with the special tokens that are spelled in it (`markers`), as chat templates
                                           write them, those for a role (eos, bos, pad, unk) by `special`
    encode_marked_sized(text)              both: these ids, of which special tokens cover the bytes that spell them
    joins(text, at) -> bool                whether a token could reach over this place, whatever the rest of the text is
    decode(ids)    -> str                  parts of a character become U+FFFD; special ids are silent, unless `special`
                                           is set, and always those beyond vocab_size, which a padded embedding makes
    token_bytes()  -> int32[vocab_size]    how many UTF-8 bytes each token stands for; 0 for special ids
    word_starts()  -> bool[vocab_size]     whether a word begins with the token: it spells white space first, or in
                                           WordPiece has no "##"; special tokens are words of their own
    sentinel(i)    -> int                  T5's <extra_id_i>, which no text encodes to
    piece_id(name) -> int                  a special token, or any other, by name
    with_special(names) -> Tokenizer       with these special tokens too: those it lacks come behind all others, and
                                           <extra_id_i> among them is a sentinel
    saved()        -> dict                 all that `from_saved` needs to make it again, ready for JSON

A lossless tokenizer (bytes, and anything `lm.data.learn` makes) keeps decode(encode(text)) == text and
token_bytes()[encode(text)].sum() == len(text.encode()). Others may lower, add or drop characters: of them the bytes of
`encode_sized` alone add up to those of the text. By these bits per byte are exact for all.
"""

import base64
import dataclasses
import hashlib
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
import sentencepiece

from lm.core.errors import UserError, nearest
from lm.text.covered import Sized, sized
from lm.text.hf_tokenizer import HFTokenizer, missing, spaced
from lm.text.joins import WINDOW, settles, spans

SPACE = "\u2581"  # what SentencePiece writes for a space


class Tokenizer(Protocol):
    @property
    def vocab_size(self) -> int: ...
    @property
    def pad_id(self) -> int: ...
    @property
    def eos_id(self) -> int: ...
    @property
    def unk_id(self) -> int: ...
    @property
    def bos_id(self) -> int | None: ...
    @property
    def sentinels(self) -> int: ...
    @property
    def fingerprint(self) -> str: ...
    @property
    def markers(self) -> list[str]: ...
    @property
    def special(self) -> dict[str, str]: ...
    def encode(self, text: str) -> np.ndarray: ...
    def encode_sized(self, text: str) -> Sized: ...
    def encode_marked(self, text: str) -> np.ndarray: ...
    def encode_marked_sized(self, text: str) -> Sized: ...
    def joins(self, text: str, at: int) -> bool: ...
    def decode(self, ids: Iterable[int], special: bool = False) -> str: ...
    def token_bytes(self) -> np.ndarray: ...
    def word_starts(self) -> np.ndarray: ...
    def sentinel(self, i: int) -> int: ...
    def piece_id(self, name: str) -> int: ...
    def with_special(self, names: Sequence[str]) -> "Tokenizer": ...
    def saved(self) -> dict[str, Any]: ...


@dataclasses.dataclass(frozen=True)
class ByteTokenizer:
    """Byte b is token b + 3; after the bytes come `extra_ids` sentinels, which make 384 ids as in ByT5, and after these
    special tokens that were added, by name."""

    extra_ids: int = 125
    added: tuple[str, ...] = ()

    pad_id = 0
    eos_id = 1
    unk_id = 2
    bos_id = None
    first_byte = 3
    end = (eos_id,)
    around = ((), end)
    special: ClassVar[dict[str, str]] = {}

    @property
    def vocab_size(self) -> int:
        return self.first_byte + 256 + self.extra_ids + len(self.added)

    @property
    def sentinels(self) -> int:
        return self.extra_ids

    @property
    def fingerprint(self) -> str:
        names = f"-{hashlib.blake2b(repr(self.added).encode(), digest_size=16).hexdigest()}" if self.added else ""
        return f"byte-{self.extra_ids}{names}"

    def encode(self, text: str) -> np.ndarray:
        return np.frombuffer(text.encode(), np.uint8).astype(np.int32) + self.first_byte

    def encode_marked(self, text: str) -> np.ndarray:
        return self.encode_marked_sized(text).ids

    def encode_marked_sized(self, text: str) -> Sized:
        return marked(text, self.markers, self.encode_sized, self.piece_id)

    @property
    def markers(self) -> list[str]:
        return ["<pad>", "</s>", "<unk>", *(f"<extra_id_{i}>" for i in range(self.extra_ids)), *self.added]

    def encode_sized(self, text: str) -> Sized:
        ids = self.encode(text)
        return Sized(ids, np.ones(len(ids), np.int32))

    def joins(self, text: str, at: int) -> bool:
        return False

    def decode(self, ids: Iterable[int], special: bool = False) -> str:
        if special:
            return spelled(ids, {self.piece_id(name): name for name in self.markers}, self.decode)
        codes = np.asarray(ids, np.int64).reshape(-1) - self.first_byte
        return codes[(codes >= 0) & (codes < 256)].astype(np.uint8).tobytes().decode(errors="replace")

    def token_bytes(self) -> np.ndarray:
        ids = np.arange(self.vocab_size)
        return ((ids >= self.first_byte) & (ids < self.first_byte + 256)).astype(np.int32)

    def word_starts(self) -> np.ndarray:
        code = np.arange(self.vocab_size) - self.first_byte
        return (code < 0) | (code >= 256) | np.isin(code, list(b" \t\n\r"))

    def sentinel(self, i: int) -> int:
        if not 0 <= i < self.extra_ids:
            raise UserError(f"the byte tokenizer has {self.extra_ids} sentinels, not {i + 1}; raise extra_ids")
        return self.first_byte + 256 + i

    def with_special(self, names: Sequence[str]) -> "ByteTokenizer":
        new = [name for name in missing(names, self.markers) if len(name.encode()) > 1]
        sentinels = {f"<extra_id_{i}>" for i in range(self.extra_ids + len(new))}
        more = len(sentinels.intersection(new))
        if more and not self.added:  # in a row behind those there are
            grown = dataclasses.replace(self, extra_ids=self.extra_ids + more)
            return grown.with_special(names)
        if more:
            raise UserError(f"{new[0]!r} would come behind the special tokens {self.added}: give sentinels first")
        return dataclasses.replace(self, added=(*self.added, *new))

    def piece_id(self, name: str) -> int:
        if name in self.added:
            return self.vocab_size - len(self.added) + self.added.index(name)
        if sentinel := re.fullmatch(r"<extra_id_(\d+)>", name):
            return self.sentinel(int(sentinel[1]))
        if name in (named := self.markers[: self.first_byte]):
            return named.index(name)
        if len(name.encode()) != 1:
            raise UserError(f"the byte tokenizer has no token {name!r}; it has single bytes and <extra_id_0> ...")
        return self.first_byte + name.encode()[0]

    def saved(self) -> dict[str, Any]:
        return {"kind": "byte", "extra_ids": self.extra_ids} | ({"added": list(self.added)} if self.added else {})


class SentencePieceTokenizer:
    """A SentencePiece .model file, from `lm.data.learn` or published (T5, LLaMA, Mistral ...).

    `model` is the file's content, from which `from_bytes` makes the tokenizer again."""

    def __init__(self, path: str | os.PathLike):
        path = Path(path).expanduser()
        try:
            model = path.read_bytes()
        except OSError as e:
            raise UserError(f"cannot read tokenizer {path}: {e.strerror}") from e
        self._load(model, str(path))

    @classmethod
    def from_bytes(cls, model: bytes, name: str = "the saved tokenizer") -> "SentencePieceTokenizer":
        """The tokenizer of a .model file with this content; `name` is what errors call it."""
        tokenizer = cls.__new__(cls)
        tokenizer._load(model, name)
        return tokenizer

    def _load(self, model: bytes, name: str) -> None:
        try:
            sp = sentencepiece.SentencePieceProcessor(model_proto=model) if model else None
        except RuntimeError as e:  # the only error it has
            raise UserError(f"{name} is not a SentencePiece model; train or copy it anew") from e
        if sp is None or sp.vocab_size() == 0:
            raise UserError(f"{name} is empty; train or copy the tokenizer anew")
        if sp.eos_id() < 0:
            raise UserError(f"{name} has no end-of-text id; train it with eos_id")
        self.model, self.name = model, name
        self._sp = sp
        self.vocab_size: int = sp.vocab_size()
        self.eos_id: int = sp.eos_id()
        self.unk_id: int = sp.unk_id()
        self.bos_id: int | None = sp.bos_id() if sp.bos_id() >= 0 else None
        self.pad_id: int = sp.pad_id() if sp.pad_id() >= 0 else sp.unk_id()  # LLaMA's model has none
        self._pieces = pieces = {sp.id_to_piece(i): i for i in range(self.vocab_size)}
        sentinels = (f"<extra_id_{i}>" for i in range(self.vocab_size))
        self._sentinels = [pieces[name] for name in sentinels if name in pieces]
        # The library turns a literal U+2581 into a space; spelling it in bytes keeps it. Published ones, which put a
        # space before every text, were trained without such care.
        spelled = [pieces[f"<0x{b:02X}>"] for b in SPACE.encode() if f"<0x{b:02X}>" in pieces]
        self._space = [] if sp.normalize("a") != "a" else spelled
        digest = hashlib.blake2b(model, digest_size=16).hexdigest()
        self.fingerprint = f"sentencepiece-{sentencepiece.__version__}-{digest}"

    def __reduce__(self):  # the library's object does not pickle in all its versions
        return SentencePieceTokenizer.from_bytes, (self.model, self.name)

    @property
    def sentinels(self) -> int:
        return len(self._sentinels)

    def encode(self, text: str) -> np.ndarray:
        if SPACE not in text or not self._space:
            return np.asarray(self._sp.encode(text), np.int32)
        ids: list[int] = []
        for i, part in enumerate(text.split(SPACE)):
            ids += self._space * (i > 0) + self._sp.encode(part)
        return np.asarray(ids, np.int32)

    def encode_sized(self, text: str) -> Sized:
        return sized(text, self.encode(text), self.token_bytes(), lambda: self._ends(text))

    def _ends(self, text: str) -> list[int]:
        """The character of the text behind each token."""
        ends: list[int] = []
        first = 0
        for part in text.split(SPACE) if self._space else [text]:
            ends += [first] * len(self._space) if first else []  # of the space symbol before this part
            _, origin = self._sp.normalize(part, with_offsets=True)
            at = 0  # in the normalised text, which the pieces spell
            for i, piece in zip(self._sp.encode(part), self._sp.encode(part, out_type=str), strict=True):
                if self._sp.is_byte(i):  # the first of a character's bytes stands for it
                    at += not 0x80 <= int(piece[3:5], 16) < 0xC0
                else:
                    at += len(piece)
                ends.append(first + origin[at])
            first += len(part) + 1
        return ends

    def joins(self, text: str, at: int) -> bool:
        pieces, longest = self._spelled
        reach = max(WINDOW, longest)
        left, right = text[max(0, at - reach) : at], text[at : at + reach]
        whole, head = self._sp.normalize(left + right), self._sp.normalize(left)
        if self._sp.encode(left)[-1:] == [self.unk_id]:
            return True  # it may go on: what is unknown is one token
        if whole.startswith(head) and not spans(whole, len(head), pieces, longest):
            return False
        same = {text: text.replace(" ", SPACE) for text in (left + right, " a b ")}
        if longest > WINDOW // 2 or any(self._sp.normalize(text) != as_it_is for text, as_it_is in same.items()):
            return True
        return not settles(lambda part: self.encode(part).tolist(), left + right, len(left), longest)

    @cached_property
    def _spelled(self) -> tuple[frozenset[str], int]:
        """The pieces that text is spelled with, and the length of the longest."""
        sp = self._sp
        spelled = (i for i in range(self.vocab_size) if not (sp.is_control(i) or sp.is_unknown(i) or sp.is_byte(i)))
        pieces = frozenset(map(sp.id_to_piece, spelled))
        return pieces, max(map(len, pieces), default=1)

    def encode_marked(self, text: str) -> np.ndarray:
        return self.encode_marked_sized(text).ids

    def encode_marked_sized(self, text: str) -> Sized:
        return marked(text, self.markers, self.encode_sized, self.piece_id)

    @property
    def markers(self) -> list[str]:
        return [piece for piece, i in self._pieces.items() if self._sp.is_control(i)]

    @property
    def special(self) -> dict[str, str]:
        ids = {"eos": self._sp.eos_id(), "bos": self._sp.bos_id(), "pad": self._sp.pad_id(), "unk": self._sp.unk_id()}
        return {role: self._sp.id_to_piece(i) for role, i in ids.items() if i >= 0}

    def decode(self, ids: Iterable[int], special: bool = False) -> str:
        if special:
            return spelled(ids, {self._pieces[name]: name for name in self.markers}, self.decode)
        return self._sp.decode([i for i in np.asarray(ids).reshape(-1).tolist() if 0 <= i < self.vocab_size])

    def token_bytes(self) -> np.ndarray:
        return self._sizes

    def word_starts(self) -> np.ndarray:
        sp = self._sp
        special = [sp.is_control(i) or sp.is_unknown(i) for i in range(self.vocab_size)]
        return np.array(special) | [spaced(sp.id_to_piece(i)) for i in range(self.vocab_size)]

    @cached_property
    def _sizes(self) -> np.ndarray:
        sp = self._sp

        def size(i: int) -> int:
            if sp.is_control(i) or sp.is_unknown(i):
                return 0
            return 1 if sp.is_byte(i) else len(sp.id_to_piece(i).replace(SPACE, " ").encode())

        return np.array([size(i) for i in range(self.vocab_size)], np.int32)

    def sentinel(self, i: int) -> int:
        if not 0 <= i < self.sentinels:
            remedy = "train one with more sentinels"
            raise UserError(f"tokenizer {self.name} has {self.sentinels} sentinels, not {i + 1}; {remedy}")
        return self._sentinels[i]

    def piece_id(self, name: str) -> int:
        if name not in self._pieces:
            raise UserError(f"tokenizer {self.name} has no token {name!r}{nearest(name, self._pieces)}")
        return self._pieces[name]

    def with_special(self, names: Sequence[str]) -> "SentencePieceTokenizer":
        new = missing(names, self._pieces)
        # Fields of a protocol buffer that repeat may stand anywhere: what is behind the others comes last.
        return SentencePieceTokenizer.from_bytes(self.model + b"".join(map(_control, new)), self.name) if new else self

    def has(self, piece: str) -> bool:
        return piece in self._pieces

    def saved(self) -> dict[str, Any]:
        return {"kind": "sentencepiece", "model": base64.b64encode(self.model).decode()}


def _control(piece: str) -> bytes:
    """A control symbol as an entry of a SentencePiece model: ModelProto.pieces, {piece: 1, score: 2, type: 3}."""
    name = piece.encode()
    entry = b"\x0a" + _varint(len(name)) + name + b"\x15" + bytes(4) + b"\x18\x03"
    return b"\x0a" + _varint(len(entry)) + entry


def _varint(n: int) -> bytes:
    return bytes([n]) if n < 128 else bytes([n % 128 | 128]) + _varint(n // 128)


def marked(text: str, markers: Sequence[str], encode: Callable[[str], Sized], piece_id: Callable[[str], int]) -> Sized:
    """The tokens of a text in which special tokens are spelled, the longest first."""
    either = "|".join(map(re.escape, sorted(markers, key=len, reverse=True)))
    parts = re.split(f"({either})", text) if markers else [text]
    found = [Sized(np.zeros(0, np.int32), np.zeros(0, np.int32))]
    for i, part in enumerate(parts):
        if part:
            found.append(Sized(np.array([piece_id(part)]), np.array([len(part.encode())])) if i % 2 else encode(part))
    return Sized(*(np.concatenate(arrays).astype(np.int32) for arrays in zip(*found, strict=True)))


def spelled(ids: Iterable[int], names: Mapping[int, str], decode: Callable[[list[int]], str]) -> str:
    """The text of ids, with these special tokens by name."""
    parts: list[str | list[int]] = [[]]
    for i in np.asarray(ids).reshape(-1).tolist():
        if i in names:
            parts += [names[i], []]
        else:
            parts[-1].append(i)  # type: ignore[union-attr]
    return "".join(part if isinstance(part, str) else decode(part) for part in parts)


KINDS: dict[str, Callable[..., Tokenizer]] = {
    "byte": lambda extra_ids, added=(): ByteTokenizer(extra_ids, tuple(added)),
    "sentencepiece": lambda model: SentencePieceTokenizer.from_bytes(base64.b64decode(model)),
    "hf": HFTokenizer,
}


def from_saved(saved: dict[str, Any]) -> Tokenizer:
    """The tokenizer that `saved()` describes."""
    return KINDS[saved["kind"]](**{key: value for key, value in saved.items() if key != "kind"})
