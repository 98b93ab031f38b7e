"""Learning a SentencePiece vocabulary (arXiv:1808.06226) from text."""

import hashlib
import heapq
import io
import os
import re
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path

import sentencepiece

from lm.core.errors import UserError, nearest
from lm.data.records.records import Readable
from lm.text.tokenizers import SPACE, ByteTokenizer, SentencePieceTokenizer

CHUNK = 4000  # characters


def train_sentencepiece(
    documents: Iterable[Readable],
    vocab_size: int,
    path: str | os.PathLike,
    *,
    model_type: str = "bpe",
    sentinels: int = 100,
    reserved: Sequence[str] = (),
    max_bytes: int = 1_000_000,
) -> SentencePieceTokenizer:
    """Trains a lossless "bpe" or "unigram" vocabulary on an even sample of the text and writes it to `path`.

    The same documents give the same file. vocab_size counts everything: 3 special ids, the sentinels, the `reserved`
    special tokens (as "<|user|>"; no text encodes to them), 256 bytes, characters, pieces. The default sample takes
    half a second with BPE, five seconds with unigram.
    """
    if model_type not in ("bpe", "unigram"):
        raise UserError(f"unknown tokenizer model {model_type!r}{nearest(model_type, ('bpe', 'unigram'))}")
    if not 260 <= vocab_size <= 1_000_000:
        raise UserError(f"vocabulary of {vocab_size}; give 260 (special ids, bytes, a character) to 1000000")
    control = [f"<extra_id_{i}>" for i in range(sentinels)] + list(reserved)
    for name in reserved:
        if not name or control.count(name) > 1 or name in ("<pad>", "<s>", "</s>", "<unk>"):
            raise UserError(f"reserved token {name!r} is empty or there already; give each another name")
    sample = _sample(documents, max_bytes)
    if not sample:
        raise UserError("no text to train a tokenizer on; give documents that are not empty")
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(sample),
            model_writer=model,
            model_type=model_type,
            vocab_size=vocab_size,
            pad_id=ByteTokenizer.pad_id,
            eos_id=ByteTokenizer.eos_id,
            unk_id=ByteTokenizer.unk_id,
            bos_id=-1,
            control_symbols=control,
            # lossless: no normalisation, and characters without a piece are spelled in bytes
            normalization_rule_name="identity",
            add_dummy_prefix=False,
            remove_extra_whitespaces=False,
            byte_fallback=True,
            character_coverage=_coverage(sample, vocab_size - 264 - len(control)),
            required_chars=SPACE,  # of a text with few spaces, these too
            # runs of spaces may become pieces: a third fewer tokens for indented code
            allow_whitespace_only_pieces=True,
            # unigram: fewer candidates and sub-iterations give as short a code in a third of the time
            seed_sentencepiece_size=max(20_000, 4 * vocab_size),
            num_sub_iterations=1,
            num_threads=2,  # part of the result, so not the machine's number of cores
            max_sentence_length=4 * CHUNK,
            minloglevel=2,
        )
    except RuntimeError as e:
        raise UserError(f"cannot train a vocabulary of {vocab_size}: {_reason(str(e))}") from e
    path = Path(path).expanduser()
    unfinished = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished.write_bytes(model.getvalue())
        os.replace(unfinished, path)
    except OSError as e:
        raise UserError(f"cannot write tokenizer {path}: {e.strerror}; choose another folder") from e
    return SentencePieceTokenizer(path)


def _sample(documents: Iterable[Readable], max_bytes: int) -> list[str]:
    """An even sample of at most max_bytes, in order: the chunks whose indices have the smallest hashes."""
    heap: list[tuple[int, int, str]] = []  # (minus hash, order, chunk): the largest hash on top
    size = 0
    order = 0
    for document in documents:
        for chunk in _chunks(document.pieces()):
            digest = hashlib.blake2b(order.to_bytes(8, "big"), digest_size=8).digest()
            heapq.heappush(heap, (-int.from_bytes(digest, "big"), order, chunk))
            order += 1
            size += len(chunk.encode())
            while size > max_bytes and len(heap) > 1:
                size -= len(heapq.heappop(heap)[2].encode())
    return [chunk for _, _, chunk in sorted(heap, key=lambda entry: entry[1])]


def _coverage(sample: list[str], room: int) -> float:
    """SentencePiece's character coverage: the share of the text covered by its `room` most frequent characters, between
    what SentencePiece allows and its default. Other characters are spelled in bytes; otherwise a small vocabulary could
    hardly be trained on Chinese."""
    counts = Counter(chain.from_iterable(sample))
    common = sum(count for _, count in counts.most_common(max(room, 1)))
    return min(0.9995, max(0.98, common / counts.total() - 1e-9))


def _chunks(pieces: Iterable[str]) -> Iterator[str]:
    """Regroup a text's pieces into chunks of whole lines, at most CHUNK characters each."""
    chunk = ""
    for line in _lines(pieces):
        if len(chunk) + len(line) > CHUNK and chunk:
            yield chunk
            chunk = ""
        chunk += line
    if chunk:
        yield chunk


def _lines(pieces: Iterable[str]) -> Iterator[str]:
    """The lines of a text; long lines come in parts of CHUNK characters."""
    rest = ""  # the start of a line whose end has not been read yet
    for piece in pieces:
        *lines, last = (rest + piece).splitlines(keepends=True) or [""]
        for line in lines:
            yield from (line[at : at + CHUNK] for at in range(0, len(line), CHUNK))
        whole = max(0, len(last) - 1) // CHUNK * CHUNK
        yield from (last[at : at + CHUNK] for at in range(0, whole, CHUNK))
        rest = last[whole:]
    if rest:
        yield rest


def _reason(message: str) -> str:
    """SentencePiece's error message without the source file and C++ condition."""
    if "smaller than required_chars" in message:
        needed = re.search(r"\d+ vs (\d+)", message)
        atoms = needed[1] if needed else "more"
        return f"special ids, bytes and characters alone are {atoms}; give a larger vocabulary"
    if limit := re.search(r"<= (\d+)\.$", message):
        return f"the text yields at most {limit[1]} pieces; give a smaller vocabulary or more text"
    return message
