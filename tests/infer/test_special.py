"""Special tokens that are said in a prompt, and text that comes token by token from every class of tokenizer."""

import pytest

pytest.importorskip("tokenizers", reason="the package tokenizers is not installed")

from lm.hub.read_tokenizer import read_tokenizer
from lm.text.chat import text_ids
from lm.text.format import TextFormat
from lm.text.stream import TextStream
from lm.text.tokenizers import ByteTokenizer
from tests.hub.tokenizer_folders import TEXTS, folders, write

FOLDERS = folders()


def test_special_tokens_are_said_where_asked_for(tmp_path):
    t = read_tokenizer(write(tmp_path / "t5", *FOLDERS["t5"]))
    text = TextFormat(t, (t.eos_id,))
    ids = text_ids(text, "the <extra_id_0> river", special=True)
    assert t.sentinel(0) in ids and t.decode(ids, special=True) == "the<extra_id_0> river"  # as transformers
    plain = text_ids(text, "the <extra_id_0> river")
    assert t.sentinel(0) not in plain and len(plain) > len(ids)
    own = TextFormat(ByteTokenizer(), (1,))
    ids = text_ids(own, "a<extra_id_0>b</s>", special=True)
    assert ids.tolist() == [100, 259, 101, 1] and own.tokenizer.decode(ids, special=True) == "a<extra_id_0>b</s>"
    assert own.tokenizer.decode(ids) == "ab" and len(text_ids(own, "</s>")) == 4


def test_a_stream_spells_special_tokens_where_asked_to(tmp_path):
    t = read_tokenizer(write(tmp_path / "t5", *FOLDERS["t5"]))
    ids = [t.sentinel(0), *t.encode("old"), t.sentinel(1), t.eos_id]
    stream = TextStream(t, special=True, silent=(t.eos_id,))
    assert "".join([*map(stream.push, ids), stream.finish()]) == t.decode(ids[:-1], special=True)
    assert TextStream(t).push(*ids) == "old"


@pytest.mark.parametrize("name", FOLDERS)
def test_pieces_of_text_add_up(tmp_path, name):
    t = read_tokenizer(write(tmp_path / "folder", *FOLDERS[name]))
    for text in TEXTS:
        ids = t.encode_marked(text).tolist()
        for cut in range(len(ids) + 1):  # a prompt, and what is written after it
            stream = TextStream(t)
            parts = [stream.push(*ids[:cut]), *map(stream.push, ids[cut:]), stream.finish()]
            assert "".join(parts) == t.decode(ids), (text, cut)
