"""Hugging Face tokenizers, made here: byte-level, SentencePiece-like, WordPiece."""

import json
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lm.core.errors import UserError
from lm.data.tokenizer import open_tokenizer
from lm.text.hf_tokenizer import HFTokenizer
from lm.text.tokenizers import ByteTokenizer, from_saved

tokenizers = pytest.importorskip("tokenizers", reason="the package tokenizers is not installed")

TEXT = ["the cat sat on the mat, the cats sat", "naïve café 日本 über", "def f(x):\n    return x + 1\n"] * 20


def byte_level():
    t = tokenizers.Tokenizer(tokenizers.models.BPE())
    t.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    t.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=330,
        special_tokens=["<|endoftext|>", "<|user|>"],
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
    )
    t.train_from_iterator(TEXT, trainer)
    t.add_tokens(["zebra"])
    return t


def metaspace():
    vocab = {"<unk>": 0, "<s>": 1, "</s>": 2} | {f"<0x{b:02X}>": 3 + b for b in range(256)}
    vocab |= {piece: 259 + i for i, piece in enumerate(["\u2581", "a", "b", "\u2581a", "\u2581ab"])}
    merges = [("\u2581", "a"), ("\u2581a", "b")]
    t = tokenizers.Tokenizer(tokenizers.models.BPE(vocab, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    t.normalizer = tokenizers.normalizers.Replace(" ", "\u2581")
    t.decoder = tokenizers.decoders.Sequence(
        [
            tokenizers.decoders.Replace("\u2581", " "),
            tokenizers.decoders.ByteFallback(),
            tokenizers.decoders.Fuse(),
        ]
    )
    t.add_special_tokens(["<unk>", "<s>", "</s>"])
    return t


def word_piece():
    vocab = {p: i for i, p in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "the", "cat", "##s", "sat"])}
    t = tokenizers.Tokenizer(tokenizers.models.WordPiece(vocab, unk_token="[UNK]"))
    t.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    t.decoder = tokenizers.decoders.WordPiece()
    t.add_special_tokens(["[PAD]", "[UNK]", "[CLS]", "[SEP]"])
    t.enable_truncation(2)
    return t


@pytest.fixture(scope="module")
def byte_pairs(tmp_path_factory):
    path = tmp_path_factory.mktemp("hf") / "tokenizer.json"
    byte_level().save(str(path))
    return open_tokenizer(path)


@given(text=st.text())
def test_byte_level_is_lossless(byte_pairs, text):
    ids = byte_pairs.encode(text)
    assert ids.dtype == np.int32
    assert byte_pairs.decode(ids) == text
    assert byte_pairs.token_bytes()[ids].sum() == len(text.encode())


@given(text=st.text(alphabet="ab cé日\n"))
def test_sentencepiece_like_is_lossless(text):
    t = HFTokenizer(metaspace().to_str(), {})
    assert t.decode(t.encode(text)) == text
    assert t.token_bytes()[t.encode(text)].sum() == len(text.encode())
    assert (t.eos_id, t.bos_id, t.unk_id) == (2, 1, 0)


def test_equals_the_library(byte_pairs):
    assert byte_pairs.encode(TEXT[0]).tolist() == byte_level().encode(TEXT[0], add_special_tokens=False).ids


def test_special_tokens_are_never_text(byte_pairs):
    ids = byte_pairs.encode("a<|endoftext|>b<|user|>")
    assert not {byte_pairs.eos_id, byte_pairs.piece_id("<|user|>")} & set(ids.tolist())
    assert byte_pairs.decode(ids) == "a<|endoftext|>b<|user|>"
    assert byte_pairs.decode([*ids, byte_pairs.eos_id, byte_pairs.vocab_size + 5, -1]) == "a<|endoftext|>b<|user|>"
    assert byte_pairs.token_bytes()[byte_pairs.eos_id] == 0
    assert byte_pairs.token_bytes()[byte_pairs.piece_id("zebra")] == 5
    assert byte_pairs.vocab_size == byte_pairs.piece_id("zebra") + 1


def test_word_piece_reads_whole_texts():
    t = HFTokenizer(word_piece().to_str(), {})
    assert t.encode("the cats sat the").tolist() == [4, 5, 6, 7, 4], "the file's truncation is not ours"
    assert t.decode(t.encode("the cats")) == "the cats"
    assert t.token_bytes().tolist() == [0, 0, 0, 0, 3, 3, 1, 3]
    assert (t.pad_id, t.unk_id, t.eos_id) == (0, 1, 3)


def test_with_which_tokens_words_begin(byte_pairs):
    words = HFTokenizer(word_piece().to_str(), {})
    assert words.word_starts().tolist() == [True] * 6 + [False, True]  # "##s" goes on
    starts = byte_pairs.word_starts()
    for text, begins in ((" a", True), ("\n", True), ("a", False), (".", False)):
        assert bool(starts[byte_pairs.encode(text)[0]]) == begins
    assert starts[byte_pairs.eos_id]
    pieces = HFTokenizer(metaspace().to_str(), {})
    names = ("\u2581", "\u2581ab", "<0x0A>", "a", "<0x41>", "<s>")
    assert [bool(pieces.word_starts()[pieces.piece_id(name)]) for name in names] == [True] * 3 + [False] * 2 + [True]
    bytes_ = ByteTokenizer()
    assert [bool(bytes_.word_starts()[i]) for i in (*bytes_.encode(" a\n"), bytes_.eos_id)] == [True, False, True, True]


def test_vocabularies_that_do_not_mark_words_are_refused():
    unmarked = tokenizers.Tokenizer(tokenizers.models.BPE({"a": 0, "b": 1, "</s>": 2}, []))
    unmarked.add_special_tokens(["</s>"])
    with pytest.raises(UserError, match="does not mark which of its tokens begin a word"):
        HFTokenizer(unmarked.to_str(), {}).word_starts()


def test_a_config_beside_it_names_the_special_tokens(tmp_path):
    byte_level().save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text(
        json.dumps({"eos_token": {"content": "<|user|>"}, "pad_token": None})
    )
    t = open_tokenizer(tmp_path, reserved=["<|user|>"])
    assert t.eos_id == t.pad_id == t.piece_id("<|user|>")
    for again in (pickle.loads(pickle.dumps(t)), from_saved(json.loads(json.dumps(t.saved())))):
        assert again.fingerprint == t.fingerprint and again.eos_id == t.eos_id
        assert again.encode(TEXT[1]).tolist() == t.encode(TEXT[1]).tolist()
    assert HFTokenizer(t.content, {}).fingerprint != t.fingerprint
    with pytest.raises(UserError, match=r"has no token '<\|usr\|>'"):
        t.piece_id("<|usr|>")
    assert open_tokenizer(tmp_path, reserved=["<|usr|>"]).piece_id("<|usr|>") == t.vocab_size


def test_what_is_no_tokenizer(tmp_path):
    path = tmp_path / "tokenizer.json"
    with pytest.raises(UserError, match=r"cannot read tokenizer .*tokenizer.json: No such file"):
        open_tokenizer(path)
    path.write_text(byte_level().to_str()[:-100])
    with pytest.raises(UserError, match=r"tokenizer.json is no tokenizer.json .*copy it anew"):
        open_tokenizer(path)
    plain = tokenizers.Tokenizer(tokenizers.models.BPE({"a": 0}, []))
    plain.save(str(path))
    with pytest.raises(UserError, match="names no end-of-text token"):
        open_tokenizer(path)
    byte_level().save(str(path))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<none>"}))
    with pytest.raises(UserError, match="its eos token '<none>' is not in the vocabulary"):
        open_tokenizer(path)
    (tmp_path / "tokenizer_config.json").write_text("{")
    with pytest.raises(UserError, match=r"tokenizer_config.json is not JSON"):
        open_tokenizer(path)
