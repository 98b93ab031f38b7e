"""A long text is tokenised in parts, and its tokens are those of the whole, for every kind of tokenizer."""

import io
import json
import random

import numpy as np
import pytest
import sentencepiece
from hypothesis import given, settings
from hypothesis import strategies as st

from lm.data import cuts
from lm.data import tokenize as build
from lm.data.cuts import encode_part, parts_of
from lm.data.learn import train_sentencepiece
from lm.data.sources import Document, LongDocument, open_source
from lm.data.tokenize import build_cache
from lm.text.hf_tokenizer import HFTokenizer
from lm.text.tokenizers import ByteTokenizer, SentencePieceTokenizer

tokenizers = pytest.importorskip("tokenizers", reason="the package tokenizers is not installed")
from tokenizers import AddedToken, Regex, models, normalizers, pre_tokenizers, trainers  # noqa: E402

WORDS = [
    "the",
    "old",
    "river",
    "of",
    "stone",
    "and",
    "light",
    "don't",
    "naïve",
    "café",
    "12345",
    "漢字",
    "日本語",
    "def",
]
WORDS += ["f(x):", "return", "x+1", "..."]
CORPUS = [" ".join(random.Random(i).choices(WORDS, k=40)) + ".\n    a  b\n\n" for i in range(60)]
CORPUS += [document.text[:4000] for document in open_source("python-stdlib", "validation")][:6]
# What GPT-4's words are, by the pattern that most newer vocabularies took over.
PATTERN = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def sentence_piece(**options):
    made = io.BytesIO()
    fixed = {"vocab_size": 400, "hard_vocab_limit": False, "minloglevel": 2, "num_threads": 1}
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS), model_writer=made, **fixed | options
    )  # fmt: skip
    return SentencePieceTokenizer.from_bytes(made.getvalue())


def byte_level(*before, normalizer=None, **options):
    t = tokenizers.Tokenizer(models.BPE(**options))
    byte = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=not before)
    t.pre_tokenizer = pre_tokenizers.Sequence([*before, byte])
    if normalizer is not None:
        t.normalizer = normalizer
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    t.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=500, initial_alphabet=alphabet, show_progress=False))
    return t


def of_words(model, trainer, pre_tokenizer, normalizer, **options):
    t = tokenizers.Tokenizer(model)
    t.pre_tokenizer, t.normalizer = pre_tokenizer, normalizer
    t.train_from_iterator(CORPUS, trainer(vocab_size=400, show_progress=False, **options))
    return t


def as_llama(normalizer, pre_tokenizer=None):
    """Byte pairs over the whole text, spaces and all."""
    marked = normalizers.Replace(" ", "\u2581")
    words = pre_tokenizers.Split(Regex("\u2581*[^\u2581]*"), "isolated")
    model = of_words(models.BPE(unk_token="<unk>"), trainers.BpeTrainer, words, marked, special_tokens=["<unk>"]).model
    t = tokenizers.Tokenizer(model)
    t.normalizer = normalizer
    if pre_tokenizer is not None:
        t.pre_tokenizer = pre_tokenizer
    return t


def hugging_face(t, *added):
    t.add_special_tokens(["</s>"])
    t.add_tokens(list(added))
    return HFTokenizer(t.to_str(), {"eos": "</s>"})


ADDED = (
    "zebra",
    AddedToken(" dog", lstrip=True),
    AddedToken("cat", single_word=True),
    AddedToken("<m>", lstrip=True, rstrip=True),
    "old river",
)
SPACES = normalizers.Replace(" ", "\u2581")
SPLIT = pre_tokenizers.Split(Regex(PATTERN), "isolated")
MAKE = {
    "byte": ByteTokenizer,
    "unigram of T5": lambda: sentence_piece(model_type="unigram"),
    "bpe of LLaMA": lambda: sentence_piece(
        model_type="bpe", byte_fallback=True, normalization_rule_name="identity", remove_extra_whitespaces=False
    ),
    "symbols of a user": lambda: sentence_piece(model_type="bpe", user_defined_symbols=["the old", "<m>", "ab", "bab"]),
    "words": lambda: sentence_piece(model_type="word"),
    "GPT-2": lambda: hugging_face(byte_level(), *ADDED),
    "GPT-4": lambda: hugging_face(byte_level(SPLIT, normalizer=normalizers.NFC())),
    "ignore_merges": lambda: hugging_face(byte_level(SPLIT, ignore_merges=True)),
    "LLaMA": lambda: hugging_face(as_llama(normalizers.Sequence([normalizers.Prepend("\u2581"), SPACES]))),
    "Gemma": lambda: hugging_face(as_llama(SPACES, pre_tokenizers.Split(" ", "merged_with_previous")), *ADDED),
    "Metaspace": lambda: hugging_face(
        of_words(
            models.Unigram(), trainers.UnigramTrainer, pre_tokenizers.Metaspace(), normalizers.NFKC(),
            unk_token="<unk>", special_tokens=["<unk>"],
        )
    ),
    "CLIP": lambda: hugging_face(
        of_words(
            models.BPE(unk_token="<unk>", end_of_word_suffix="</w>"), trainers.BpeTrainer, pre_tokenizers.Whitespace(),
            normalizers.Lowercase(), end_of_word_suffix="</w>", special_tokens=["<unk>"],
        )
    ),
    "BERT": lambda: hugging_face(
        of_words(
            models.WordPiece(unk_token="[UNK]"), trainers.WordPieceTrainer, pre_tokenizers.BertPreTokenizer(),
            normalizers.BertNormalizer(), special_tokens=["[UNK]"],
        ),
        *ADDED,
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizers")
    documents = [Document("", text) for text in CORPUS]
    trained = {
        kind: train_sentencepiece(documents, 430, folder / f"{kind}.model", model_type=kind, sentinels=0)
        for kind in ("bpe", "unigram")
    }
    return trained | {name: make() for name, make in MAKE.items()}


BITS = [
    *WORDS, " ", "  ", "\n", "\n\n", "\t", "\r\n", "\u2581", "ab", "bab", "the old", "zebra", "zebras", " dog", "cat",
    "<m>", " <m> ", "e\u0301", "\u0301", "ﬁ", "가", "\u1100\u1161", "か\u3099", "ｶﾞ", "'s", "。", "，", "👩‍👩‍👧",
    "\u200d", "\0", "</s>", "<unk>", "<0x41>", "\u00a0", "\u3000", "İ", "Σς", "--", "A", "C", "G", "T",
]  # fmt: skip
ADVERSARIAL = st.lists(st.tuples(st.sampled_from(BITS), st.sampled_from([1, 1, 1, 2, 7, 30])), min_size=60).map(
    lambda bits: "".join(bit * n for bit, n in bits)
)


UNIGRAMS = ("unigram", "unigram of T5")


def equally_likely(tokenizer, *ways):
    """Two ways through a unigram vocabulary, between which rounding decides."""
    piece = sentencepiece.SentencePieceProcessor(model_proto=tokenizer.model)
    scores = [sum(piece.get_score(int(i)) for i in ids) for ids in ways]
    return piece.decode(ways[0].tolist()) == piece.decode(ways[1].tolist()) and abs(scores[0] - scores[1]) < 1e-3


def check(tokenizer, text, size, step=100, ties=False):
    """How many parts the text has, if no place was taken that may be wrong."""
    lines = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cuts, "MOST", 0)
        patch.setattr(cuts, "tell", lines.append)
        parts = list(parts_of("", (text[at : at + step] for at in range(0, len(text), step)), tokenizer, size))
    assert "".join(part.text for part in parts) == text
    assert [p.begins for p in parts] == [True] + [False] * (len(parts) - 1)
    assert [p.ends for p in parts] == [False] * (len(parts) - 1) + [True]
    if lines:
        return 0
    whole, encoded = tokenizer.encode_sized(text), [encode_part(tokenizer, part) for part in parts]
    ids = np.concatenate([x.ids for x in encoded])
    if not (ties and equally_likely(tokenizer, ids, whole.ids)):
        np.testing.assert_array_equal(ids, whole.ids)
    assert sum(x.bytes.sum() for x in encoded) == whole.bytes.sum() == len(text.encode())
    return len(parts)


@pytest.mark.parametrize("kind", ["bpe", "unigram", *MAKE])
@settings(max_examples=4, deadline=None)
@given(text=ADVERSARIAL, size=st.integers(130, 300))
def test_tokens_of_parts_are_those_of_the_whole(made, kind, text, size):
    check(made[kind], text, size, ties=kind in UNIGRAMS)


@pytest.mark.parametrize("kind", ["bpe", "unigram", *MAKE])
def test_prose_is_cut(made, kind):
    rng = random.Random(0)
    prose = "".join(f"{' '.join(rng.choices([*WORDS, 'unseen'], k=9))}, and so on.\n" for _ in range(60))
    assert check(made[kind], prose, 500) > 5 or kind == "words"
    few = "".join(rng.choices("漢字日本語の世界、。", k=3000))  # nowhere a space
    if kind in ("byte", "bpe", "unigram", "bpe of LLaMA", "GPT-2", "GPT-4", "LLaMA", "Gemma"):
        assert check(made[kind], few, 500) > 5
    if kind in ("byte", "bpe", "unigram"):
        assert check(made[kind], "".join(rng.choices("ACGT", k=3000)), 500) > 5


def test_a_text_without_a_sure_place_is_cut_and_told(tmp_path, capsys, monkeypatch):
    documents = [Document("", "aaaaaaaaaaaaaaaa b\n" * 50)]
    tokenizer = train_sentencepiece(documents, 266, tmp_path / "m", sentinels=0)
    monkeypatch.setattr(cuts, "MOST", 1000)
    text = "a" * 3001
    parts = list(parts_of("x.txt", Document("", text).pieces(), tokenizer, 500))
    assert "".join(map(tokenizer.decode, (encode_part(tokenizer, part).ids for part in parts))) == text
    assert len(parts) > 1
    assert "x.txt: tokens may reach over any place in " in capsys.readouterr().err


def long_file(tmp_path, lines=3000):
    path = tmp_path / "book.txt"
    path.write_text("".join(f"line {i}: {' '.join(random.Random(i).choices(WORDS, k=9))}\n" for i in range(lines)))
    return path


def test_a_long_document_takes_several_shards(tmp_path, monkeypatch):
    text = long_file(tmp_path).read_text()
    tokenizer = train_sentencepiece([Document("", text)], 460, tmp_path / "m", sentinels=0)
    one = build_cache(open_source(tmp_path / "book.txt"), tokenizer, tmp_path / "one", before=(7,))
    assert len(one.shards) == 1
    monkeypatch.setattr(cuts.parts_of, "__defaults__", (4000,))
    encoded = []

    class Counting(SentencePieceTokenizer):
        def encode_sized(self, text):
            encoded.append(len(text))
            return super().encode_sized(text)

    counting = Counting(tmp_path / "m")
    written, write = [], build.write_shard

    def killed(*arguments):
        if len(written) == 5:
            raise KeyboardInterrupt
        written.append(arguments)
        return write(*arguments)

    monkeypatch.setattr(build, "write_shard", killed)
    source = open_source(tmp_path / "book.txt")
    with pytest.raises(KeyboardInterrupt):
        build_cache(source, counting, tmp_path / "many", workers=1, shard=10_000, before=(7,))
    monkeypatch.setattr(build, "write_shard", write)
    done = sum(encoded)
    many = build_cache(source, counting, tmp_path / "many", workers=1, shard=10_000, before=(7,))
    assert max(encoded) < 4200 and done > 50_000
    assert sum(encoded) < len(text) * 1.05  # goes on within the document
    assert many.documents == one.documents == 1 and len(many.shards) > 10 and many.bytes == one.bytes
    for read in ("read", "read_bytes"):
        np.testing.assert_array_equal(getattr(many, read)(0, many.size), getattr(one, read)(0, one.size))


def test_a_long_document_is_read_in_pieces(tmp_path, monkeypatch):
    text = long_file(tmp_path).read_text()
    monkeypatch.setattr("lm.data.plain.PIECE", 1001)
    train, validation = (open_source(tmp_path / "book.txt", split, holdout=0.1) for split in ("train", "validation"))
    (head,), (tail,) = train, validation
    assert isinstance(head, LongDocument) and max(map(len, head.pieces())) <= 1001
    assert head.text + tail.text == text and head.text.endswith("\n") and 0.09 < len(tail.text) / len(text) < 0.11
    (whole,) = open_source(tmp_path / "book.txt", "validation", validation=tmp_path / "book.txt")
    assert whole.text == whole.text == text  # as often as wanted
    done = [train.done for document in train for _ in document.pieces()]
    assert done == sorted(done) and done[-1] == 1.0
    (tmp_path / "bad.txt").write_bytes(b"a" * 5000 + b"\xff" + text.encode())
    with pytest.raises(ValueError, match=r"bad\.txt is not UTF-8 at byte 5000"):
        assert [document.text for document in open_source(tmp_path / "bad.txt")]


@pytest.mark.parametrize("unit", ["the old river ", "漢字"])
def test_one_long_line_is_cut_at_a_word(tmp_path, unit):
    """As text8 comes: not a line break in a hundred megabytes."""
    (tmp_path / "text8").write_text("title\n" + unit * 200_000)
    (head,), (tail,) = (open_source(tmp_path / "text8", split, holdout=0.05) for split in ("train", "validation"))
    held = tail.text
    assert 0.049 < len(held) / (200_000 * len(unit)) < 0.051
    assert unit == "漢字" or (head.text.endswith(" ") and not held.startswith(" "))
    assert head.text + held == "title\n" + unit * 200_000


def test_the_sample_of_a_text_does_not_depend_on_its_pieces(tmp_path):
    text = long_file(tmp_path, 400).read_text() + "x" * 9000 + "\r\n\r\n" + "y" * 4000 + "\n" * 5
    for n, step in enumerate((3, 997, 5000)):
        read = lambda: (text[at : at + step] for at in range(0, len(text), step))  # noqa: B023, E731
        for name, document in (("a", Document("", text)), ("b", LongDocument("", read))):
            train_sentencepiece([document], 460, tmp_path / f"{n}{name}", sentinels=0, max_bytes=20_000)
        assert (tmp_path / f"{n}a").read_bytes() == (tmp_path / f"{n}b").read_bytes()


def test_a_record_of_any_length_is_cut_too(tmp_path, monkeypatch):
    text = long_file(tmp_path, 400).read_text()
    (tmp_path / "a.jsonl").write_text((json.dumps({"text": text}) + "\n") * 2)
    source = open_source(tmp_path / "a.jsonl", "validation", validation=tmp_path / "a.jsonl")
    whole = build_cache(source, ByteTokenizer(), tmp_path / "one")
    monkeypatch.setattr(cuts.parts_of, "__defaults__", (500,))
    parts = build_cache(source, ByteTokenizer(), tmp_path / "two", workers=1, shard=3000)
    assert parts.documents == 2 and len(parts.shards) > 10
    np.testing.assert_array_equal(parts.offsets, whole.offsets)
    np.testing.assert_array_equal(parts.read(0, parts.size), whole.read(0, whole.size))
