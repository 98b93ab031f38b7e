"""Folders without tokenizer.json, read as transformers reads them (recorded by `tokenizer_folders.py`)."""

import json
import shutil

import pytest

pytest.importorskip("tokenizers", reason="the package tokenizers is not installed")

from lm.core.errors import UserError
from lm.hub.text import read_text, read_tokenizer, size_note
from lm.text.tokenizers import ByteTokenizer, from_saved
from tests.hub.tokenizer_folders import RECORD, TEXTS, byte_pairs, folders, of_llama, ranks, token, word_pieces, write

ORACLE = json.loads(RECORD.read_text(encoding="utf-8"))
FOLDERS = folders()
SLOW = ("m2m", "m2m unigram", "plbart", "prophetnet", "marian")


@pytest.mark.parametrize("name", FOLDERS)
def test_as_transformers(tmp_path, name):
    t, expected = read_tokenizer(write(tmp_path / "folder", *FOLDERS[name])), ORACLE[name]
    assert t.vocab_size == expected["size"] or name in SLOW  # where it counts languages or not
    assert {f"{role}_token": piece for role, piece in t.special.items()} == expected["roles"]
    for i, text in enumerate(TEXTS):
        ids = expected["ids"][i]
        assert t.encode_marked(text).tolist() == ids, text
        plain, special = expected["plain"].get(str(i), ids), {t.piece_id(marker) for marker in t.markers} - {t.unk_id}
        assert special.isdisjoint(t.encode(text).tolist())  # as transformers where it has none; it finds some in pieces
        assert t.encode(text).tolist() == plain or not special.isdisjoint(plain) or name in SLOW, text
        if name in SLOW:  # of which transformers itself puts the words together
            assert t.decode(ids).split() == expected["texts"][i].split() or name == "prophetnet"
        else:
            assert t.decode(ids) == expected["texts"][i]
        covered = t.encode_sized(text).bytes
        assert covered.sum() == len(text.encode()) or not len(covered)
    before, after = t.around
    assert [*before, *expected["ids"][0], *after] == expected["first"]
    again = from_saved(json.loads(json.dumps(t.saved())))
    assert again.fingerprint == t.fingerprint and again.special == t.special and again.around == t.around


def test_what_a_config_calls_null_is_not_there(tmp_path):
    settings = {"eos_token": "</s>", "bos_token": None, "pad_token": None, "tokenizer_class": "LlamaTokenizer"}
    t = read_tokenizer(write(tmp_path / "a", "llama", settings, of_llama()[2]))
    assert t.bos_id is None and "bos" not in t.special and t.pad_id == t.eos_id == 2
    text = read_text(write(tmp_path / "b", "openai-gpt", None, FOLDERS["gpt"][2]))
    assert text.ends == () and text.tokenizer.eos_id == text.tokenizer.unk_id == 0  # which stands in for it in data


def test_a_class_of_before(tmp_path):
    """Which transformers 5 opens no more without a tokenizer.json, as transformers 4 did."""
    t = read_tokenizer(write(tmp_path / "a", "gpt_bigcode", None, byte_pairs("<|endoftext|>")))
    assert t.decode(t.encode("the old")) == "the old" and t.eos_id == 0
    t = read_tokenizer(write(tmp_path / "b", "umt5", {"extra_ids": 0}, FOLDERS["t5"][2]))
    assert t.encode(TEXTS[0]).tolist() == ORACLE["mt5"]["ids"][0] and t.around == ((), (1,))


def test_bytes_need_no_vocabulary(tmp_path):
    t = read_tokenizer(write(tmp_path / "a", "t5", {"tokenizer_class": "ByT5Tokenizer", "extra_ids": 5}, {}))
    assert t == ByteTokenizer(5) and t.around == ((), (1,))
    assert t.encode_marked("a<extra_id_1></s>").tolist() == [100, 260, 1]  # as transformers


def test_tokenizer_json_and_what_configs_add(tmp_path):
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    made = Tokenizer(models.BPE({piece: i for piece, i in byte_pairs()["vocab.json"].items() if i < 256}, []))
    made.pre_tokenizer, made.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": "<e>",
        "pad_token": "<new>",
        "image_token": "<img>",
        "added_tokens_decoder": {"256": token("<e>"), "257": token("<tool>", lstrip=True)},
    }
    t = read_tokenizer(write(tmp_path / "a", "llama", settings, {"tokenizer.json": made.to_str()}))
    assert t.special == {"eos": "<e>", "pad": "<new>", "image": "<img>"} and t.vocab_size == 260
    assert t.encode_marked("a <tool><img><e>").tolist() == [97, 257, 259, 256]
    older = {
        "tokenizer.json": made.to_str(),
        "added_tokens.json": {"<e>": 256, "<b>": 257},
        "special_tokens_map.json": {
            "eos_token": {"content": "<e>", "lstrip": False},
            "additional_special_tokens": ["<b>"],
        },
    }
    t = read_tokenizer(write(tmp_path / "b", "gpt2", {"eos_token": "</s>"}, older))
    assert (t.eos_id, t.vocab_size, t.markers) == (256, 258, ["<e>", "<b>"])


CONFIG = {"tokenizer_class": "LlamaTokenizer", "eos_token": "</s>"}


@pytest.mark.parametrize(
    ("folder", "message"),
    [
        (("llama", None, {}), "has no tokenizer.json, tokenizer.model, vocab.json or vocab.txt"),
        (
            ("clip", None, byte_pairs()),
            r"which class of tokenizer its vocab.json, merges.txt is of: put tokenizer_class",
        ),
        (
            ("roc_bert", {"tokenizer_class": "BertTokenizerz"}, {"vocab.txt": word_pieces("a")}),
            "did you mean 'BertTokenizer'",
        ),
        (("llama", None, {"tokenizer.model": ranks()}), "is a tiktoken file, which tells neither special tokens"),
        (("gpt2", None, {"vocab.json": "{}"}), "no merges.txt: copy"),
        (("gpt2", None, byte_pairs() | {"merges.txt": "a b c\n"}), "are no vocabulary"),
        (("t5", None, {"spiece.model": b"\x0a\xff\xffjunk"}), "is no SentencePiece model: copy it anew"),
        (("t5", None, {"spiece.model": FOLDERS["nllb"][2]["sentencepiece.bpe.model"]}), "is no unigram model"),
        (("llama", CONFIG, FOLDERS["t5"][2]), "is no BPE model"),
        (
            ("llama", CONFIG | {"added_tokens_decoder": {"5": token("<new>")}}, of_llama()[2]),
            "'<new>' has the id 5, but",
        ),
        (("llama", CONFIG | {"added_tokens_decoder": []}, of_llama()[2]), "added_tokens_decoder is list"),
        (("llama", CONFIG | {"added_tokens_decoder": {"x": 3}}, of_llama()[2]), "added_tokens_decoder"),
        (("llama", CONFIG | {"add_bos_token": "yes"}, of_llama()[2]), "add_bos_token is str 'yes': give true or false"),
        (("llama", {"tokenizer_class": ["x"]}, of_llama()[2]), "tokenizer_class is list"),
        (("llama", CONFIG | {"eos_token": 5}, of_llama()[2]), "eos_token is int"),
        (("mbart", {"src_lang": "xx_XX"}, FOLDERS["mbart"][2]), "'xx_XX' stands around each text and is not in"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, folder, message):
    with pytest.raises(UserError, match=message) as e:
        read_tokenizer(write(tmp_path / "folder", *folder))
    assert "\n" not in str(e.value)


def test_sizes_that_do_not_fit_are_told():
    t = ByteTokenizer(0)  # 259 tokens
    assert size_note(t, 259) is None and size_note(t, 264) is None
    assert "259 tokens and the model rows for 258" in str(size_note(t, 258))
    assert "rows for 261 tokens and the tokenizer 259" in str(size_note(t, 261))
    assert "rows from 259 on are of no token" in str(size_note(t, 2048))


ODD = (None, "x", -1, 0, 1.5, [], {}, True, ["a", 3], {"0": "a"}, {"content": "q"})
KEYS = (
    "tokenizer_class add_prefix_space legacy do_lower_case strip_accents tokenize_chinese_chars extra_ids "
    "offset src_lang tgt_lang language_codes keep_accents split_by_punct mask_token_sent added_tokens_decoder "
    "additional_special_tokens extra_special_tokens add_bos_token add_eos_token eos_token pad_token unk_token "
    "mask_token image_token chat_template"
)


@pytest.mark.slow
@pytest.mark.parametrize("key", KEYS.split())
def test_no_config_ends_in_a_traceback(tmp_path, key):
    for i, (model_type, settings, files) in enumerate(FOLDERS.values()):
        for j, value in enumerate(ODD):
            folder = write(tmp_path / f"{i}-{j}", model_type, {**(settings or {}), key: value}, files)
            try:
                read_text(folder).tokenizer.encode("the old river")
            except UserError as e:
                assert "\n" not in str(e)
            shutil.rmtree(folder)
