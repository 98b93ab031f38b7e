"""What is exported gives the run's ids and text to whoever reads tokenizer.json, whatever the tokenizer; config files
say our special tokens, lest transformers take those of its classes."""

import io
import json
from functools import cache
from typing import Any

import numpy as np
import pytest
import sentencepiece
from hypothesis import given, settings
from hypothesis import strategies as st

from lm.data.learn import train_sentencepiece
from lm.data.sources import Document
from lm.hub.save import save_folder
from lm.hub.text import read_text
from lm.hub.tokenizer_json import to_tokenizer_json
from lm.model.transformer import EncoderDecoder
from lm.text.format import TextFormat
from lm.text.tokenizers import ByteTokenizer, SentencePieceTokenizer, Tokenizer
from lm.zoo.registry import build
from tests import toys
from tests.hub.chat_model import text as chat_text

tokenizers = pytest.importorskip("tokenizers", reason="the package tokenizers is not installed")
pytest.importorskip("safetensors", reason="the package safetensors is not installed")
pytest.importorskip("google.protobuf", reason="the package protobuf is not installed")

LINES = [
    "The old river   ran on; don't stop, it's 1984!",
    "\tdef f(x):  return x <= 0x41 and [x, {'é': \"ü\"}]",
    "日本語のテキスト、中文 🙂 ok",
    "a  b   c    d     e",
] * 40
# nmt_nfkc: ligatures and wide letters become plain ones
PUBLISHED: dict[str, dict[str, Any]] = {
    "like T5's": dict(
        model_type="unigram", pad_id=0, eos_id=1, unk_id=2, bos_id=-1, normalization_rule_name="nmt_nfkc"
    ),
    "like LLaMA's": dict(
        model_type="bpe", byte_fallback=True, normalization_rule_name="identity", remove_extra_whitespaces=False
    ),
    "like Gemma's": dict(
        model_type="bpe", byte_fallback=True, normalization_rule_name="identity", remove_extra_whitespaces=False,
        add_dummy_prefix=False, user_defined_symbols=["\n", "<table>", "▁▁", "▁▁▁▁"],
    ),
    "BPE without bytes": dict(model_type="bpe", normalization_rule_name="nmt_nfkc"),
}  # fmt: skip
OURS = ["byte", "bpe", "unigram"]
TEXTS = [
    "",
    " ",
    "  ",
    "the old river",
    " two  spaces ",
    "a\n\nb\tc\r\n",
    "é e\u0301 ﬁ Ｗ",
    "日本 🙂👩‍👩‍👧",
    "▁ a▁▁b",
    "<0x41>",
]


@cache
def tokenizer_of(kind: str) -> Tokenizer:
    if kind == "byte":
        return ByteTokenizer()
    if kind in OURS:
        import tempfile
        from pathlib import Path

        documents = [Document(str(i), line) for i, line in enumerate(LINES)]
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "t.model"
            return train_sentencepiece(documents, 420, path, model_type=kind, reserved=["<|user|>", "<|end of turn|>"])
    model = io.BytesIO()
    options = dict(vocab_size=380 if "bytes" in kind or "T5" in kind else 500, hard_vocab_limit=False)
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(LINES), model_writer=model, minloglevel=2, num_threads=1, **options, **PUBLISHED[kind]
    )
    return SentencePieceTokenizer.from_bytes(model.getvalue(), kind)


@cache
def elsewhere(kind: str) -> Any:
    """As transformers opens it; no text becomes a special token."""
    made = tokenizers.Tokenizer.from_str(to_tokenizer_json(tokenizer_of(kind), (), ()))
    made.encode_special_tokens = True
    return made


def same(kind: str, text: str) -> None:
    ours, theirs = tokenizer_of(kind), elsewhere(kind)
    ids = ours.encode(text).tolist()
    assert theirs.encode(text, add_special_tokens=False).ids == ids, (kind, text)
    if ours.unk_id not in ids or kind in OURS:
        assert theirs.decode(ids, skip_special_tokens=True) == ours.decode(ids), (kind, text)


@pytest.mark.parametrize("kind", [*OURS, *PUBLISHED])
def test_the_same_ids_and_the_same_text(kind):
    for text in TEXTS + LINES[:4]:
        same(kind, text)


@settings(deadline=None, max_examples=150)
@given(
    kind=st.sampled_from(["byte", "bpe", "like LLaMA's", "like Gemma's", "BPE without bytes"]),
    text=st.lists(st.sampled_from([*"abe thrstiv01<>▁\n\té🙂日"]) | st.text(max_size=3)).map("".join),
)
def test_any_text(kind, text):
    same(kind, text)


@pytest.mark.parametrize("kind", ["bpe", "unigram", "like LLaMA's"])
def test_special_tokens_that_are_spelled(kind):
    ours = tokenizer_of(kind)
    theirs = tokenizers.Tokenizer.from_str(to_tokenizer_json(ours, (), ()))
    for text in (f"old {ours.markers[-1]} river{ours.markers[0]}", f"{ours.markers[-1]}\n", "".join(ours.markers[:3])):
        assert theirs.encode(text, add_special_tokens=False).ids == ours.encode_marked(text).tolist()


@pytest.mark.parametrize("kind", ["byte", "bpe", "like LLaMA's"])
@pytest.mark.parametrize(("before", "after"), [((), ()), ((), (1,)), ((2,), (1, 1))])
def test_tokens_around_a_text(kind, before, after):
    ours = tokenizer_of(kind)
    theirs = tokenizers.Tokenizer.from_str(to_tokenizer_json(ours, before, after))
    ids = ours.encode("old river").tolist()
    assert theirs.encode("old river").ids == [*before, *ids, *after]
    pair = theirs.encode("old river", "old river")
    assert pair.ids == [*before, *ids, *after, *ids, *after]
    assert pair.type_ids == [0] * len([*before, *ids, *after]) + [1] * len([*ids, *after])


def test_other_tokens_around_a_given_tokenizer_json():
    ours = chat_text().tokenizer
    assert to_tokenizer_json(ours, (), ()) == ours.content
    theirs = tokenizers.Tokenizer.from_str(to_tokenizer_json(ours, (1,), (0,)))
    assert theirs.encode("hi").ids == [1, *ours.encode("hi").tolist(), 0]


def exported(folder: Any, kind: str, family: str, **knobs: Any) -> dict[str, dict]:
    """The config files of an export."""
    shape = {"family": family, "layers": 1, "d_model": 16, "heads": 2, "d_ff": 24, "vocab": 520, **knobs}
    model, tokenizer = build(shape), tokenizer_of(kind)
    text = TextFormat.of(tokenizer, None, isinstance(model, EncoderDecoder))._replace(
        context=48, generation={"top_p": 0.9}
    )
    save_folder(folder, shape, toys.values(model.spec()), text)
    return {path.name: json.loads(path.read_text()) for path in folder.glob("*.json")}


@pytest.mark.parametrize("kind", ["byte", "bpe"])
def test_a_decoder_says_our_special_tokens(tmp_path, kind):
    """transformers' own for gpt2 would be 50256, and its tokenizer's class GPT-2's."""
    files = exported(tmp_path / "out", kind, "gpt2", context=48)
    for name in ("config.json", "generation_config.json"):
        ids = {key: value for key, value in files[name].items() if key.endswith("token_id")}
        assert ids == {"bos_token_id": None, "eos_token_id": 1, "pad_token_id": 0}
    assert files["generation_config.json"]["top_p"] == 0.9
    settings = files["tokenizer_config.json"]
    assert settings["tokenizer_class"] == "PreTrainedTokenizerFast" and settings["model_max_length"] == 48
    assert (settings["bos_token"], settings["eos_token"], settings["pad_token"]) == (None, "</s>", "<pad>")
    assert "auto_map" not in settings and settings["model_input_names"] == ["input_ids", "attention_mask"]
    theirs = tokenizers.Tokenizer.from_file(str(tmp_path / "out" / "tokenizer.json"))
    ids = tokenizer_of(kind).encode("the old river").tolist()
    assert theirs.encode("the old river").ids == ids  # no end-of-text behind a prompt
    assert read_text(tmp_path / "out").generation == {"pad_token_id": 0, "top_p": 0.9}


def test_ids_that_only_the_config_files_name_stay(tmp_path):
    """As of a LLaMA whose tokenizer has no padding; they count in transformers' heads that look for the last token."""
    text = TextFormat(chat_text().tokenizer, (0,), generation={"bos_token_id": 1, "pad_token_id": 7})
    shape = {"family": "llama", "layers": 1, "d_model": 8, "heads": 2, "d_ff": 8, "vocab": 300}
    config = save_folder(tmp_path, shape, toys.values(build(shape).spec()), text)
    assert (config["bos_token_id"], config["pad_token_id"]) == (1, 7)
    assert read_text(tmp_path).generation == text.generation


def test_an_encoder_beside_a_decoder_reads_an_end(tmp_path):
    files = exported(tmp_path, "bpe", "t5", head_dim=8)
    assert (
        files["config.json"]["decoder_start_token_id"] == 0 == files["generation_config.json"]["decoder_start_token_id"]
    )
    theirs = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert theirs.encode("the old river").ids[-1] == 1
    assert (tmp_path / "tokenizer.model").read_bytes() == tokenizer_of("bpe").model


def test_a_model_type_with_a_tokenizer_class_of_its_own(tmp_path):
    assert exported(tmp_path, "bpe", "qwen2", kv_heads=1)["tokenizer_config.json"]["auto_map"] == []


def test_what_cannot_be_told():
    from lm.core.errors import UserError

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(LINES), model_writer=model, minloglevel=2, model_type="char", vocab_size=60,
        hard_vocab_limit=False,
    )  # fmt: skip
    with pytest.raises(UserError, match=r"a SentencePiece model of words or characters has no tokenizer\.json"):
        to_tokenizer_json(SentencePieceTokenizer.from_bytes(model.getvalue(), "chars"), (), ())


def test_ids_that_a_model_may_draw_are_text_for_both():
    """Whole pieces: bytes that make no character are told otherwise."""
    for kind in ("byte", "bpe", "unigram"):
        ours, theirs = tokenizer_of(kind), elsewhere(kind)
        sizes = ours.token_bytes()
        ids = np.flatnonzero(sizes > 1) if kind != "byte" else np.arange(3, 131)
        assert theirs.decode(ids.tolist(), skip_special_tokens=True) == ours.decode(ids)
