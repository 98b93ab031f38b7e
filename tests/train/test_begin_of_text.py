"""Documents of a training cache begin with a begin-of-text where the model reads its texts behind one."""

import json
from pathlib import Path

import numpy as np
import pytest

from lm.core.errors import UserError
from lm.hub.text import read_text
from lm.runs.checkpoint import open_model
from lm.train.data import open_data_of
from lm.train.loop import train
from tests.train import tiny

tokenizers = pytest.importorskip("tokenizers", reason="the package tokenizers is not installed")
BOS, EOS = 1, 2


def folder(path: Path, begins: bool) -> Path:
    """A Hugging Face folder without weights, whose tokenizer puts <s> before a text or not."""
    path.mkdir()
    vocab = {"<unk>": 0, "<s>": BOS, "</s>": EOS} | {c: 3 + i for i, c in enumerate("abcdefghijklmnopqrstuvwxyz \n")}
    t = tokenizers.Tokenizer(tokenizers.models.BPE(vocab, [], unk_token="<unk>"))
    t.add_special_tokens(["<unk>", "<s>", "</s>"])
    if begins:
        around = tokenizers.processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", BOS)])
        t.post_processor = around
    t.save(str(path / "tokenizer.json"))
    (path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    return path


@pytest.mark.parametrize(
    ("bos", "of_tokenizer", "of_model", "begun"),
    [
        ("auto", True, None, False),  # from scratch
        ("auto", True, True, True),
        ("auto", False, False, False),
        ("off", True, True, False),
        ("on", False, None, True),  # its begin-of-text, though it puts none before a text by itself
    ],
)
def test_documents_begin_as_asked(tmp_path, bos, of_tokenizer, of_model, begun):
    c = tiny.config(tmp_path)
    c.data.update(bos=bos, tokenizer=str(folder(tmp_path / "words", of_tokenizer)))
    data = open_data_of(c, None if of_model is None else read_text(folder(tmp_path / "model", of_model)))
    assert data.before == ((BOS,) if begun else ())
    for cache in (data.parts[0].train, *data.validation):
        tokens = cache.read(0, cache.size)
        assert tokens[-1] == EOS and (tokens[0] == BOS) == begun
        assert np.count_nonzero(tokens == BOS) == cache.documents * begun


def test_a_run_reads_text_as_it_was_trained(tmp_path):
    c = tiny.config(tmp_path)
    c.data.update(bos="on", tokenizer=str(folder(tmp_path / "words", False)))
    c.train.steps = 2
    train(c, tmp_path / "run")
    text = open_model(tmp_path / "run").text
    assert text.before == (BOS,) and text.ends == (EOS,)
    c.data.bos = "off"
    with pytest.raises(UserError, match=r"holds a run with data\.bos='on'"):
        train(c, tmp_path / "run")


def test_a_tokenizer_without_begin_of_text(tmp_path):
    c = tiny.config(tmp_path)
    c.data.bos = "on"
    with pytest.raises(UserError, match=r"no begin-of-text: set data\.bos=off"):
        open_data_of(c)
