"""Hugging Face's tokenizer.json (the package `tokenizers`), as `lm.text.tokenizers` wants a tokenizer."""

import hashlib
import json
import os
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from lm.core.errors import UserError, nearest
from lm.text.covered import Sized, sized
from lm.text.joins import PretokenizedJoins

SPACE = "\u2581"  # what SentencePiece-like vocabularies write for a space
BYTE_SPACES = "\u0120\u0109\u010a\u010d"  # space, tab, line feed, carriage return in the byte-level alphabet
ROLES = ("eos", "sep", "pad", "unk", "bos")  # the first but bos that is there stands at the end of a text
# Where no config names them: what published vocabularies call them.
USUAL = {
    "eos": ("<|endoftext|>", "</s>", "<|end_of_text|>", "<eos>", "<|im_end|>", "[SEP]"),
    "bos": ("<s>", "<|begin_of_text|>", "<bos>", "[CLS]"),
    "pad": ("<pad>", "[PAD]", "<|pad|>", "<|finetune_right_pad_id|>"),
    "unk": ("<unk>", "[UNK]"),
    "sep": (),
}


class HFTokenizer:
    """The tokenizer of a tokenizer.json with this content, and its special tokens by role (eos, bos, pad, unk, ...), of
    which None says that there is none. Ids from `size` on, if it is given, are of pieces that stand for the unknown.

    No text becomes a special token, however it is spelled, nor are any added around it. Raises UserError for a content
    that is no tokenizer and for one without a token that could stand at the end of a text."""

    def __init__(
        self,
        content: str,
        special: Mapping[str, str | None],
        name: str = "the saved tokenizer",
        size: int | None = None,
    ):
        self._tokenizer = rules_of(content, name)
        parsed = json.loads(content)
        self._tokenizer.encode_special_tokens = True  # as text, when they are spelled in one
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self.content, self.name = content, name
        self._pieces: dict[str, int] = self._tokenizer.get_vocab(with_added_tokens=True)
        self._added = {t["id"]: t for t in parsed.get("added_tokens", [])}
        self.roles = dict(special)
        found = {role: self._find(role) for role in ROLES}
        eos = next((found[role] for role in ROLES if role != "bos" and found[role] is not None), None)
        if eos is None:
            raise UserError(f"{name} names no end-of-text token; put eos_token into tokenizer_config.json beside it")
        self._size_told = size
        self.vocab_size: int = size or max(self._pieces.values()) + 1
        self.eos_id: int = eos
        self.end = () if found["eos"] is None else (eos,)  # another stands in for it in `eos_id`
        self.bos_id = found["bos"]
        self.unk_id: int = eos if found["unk"] is None else found["unk"]
        self.pad_id: int = eos if found["pad"] is None else found["pad"]
        sentinels = (f"<extra_id_{i}>" for i in range(self.vocab_size))
        self._sentinels = [self._pieces[s] for s in sentinels if s in self._pieces]
        text = json.dumps(parsed)
        self._byte_level = '"type": "ByteLevel"' in text
        digest = hashlib.blake2b((content + repr(sorted(found.items()))).encode(), digest_size=16)
        self.fingerprint = f"hf-{digest.hexdigest()}"

    @classmethod
    def open(cls, path: str | os.PathLike) -> "HFTokenizer":
        """Of a tokenizer.json, or a folder with one; tokenizer_config.json beside it names the special tokens."""
        path = Path(path).expanduser()
        file = path / "tokenizer.json" if path.is_dir() else path
        special: dict[str, str | None] = {}
        for beside in ("special_tokens_map.json", "tokenizer_config.json"):  # the latter counts for more
            special |= _named(file.with_name(beside))
        return cls(tokenizer_json(file), special, str(file))

    def __reduce__(self):
        return HFTokenizer, (self.content, self.roles, self.name, self._size_told)

    def _find(self, role: str) -> int | None:
        if role not in self.roles:
            return next((self._pieces[piece] for piece in USUAL[role] if piece in self._pieces), None)
        piece = self.roles[role]
        if piece is not None and piece not in self._pieces:
            raise UserError(f"{self.name}: its {role} token {piece!r} is not in the vocabulary")
        return None if piece is None else self._pieces[piece]

    @property
    def special(self) -> dict[str, str]:
        return {role: piece for role, piece in self.roles.items() if piece is not None}

    @property
    def sentinels(self) -> int:
        return len(self._sentinels)

    def encode(self, text: str) -> np.ndarray:
        return self._known(self._encoded(text).ids)

    def _known(self, ids: list[int]) -> np.ndarray:
        known = np.asarray(ids, np.int32)
        return known if self._size_told is None else np.where(known < self.vocab_size, known, self.unk_id)

    def _encoded(self, text: str) -> Any:
        encoded = self._tokenizer.encode(text, add_special_tokens=False)
        return encoded if self._said.isdisjoint(encoded.ids) else self._deaf.encode(text, add_special_tokens=False)

    @cached_property
    def _said(self) -> set[int]:
        """Special tokens, which no text becomes but by its unknown parts."""
        return {i for i, token in self._added.items() if token["special"]} - {self.unk_id}

    @cached_property
    def _deaf(self) -> Any:
        """The same tokenizer, but that its rules make no special token of a text that spells one: where it is a piece
        of the vocabulary like others, they may."""
        parsed = json.loads(self._tokenizer.to_str())
        model, names = parsed["model"], {self._added[i]["content"]: f"\ufdd0{i}" for i in self._said}
        if isinstance(model["vocab"], list):  # pieces and scores; no text has the names that these get
            model["vocab"] = [[names.get(piece, piece), score] for piece, score in model["vocab"]]
            for token in parsed["added_tokens"]:
                token["content"] = names.get(token["content"], token["content"])
        if "merges" in model:
            model["merges"] = [pair for pair in map(_pair, model["merges"]) if "".join(pair) not in names]
        deaf = rules_of(json.dumps(parsed | {"post_processor": None}), self.name)
        deaf.encode_special_tokens = True
        deaf.no_padding()
        deaf.no_truncation()
        return deaf

    def encode_sized(self, text: str) -> Sized:
        encoded = self._encoded(text)
        return sized(text, self._known(encoded.ids), self.token_bytes(), lambda: [end for _, end in encoded.offsets])

    def joins(self, text: str, at: int) -> bool:
        return self._joins(text, at)

    @cached_property
    def _joins(self) -> PretokenizedJoins:
        return PretokenizedJoins(self._tokenizer, json.loads(self.content))

    def encode_marked(self, text: str) -> np.ndarray:
        return self._known(self._encoded_marked(text).ids)

    def encode_marked_sized(self, text: str) -> Sized:
        encoded = self._encoded_marked(text)
        return sized(text, self._known(encoded.ids), self.token_bytes(), lambda: [end for _, end in encoded.offsets])

    def _encoded_marked(self, text: str) -> Any:
        self._tokenizer.encode_special_tokens = False
        try:
            return self._tokenizer.encode(text, add_special_tokens=False)
        finally:
            self._tokenizer.encode_special_tokens = True

    @property
    def markers(self) -> list[str]:
        return [token["content"] for token in self._added.values() if token["special"]]

    @property
    def around(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The ids that the tokenizer.json puts before and after a text which a model is to read."""
        bare, whole = (self._tokenizer.encode("a", add_special_tokens=x).ids for x in (False, True))
        at = next((i for i in range(len(whole)) if whole[i : i + len(bare)] == bare), 0)
        return tuple(whole[:at]), tuple(whole[at + len(bare) :])

    def decode(self, ids: Iterable[int], special: bool = False) -> str:
        known = [i for i in np.asarray(ids).reshape(-1).tolist() if 0 <= i < self.vocab_size]
        return self._tokenizer.decode(known, skip_special_tokens=not special)

    def token_bytes(self) -> np.ndarray:
        return self._sizes

    @cached_property
    def _sizes(self) -> np.ndarray:
        sizes = np.zeros(self.vocab_size, np.int32)
        for piece, i in self._pieces.items():
            if i < self.vocab_size:
                sizes[i] = self._size(piece, i)
        return sizes

    def _size(self, piece: str, i: int) -> int:
        if i in self._added:
            return 0 if self._added[i]["special"] else len(piece.encode())
        if self._byte_level:  # one character of that alphabet stands for one byte
            return len(piece)
        if re.fullmatch(r"<0x[0-9A-F]{2}>", piece):
            return 1
        return len(piece.removeprefix("##").replace(SPACE, " ").encode())

    def word_starts(self) -> np.ndarray:
        model = json.loads(self.content)["model"]
        prefix = model.get("continuing_subword_prefix") or ""
        starts = np.zeros(self.vocab_size, bool)
        for piece, i in self._pieces.items():
            if i < self.vocab_size:
                marked = not piece.startswith(prefix) if prefix else spaced(piece, self._byte_level)
                starts[i] = marked or model["type"] == "WordLevel" or (i in self._added and self._added[i]["special"])
        if not starts[[i for i in self._pieces.values() if i < self.vocab_size and i not in self._added]].any():
            raise UserError(
                f"tokenizer {self.name} does not mark which of its tokens begin a word: take another tokenizer, or an "
                "objective that hides single tokens"
            )
        return starts

    def sentinel(self, i: int) -> int:
        if not 0 <= i < self.sentinels:
            raise UserError(f"tokenizer {self.name} has {self.sentinels} sentinels, not {i + 1}; use another tokenizer")
        return self._sentinels[i]

    def piece_id(self, name: str) -> int:
        if name not in self._pieces:
            raise UserError(f"tokenizer {self.name} has no token {name!r}{nearest(name, self._pieces)}")
        return self._pieces[name]

    def with_special(self, names: Sequence[str]) -> "HFTokenizer":
        new = missing(names, self._pieces)
        if not new:
            return self
        if self._size_told is not None:
            raise UserError(f"tokenizer {self.name} has pieces without ids of their own: {new[0]!r} cannot be added")
        made = rules_of(self.content, self.name)
        made.add_special_tokens([_special_token(piece) for piece in new])
        return HFTokenizer(made.to_str(), self.roles, self.name)

    def saved(self) -> dict[str, Any]:
        size = {} if self._size_told is None else {"size": self._size_told}
        return {"kind": "hf", "content": self.content, "special": self.roles, **size}


def spaced(piece: str, byte_level: bool = False) -> bool:
    """Whether what a piece of a vocabulary spells begins with white space."""
    if byte := re.fullmatch(r"<0x([0-9A-F]{2})>", piece):
        return int(byte[1], 16) in b" \t\n\r"
    return piece[:1] in (BYTE_SPACES if byte_level else f"{SPACE} \t\n\r") and piece != ""


def missing(names: Sequence[str], known: Collection[str]) -> list[str]:
    """Those of the names that are not known, in order. Raises `UserError` for one that is empty or given twice."""
    for name in names:
        if not name or list(names).count(name) > 1:
            raise UserError(
                f"special token {name!r} is {'given twice' if name else 'empty'}: give each a name of its own"
            )
    return [name for name in names if name not in known]


def _special_token(piece: str) -> Any:
    from tokenizers import AddedToken

    return AddedToken(piece, special=True, normalized=False)


def _pair(merge: str | list[str]) -> list[str]:
    return merge.split(" ") if isinstance(merge, str) else merge


def tokenizer_json(file: Path) -> str:
    """Its content."""
    try:
        return file.read_text(encoding="utf-8")
    except OSError as e:
        raise UserError(f"cannot read tokenizer {file}: {e.strerror}") from e
    except UnicodeDecodeError as e:
        raise UserError(f"{file} is no tokenizer.json (not UTF-8 at byte {e.start}); copy it anew") from e


def rules_of(content: str, name: str) -> Any:
    """The `tokenizers.Tokenizer` of a tokenizer.json with this content."""
    try:
        from tokenizers import Tokenizer
    except ImportError as e:
        raise UserError(f"{name} needs the package tokenizers: pip install -e '.[hf]'") from e
    try:
        return Tokenizer.from_str(content)
    except Exception as e:  # the library raises this type and no other
        raise UserError(f"{name} is no tokenizer.json ({' '.join(str(e).split())[:120]}); copy it anew") from e


def _named(path: Path) -> dict[str, str | None]:
    """The special tokens by role that a config names, each as a string or as {"content": string}."""
    if not path.is_file():
        return {}
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as e:
        raise UserError(f"{path} is not JSON ({e}); copy it anew") from e
    found: dict[str, str | None] = {}
    for key, token in config.items():
        token = token.get("content") if isinstance(token, dict) else token
        if key.endswith("_token") and (token is None or isinstance(token, str)):
            found[key.removesuffix("_token")] = token
    return found
