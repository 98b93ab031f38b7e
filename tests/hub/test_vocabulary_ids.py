"""M2M's and Marian's folders: pieces of a SentencePiece model, ids of a vocab.json. What is right follows from these
two files alone; transformers gives the same ids and, from tiny random models, the same greedy text."""

import io
import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import sentencepiece

from lm.core.errors import UserError
from lm.hub.text import read_text
from lm.infer.decoding import in_languages
from lm.text.format import TextFormat

pytest.importorskip("tokenizers", reason="the package tokenizers is not installed")
pytest.importorskip("google.protobuf", reason="the package protobuf is not installed")

LINES = ["the old river ran on and on", "a boat, two oars and a sail", "Der alte Fluss fliesst", "le vieux fleuve"] * 30
TEXTS = ["the old river", " a  boat,\ntwo", "", "Ünknown 🙂 sails"]


@cache
def model(kind: str) -> bytes:
    made = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(LINES), model_writer=made, model_type=kind, vocab_size=70, hard_vocab_limit=False,
        minloglevel=2, num_threads=1,
    )  # fmt: skip
    return made.getvalue()


def folder(
    path: Path, of: str, kind: str, **settings: Any
) -> tuple[TextFormat, sentencepiece.SentencePieceProcessor, dict]:
    """The text format of a folder, its SentencePiece model, and its vocab.json, in another order than that."""
    sp = sentencepiece.SentencePieceProcessor(model_proto=model(kind))
    pieces = [sp.id_to_piece(i) for i in reversed(range(3, sp.vocab_size()))]
    if of == "m2m_100":
        order = ["<s>", "<pad>", "</s>", "<unk>", *pieces]
    else:
        order = ["</s>", "<unk>", *pieces, ">>fra<<", ">>deu<<", "<pad>"]
    vocab = {piece: i for i, piece in enumerate(order)}
    (path / ("sentencepiece.bpe.model" if of == "m2m_100" else "source.spm")).write_bytes(model(kind))
    start = 2 if of == "m2m_100" else vocab["<pad>"]
    config = {"model_type": of, "decoder_start_token_id": start, "eos_token_id": vocab["</s>"]}
    for name, value in (("vocab", vocab), ("config", config), ("tokenizer_config", settings)):
        (path / f"{name}.json").write_text(json.dumps(value))
    return read_text(path), sp, vocab


@pytest.mark.parametrize("kind", ["unigram", "bpe"])
@pytest.mark.parametrize("of", ["m2m_100", "marian"])
def test_ids_come_from_the_vocabulary(tmp_path, of, kind):
    text, sp, vocab = folder(tmp_path, of, kind)
    for written in TEXTS:
        want = [vocab.get(piece, vocab["<unk>"]) for piece in sp.encode(written, out_type=str)]
        assert text.tokenizer.encode(written).tolist() == want
    assert text.tokenizer.decode(text.tokenizer.encode("the old river")) == "the old river"
    assert text.tokenizer.encode("</s>").tolist() != [vocab["</s>"]]


def test_m2m_names_languages_behind_the_vocabulary(tmp_path):
    text, _, vocab = folder(tmp_path, "m2m_100", "unigram", src_lang="de", tgt_lang="fr")
    de, fr, en = (len(vocab) + i for i in (16, 24, 18))  # of the hundred: af am ar ast az ...
    assert (text.before, text.after, text.start) == ((de,), (2,), 2)
    assert text.generation == {"forced_bos_token_id": fr}
    other = in_languages(text, "en", "de")
    assert other.before == (en,) and other.generation == {"forced_bos_token_id": de}


def test_marian_reads_the_language_in_the_text(tmp_path):
    text, sp, vocab = folder(tmp_path, "marian", "unigram")
    want = [vocab[piece] for piece in sp.encode("the old river", out_type=str)]
    assert text.tokenizer.encode(">>fra<< the old river").tolist() == [vocab[">>fra<<"], *want]
    assert (text.before, text.after, text.start) == ((), (vocab["</s>"],), vocab["<pad>"])


def test_what_is_wrong_is_told(tmp_path):
    folder(tmp_path, "marian", "unigram")
    (tmp_path / "tokenizer_config.json").write_text('{"separate_vocabs": true}')
    with pytest.raises(UserError, match="separate_vocabs is not supported"):
        read_text(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text("{}")
    (tmp_path / "vocab.json").write_text('{"</s>": 0, "a": 7}')
    with pytest.raises(UserError, match=r"vocab\.json does not number its pieces from 0 on"):
        read_text(tmp_path)
