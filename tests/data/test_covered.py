"""Bytes are counted from the text, whatever a tokenizer makes of it."""

import io

import numpy as np
import pytest
import sentencepiece
from hypothesis import example, given
from hypothesis import strategies as st

from lm.core.errors import UserError
from lm.data.cache import TokenCache
from lm.data.open import CorpusPart, Data
from lm.data.packing import BestFitRows, evaluation_rows
from lm.data.sources import Document
from lm.data.tokenize import build_cache
from lm.data.tokenizer import open_tokenizer
from lm.objectives.causal import NextToken
from lm.objectives.denoising import MixtureOfDenoisers
from lm.objectives.permuted import Permutation
from lm.text.hf_tokenizer import HFTokenizer
from lm.text.tokenizers import SentencePieceTokenizer
from lm.train.data import example_of

TEXTS = ["The old  River.\n", "Ünder the bridge\t日本 x", "  ", "a", "old " * 40, "river" + " " * 300 + "the"]


def lowering() -> HFTokenizer:
    """WordPiece: case, accents and white space are lost, most words are unknown."""
    tokenizers = pytest.importorskip("tokenizers", reason="the package tokenizers is not installed")
    pieces = ["[PAD]", "[UNK]", "[SEP]", "the", "old", "river", "##s", ".", "a", "u", "##nder"]
    made = tokenizers.Tokenizer(tokenizers.models.WordPiece({p: i for i, p in enumerate(pieces)}, unk_token="[UNK]"))
    made.normalizer = tokenizers.normalizers.BertNormalizer()
    made.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    made.decoder = tokenizers.decoders.WordPiece()
    return HFTokenizer(made.to_str(), {"eos": "[SEP]"})


@pytest.fixture(scope="module")
def published():
    """As LLaMA's: a space of its own before every text, and bytes for what has no piece."""
    made = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["the old river of stone and light"] * 5), model_writer=made, vocab_size=290,
        model_type="bpe", byte_fallback=True, normalization_rule_name="identity", remove_extra_whitespaces=False,
        minloglevel=2,
    )  # fmt: skip
    return SentencePieceTokenizer.from_bytes(made.getvalue())


class Texts(list):
    fingerprint = "texts"
    done = 0.0

    def __iter__(self):
        return (Document("", text) for text in super().__iter__())


@given(st.text(alphabet="The old Rivér\u2581日😀\n\t", max_size=20))
@example("\u2581")
@example(" \u2581日 é\u2581")
def test_a_text_is_covered_by_its_tokens(published, text):
    for tokenizer in (published, lowering()):
        ids, covered = tokenizer.encode_sized(text)
        assert ids.tolist() == tokenizer.encode(text).tolist() and (covered >= 0).all()
        assert covered.sum() == (len(text.encode()) if len(ids) else 0)


def test_each_token_covers_what_it_was_made_of(published):
    assert lowering().encode_sized("The  oldies River.")[1].tolist() == [3, 8, 6, 1]
    ids, covered = published.encode_sized("th é\u2581e")
    names = ("▁t", "h", "▁", "<0xC3>", "<0xA9>", "▁", "e")
    assert ids.tolist() == [published.piece_id(name) for name in names]
    assert covered.tolist() == [1, 1, 1, 2, 0, 3, 1]


@pytest.mark.parametrize("kind", ["lowering", "published"])
def test_a_cache_and_its_rows_tell_the_bytes_of_the_texts(published, tmp_path, kind):
    tokenizer = published if kind == "published" else lowering()
    cache = build_cache(Texts(TEXTS), tokenizer, tmp_path, workers=1, shard=60)
    assert len(cache.shards) > 1
    for text, a, b in zip(TEXTS, cache.offsets, cache.offsets[1:], strict=False):
        assert cache.read_bytes(a, b).sum() == len(text.encode())
    whole = cache.read_bytes(0, cache.size)
    assert cache.bytes == whole.sum() == sum(len(text.encode()) for text in TEXTS)
    for rows in (evaluation_rows(cache, 8), BestFitRows(cache, cache.size)):
        found = [row["bytes"][1:][row["segments"][1:] > 0].sum() for row in map(rows.__getitem__, range(len(rows)))]
        assert sum(found) == cache.bytes - (whole[0] if isinstance(rows, BestFitRows) else 0)
    assert TokenCache.open(cache.directory).read_bytes(3, 9).tolist() == whole[3:9].tolist()
    for file in cache.directory.glob("*.bytes"):
        file.write_bytes(bytes(len(file.read_bytes())))
    with pytest.raises(UserError, match="is damaged"):
        TokenCache.open(cache.directory)


def test_what_a_vocabulary_spells_exactly_needs_no_file(tmp_path):
    cache = build_cache(Texts(TEXTS), open_tokenizer("byte"), tmp_path)
    assert not list(cache.directory.glob("*.bytes"))
    assert cache.read_bytes(0, cache.size).sum() == cache.bytes


def test_objectives_predict_the_bytes_of_their_targets(published, tmp_path):
    cache = build_cache(Texts([" ".join(["the old river"] * 20)]), published, tmp_path)
    data = Data(published, (CorpusPart("", 1.0, cache, cache),))
    row = evaluation_rows(cache, cache.size)[0]
    example = example_of(data, NextToken())(row, np.random.default_rng(0))
    assert example["bytes"] == cache.bytes - cache.read_bytes(0, 1)[0]  # a document's first token is not predicted
    example = example_of(data, Permutation(share=1.0))(row, np.random.default_rng(0))
    assert example["bytes"] == cache.bytes == 279  # the pieces by themselves, with LLaMA's first space, have 280
    tokenizer = open_tokenizer("byte")
    row = {"tokens": np.arange(100, 133), "segments": np.ones(33, int), "bytes": np.arange(33)}
    example = example_of(Data(tokenizer, ()), MixtureOfDenoisers.of(32))(row, np.random.default_rng(3))
    taken = example["targets"][(example["targets"] >= 100) & (example["targets"] < 133)]
    assert len(taken) and example["bytes"] == (taken - 100).sum()


@pytest.mark.parametrize("kind", ["bpe-420", "unigram-420"])
def test_a_space_is_a_piece_of_a_vocabulary_trained_without_one(tmp_path, kind):
    texts = ["".join(chr(0x4E00 + (i * j) % 40) for i in range(50)) for j in range(1, 40)]
    documents = [Document("", text) for text in texts]
    tokenizer = open_tokenizer(kind, documents, tmp_path / "a.model")
    text = "the old river  \n"
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text and tokenizer.encode(" ").size == 1
    assert tokenizer.token_bytes()[ids].sum() == len(text.encode())


def test_a_kept_vocabulary_without_a_space_is_trained_anew(published, tmp_path):
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["abcabcab"] * 9), model_writer=model, vocab_size=265, model_type="bpe",
        byte_fallback=True, add_dummy_prefix=False, minloglevel=2,
    )  # fmt: skip
    (tmp_path / "kept.model").write_bytes(model.getvalue())
    tokenizer = open_tokenizer("bpe-370", [Document("", "abcabcab" * 9)], tmp_path / "kept.model")
    assert tokenizer.encode(" ").size == 1
