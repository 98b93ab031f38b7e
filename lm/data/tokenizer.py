"""A corpus's tokenizer by name: opened, or trained on its documents."""

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from lm.core.errors import UserError
from lm.data.learn import train_sentencepiece
from lm.data.records.records import Readable
from lm.text.hf_tokenizer import HFTokenizer
from lm.text.tokenizers import SPACE, ByteTokenizer, SentencePieceTokenizer, Tokenizer


def open_tokenizer(
    name: str | os.PathLike,
    documents: Iterable[Readable] | None = None,
    path: str | os.PathLike | None = None,
    reserved: Sequence[str] = (),
) -> Tokenizer:
    """A tokenizer by name: "byte", a SentencePiece .model file, a tokenizer.json or a folder with one, or a kind and
    vocabulary size.

    The last, such as "bpe-2048" or "unigram-8192", is the file at `path`, trained on `documents` if need be, the
    `reserved` special tokens being part of its size. To others those that they lack are added.
    """
    return _open(os.fspath(name), documents, path, reserved).with_special(reserved)


def _open(
    name: str,
    documents: Iterable[Readable] | None,
    path: str | os.PathLike | None,
    reserved: Sequence[str],
) -> Tokenizer:
    if name == "byte":
        return ByteTokenizer()
    if trained := re.fullmatch(r"(bpe|unigram)-(\d+)", name):
        if path is None or documents is None:
            raise UserError(f"tokenizer {name} has nothing to be trained on here; give byte or a .model file")
        kept = SentencePieceTokenizer(path) if Path(path).exists() else None
        if kept is None or not kept.has(SPACE):  # as was made once of texts with few spaces
            return train_sentencepiece(documents, int(trained[2]), path, model_type=trained[1], reserved=reserved)
        return kept
    if name.endswith(".json") or os.path.isdir(name):
        return HFTokenizer.open(name)
    if name.endswith(".model") or os.path.exists(name):
        return SentencePieceTokenizer(name)
    raise UserError(
        f"unknown tokenizer {name!r}; give byte, bpe-2048, unigram-2048 (any size), a .model file or a tokenizer.json"
    )
