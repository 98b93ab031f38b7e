import json
import pickle
import random

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lm.core.errors import UserError
from lm.data.learn import train_sentencepiece
from lm.data.sources import Document, open_source
from lm.data.tokenizer import open_tokenizer
from lm.hub.tokenizer_json import to_tokenizer_json
from lm.text.hf_tokenizer import HFTokenizer
from lm.text.tokenizers import ByteTokenizer, SentencePieceTokenizer, Tokenizer, from_saved

# Text as code has it: indentation, tabs, line ends, the library's own space symbol and names of special ids.
PIECES = [
    " ",
    "    ",
    "\t",
    "\n",
    "\r\n",
    "\u2581",
    "</s>",
    "<extra_id_0>",
    "<0x41>",
    "def f(x):",
    "é",
    "漢",
    "😀",
    "\0",
]
TEXT = st.lists(st.one_of(st.sampled_from(PIECES), st.text(max_size=8))).map("".join)


@pytest.fixture(scope="module")
def code():
    return list(open_source("python-stdlib", "validation"))


@pytest.fixture(scope="module")
def trained(code, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizers")
    return {
        "bpe": train_sentencepiece(code, 1000, folder / "bpe.model", max_bytes=100_000),
        "unigram": train_sentencepiece(
            code, 500, folder / "unigram.model", model_type="unigram", sentinels=4, max_bytes=30_000
        ),
        "byte": ByteTokenizer(),
    }


@pytest.mark.parametrize("kind", ["byte", "bpe", "unigram"])
@given(text=TEXT)
@example(text="")
@example(text="\u2581")
@example(text="  x\u2581 \u2581\n\n    ")
def test_round_trip_and_byte_counts(trained, kind, text):
    tokenizer = trained[kind]
    ids = tokenizer.encode(text)
    assert ids.dtype == "int32" and ids.ndim == 1
    assert tokenizer.decode(ids) == text
    assert tokenizer.token_bytes()[ids].sum() == len(text.encode())
    special = {tokenizer.pad_id, tokenizer.eos_id, tokenizer.unk_id}
    special |= {tokenizer.sentinel(i) for i in range(tokenizer.sentinels)}
    assert not special & set(ids.tolist())


@pytest.mark.parametrize("kind", ["byte", "bpe", "unigram"])
def test_common_attributes(trained, kind):
    tokenizer = trained[kind]
    assert (tokenizer.pad_id, tokenizer.eos_id, tokenizer.unk_id, tokenizer.bos_id) == (0, 1, 2, None)
    sentinels = [tokenizer.sentinel(i) for i in range(tokenizer.sentinels)]
    special = [0, 1, *sentinels]
    assert len(set(special)) == len(special) and max(special) < tokenizer.vocab_size
    assert tokenizer.token_bytes().shape == (tokenizer.vocab_size,)
    assert not tokenizer.token_bytes()[special].any()
    assert tokenizer.decode(special) == tokenizer.decode([tokenizer.vocab_size + 5]) == tokenizer.decode([]) == ""
    with pytest.raises(UserError, match=f"{tokenizer.sentinels} sentinels, not"):
        tokenizer.sentinel(tokenizer.sentinels)


@pytest.mark.parametrize("kind", ["byte", "bpe", "unigram"])
def test_decode_of_part_of_a_character(trained, kind):
    tokenizer = trained[kind]
    ids = tokenizer.encode("a😀")
    assert tokenizer.decode(ids[:-1]).startswith("a")
    assert "\ufffd" in tokenizer.decode(ids[:-1])


def test_byte_ids():
    tokenizer = ByteTokenizer()
    assert tokenizer.vocab_size == 384
    assert tokenizer.encode("aé").tolist() == [100, 198, 172]
    assert tokenizer.sentinel(0) == 259


def test_code_takes_fewer_tokens(trained, code):
    source = code[0].text
    assert len(source) / len(trained["bpe"].encode(source)) > 2
    assert trained["bpe"].encode(" " * 8).size == 1  # indentation is a piece


def test_training_is_deterministic_and_quiet(code, tmp_path, capfd):
    documents = [Document(d.name, d.text[:20_000]) for d in code]
    for name in ("a", "b"):
        train_sentencepiece(documents, 700, tmp_path / "new" / name, max_bytes=50_000)
    assert (tmp_path / "new" / "a").read_bytes() == (tmp_path / "new" / "b").read_bytes()
    assert capfd.readouterr() == ("", "")
    assert sorted(p.name for p in (tmp_path / "new").iterdir()) == ["a", "b"]


def test_sample_spans_the_corpus(tmp_path):
    """max_bytes takes some of all the text, not its beginning, however it is divided into documents."""
    rng = random.Random(0)
    words = ["alpha", "beta", "gamma", "delta"]
    text = "".join(" ".join(rng.choices(words, k=10)) + "\n" for _ in range(4000)) + "omega omega\n" * 10_000
    tokenizer = train_sentencepiece([Document("one", text)], 310, tmp_path / "m", sentinels=0, max_bytes=20_000)
    assert len(tokenizer.encode(" omega alpha")) <= 4


def test_open_by_name(trained, code, tmp_path):
    assert open_tokenizer("byte") == ByteTokenizer()
    path = tmp_path / "bpe.model"
    first = open_tokenizer("bpe-600", code[:3], path)
    assert first.vocab_size == 600
    again = open_tokenizer("bpe-600", iter(()), path)  # trained already: reads no document
    assert again.fingerprint == first.fingerprint == open_tokenizer(str(path)).fingerprint
    assert first.fingerprint != trained["bpe"].fingerprint


def test_errors_name_the_remedy(code, tmp_path):
    with pytest.raises(UserError, match="unknown tokenizer 'bytes'; give byte"):
        open_tokenizer("bytes")
    with pytest.raises(UserError, match=r"cannot read tokenizer .*none\.model: No such file"):
        open_tokenizer(tmp_path / "none.model")
    for content in (b"not a model", b""):
        (tmp_path / "bad.model").write_bytes(content)
        with pytest.raises(UserError, match=r"bad\.model is"):
            SentencePieceTokenizer(tmp_path / "bad.model")
    with pytest.raises(UserError, match="nothing to be trained on"):
        open_tokenizer("bpe-2048")
    with pytest.raises(UserError, match="unknown tokenizer model 'bp'; did you mean 'bpe'"):
        train_sentencepiece(code, 1000, tmp_path / "m", model_type="bp")
    with pytest.raises(UserError, match=r"vocabulary of 300: .* alone are \d+; give a larger vocabulary"):
        train_sentencepiece(code, 300, tmp_path / "m")
    with pytest.raises(UserError, match=r"at most \d+ pieces; give a smaller vocabulary"):
        train_sentencepiece([Document("a", "a b")], 5000, tmp_path / "m")
    with pytest.raises(UserError, match=r"cannot write tokenizer .*bad\.model/m: "):
        train_sentencepiece(code, 1000, tmp_path / "bad.model" / "m", max_bytes=50_000)
    for size in (0, 10**15):
        with pytest.raises(UserError, match=f"vocabulary of {size}; give 260 .* to 1000000"):
            train_sentencepiece(code, size, tmp_path / "m")
    with pytest.raises(UserError, match="no text to train"):
        train_sentencepiece([Document("a", "")], 500, tmp_path / "m")


def test_reserved_tokens_are_special(tmp_path):
    documents = [Document("a", "to be <|user|> or not to be\n" * 50)]
    path = tmp_path / "a.model"
    tokenizer = open_tokenizer("bpe-380", documents, path, reserved=["<|user|>", "<|bot|>"])
    user, bot = (tokenizer.piece_id(name) for name in ("<|user|>", "<|bot|>"))
    assert bot == user + 1 and user != tokenizer.sentinel(99)
    ids = tokenizer.encode(documents[0].text)
    assert user not in ids and tokenizer.decode(ids) == documents[0].text
    assert tokenizer.token_bytes()[[user, bot]].tolist() == [0, 0]
    again = from_saved(json.loads(json.dumps(tokenizer.saved())))
    assert again.fingerprint == tokenizer.fingerprint and again.piece_id("<|bot|>") == bot
    added = open_tokenizer("bpe-380", documents, path, reserved=["<|user|>", "<|nobody|>"])
    assert added.piece_id("<|nobody|>") == 380 and added.piece_id("<|user|>") == user
    for wrong in (["<a>", "<a>"], ["<extra_id_3>"], ["</s>"], [""]):
        with pytest.raises(UserError, match="is empty or there already"):
            open_tokenizer("bpe-380", documents, tmp_path / "b.model", reserved=wrong)


def test_pieces_of_the_byte_tokenizer():
    tokenizer = ByteTokenizer()
    assert tokenizer.piece_id("a") == tokenizer.encode("a")[0] and tokenizer.piece_id(
        "<extra_id_3>"
    ) == tokenizer.sentinel(3)
    assert from_saved(ByteTokenizer(7).saved()) == ByteTokenizer(7)
    with pytest.raises(UserError, match=r"has no token '<\|user\|>'"):
        tokenizer.piece_id("<|user|>")


ADDED = [f"<extra_id_{i}>" for i in range(130)] + ["[R]", "<|user|>"]


@pytest.mark.parametrize("kind", ["byte", "bpe", "unigram", "hf"])
def test_special_tokens_that_a_tokenizer_lacks_are_added(kind, tmp_path):
    documents = [Document("a", "".join(f"to be {i} <|user|> or [R] not to be, {i * i}\n" for i in range(99)))]
    if kind == "byte":
        before: Tokenizer = ByteTokenizer(7)
    else:
        before = train_sentencepiece(
            documents, 300, tmp_path / "m", model_type="bpe" if kind == "hf" else kind, sentinels=7
        )
    if kind == "hf":
        pytest.importorskip("tokenizers")
        before = HFTokenizer(to_tokenizer_json(before, (), ()), {})
    size = before.vocab_size
    t = before.with_special(ADDED)
    assert t.vocab_size == size + 123 + 2 and t.sentinels == 130
    assert [t.sentinel(i) for i in range(130)] == [t.piece_id(name) for name in ADDED[:130]]
    assert [t.sentinel(i) for i in range(7, 130)] == list(range(size, size + 123))
    assert [t.piece_id(name) for name in ADDED[130:]] == [size + 123, size + 124]
    text = documents[0].text
    assert t.encode(text).tolist() == before.encode(text).tolist() and t.decode(t.encode(text)) == text
    assert t.token_bytes().tolist() == before.token_bytes().tolist() + [0] * 125
    marked = t.encode_marked("[R]to be<extra_id_99>")
    assert marked[0] == t.piece_id("[R]") and marked[-1] == t.sentinel(99)
    assert t.decode(marked, special=True) == "[R]to be<extra_id_99>" and t.decode(marked) == "to be"
    for again in (pickle.loads(pickle.dumps(t)), from_saved(json.loads(json.dumps(t.saved())))):
        assert again.fingerprint == t.fingerprint != before.fingerprint
        assert again.encode_marked("[R]a").tolist() == t.encode_marked("[R]a").tolist()
    assert t.with_special(ADDED).fingerprint == t.fingerprint
    assert before.with_special([]).fingerprint == before.fingerprint
    if kind != "hf":
        pytest.importorskip("tokenizers")
        written = HFTokenizer(to_tokenizer_json(t, (), ()), {})
        assert written.encode_marked("[R]to be<extra_id_99>").tolist() == marked.tolist()
        assert written.sentinels == 130 and written.encode(text).tolist() == t.encode(text).tolist()
    for wrong in (["<a>", "<a>"], [""]):
        with pytest.raises(UserError, match="give each a name of its own"):
            before.with_special(wrong)


def test_more_characters_than_the_vocabulary_has_room_for(tmp_path):
    rare = "".join(chr(0x4E00 + i) for i in range(400))
    text = "".join(f"to be or not to be, that is the question {c}\n" for c in rare)
    tokenizer = open_tokenizer("bpe-600", [Document("a", text)], tmp_path / "a.model")
    assert tokenizer.decode(tokenizer.encode(text)) == text
