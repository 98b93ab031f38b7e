"""GGUF files: what transformers makes of the same file, tokenizer and template, and what cannot be read."""

from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from lm.core.errors import UserError
from lm.hub.names import to_tensors
from lm.hub.open import open_folder, open_text
from lm.train.initial import initial_params
from lm.zoo.build import DIALECTS, build

pytest.importorskip("gguf", reason="the package gguf is not installed: pip install -e '.[gguf]'")
pytest.importorskip("tokenizers", reason="the package tokenizers is not installed")

from tests.hub import gguf_files

KINDS = tuple(gguf_files.SHAPES)


def opened(folder: Path, kind: str = "llama", change: dict[str, Any] | None = None, **values: np.ndarray | None) -> Any:
    return open_folder(gguf_files.write(folder / "model.gguf", kind, change, **values))


def refused(folder: Path, match: str, change: dict[str, Any] | None = None, kind: str = "llama", **values: Any) -> None:
    with pytest.raises(UserError, match=match) as info:
        opened(folder, kind, change, **values)
    assert "\n" not in str(info.value) and "model.gguf" in str(info.value)


@pytest.mark.parametrize("kind", gguf_files.COMPARED)
def test_logits_are_those_of_transformers(tmp_path, kind):
    """From quantised files; rows of queries and keys in their order, GPT-2's matrices turned, heads tied or not."""
    o = opened(tmp_path, kind)
    ours = np.asarray(o.model(o.params, {"tokens": gguf_files.TOKENS}))[:, gguf_files.SEEN]
    theirs = np.load(gguf_files.LOGITS)[kind]
    assert np.abs(ours - theirs).max() / np.abs(theirs).max() < 2e-5
    assert o.knobs["tied"] is (kind not in gguf_files.UNTIED)


def test_gains_that_count_from_zero(tmp_path):
    o = opened(tmp_path, "gemma")
    tensors = to_tensors(o.model, DIALECTS["gemma"].names, o.params)
    np.testing.assert_array_equal(
        tensors["model.norm.weight"], gguf_files.tensors("gemma")["output_norm.weight"] - np.float32(1)
    )


@pytest.mark.parametrize("kind", KINDS)
def test_metadata_become_knobs(tmp_path, kind):
    o = opened(tmp_path, kind)
    assert (o.knobs["layers"], o.knobs["d_model"], o.knobs["heads"]) == (gguf_files.LAYERS, gguf_files.D, 4)
    assert o.knobs["eps"] == 0.01  # as the file's author wrote it, not as float32 holds it
    if kind == "gpt2":
        assert o.model.longest == 1024
    else:
        assert (o.knobs["kv_heads"], o.knobs["theta"]) == (gguf_files.KV, 5000.0)
        assert o.config["max_position_embeddings"] == gguf_files.CONTEXT


def test_first_parameters_of_a_run(tmp_path):
    o = opened(tmp_path)
    params = initial_params(tmp_path / "model.gguf", o.model)
    jax.tree.map(np.testing.assert_array_equal, params, o.params)
    other = build(o.knobs | {"layers": 2})
    with pytest.raises(UserError, match=r"model.gguf does not fit: parameter 'body/stack/0/0/.*\[3, "):
        initial_params(tmp_path / "model.gguf", other)


def test_stretched_frequencies(tmp_path):
    """As metadata, or as llama.cpp keeps LLaMA 3.1's: what each frequency is divided by."""
    linear = {"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 4.0}
    assert opened(tmp_path, change=linear).knobs["scaling"].factor == 4.0
    yarn = linear | {"llama.rope.scaling.type": "yarn", "llama.rope.scaling.original_context_length": 12}
    scaling = opened(tmp_path, change=yarn).knobs["scaling"]
    assert (type(scaling).__name__, scaling.factor, scaling.original) == ("YarnScaling", 4.0, 12)
    factors = []
    for i in range(8):  # of 8 frequencies, base 5000, 8192 positions: turns below 1 are divided, above 4 kept
        turns = 8192 / (2 * np.pi * 5000 ** (i / 8))
        smooth = min(max((turns - 1) / (4 - 1), 0), 1)
        factors.append(1 / ((1 - smooth) / 32 + smooth))
    found = opened(tmp_path, **{"rope_freqs.weight": np.array(factors, np.float32)}).knobs["scaling"]
    assert (found.factor, found.original) == (32.0, 8192)
    wrong = np.array(factors[::-1], np.float32)
    refused(tmp_path, "the frequencies of rope_freqs.weight follow no rule", **{"rope_freqs.weight": wrong})
    refused(tmp_path, "rope.scaling longrope .*not supported", {"llama.rope.scaling.type": "longrope"})


def test_text(tmp_path):
    text = open_text(gguf_files.write(tmp_path / "model.gguf", "llama"))
    t = text.tokenizer
    assert t.decode(t.encode("the 123 thins\n é日")) == "the 123 thins\n é日"
    assert [t.decode([i]) for i in t.encode("in the 123")] == ["in", " the", " ", "1", "2", "3"]  # digits one by one
    assert (text.ends, text.before, text.after) == ((0,), (), ()) and text.template == gguf_files.TEMPLATE
    assert t.encode("<|end|>").size > 1 and t.encode_marked("a<|end|>").tolist()[-1] == 0


@pytest.mark.parametrize(
    ("pre", "pieces"),
    [
        ("gpt-2", ["in", " the", " ", "123"]),
        ("llama-bpe", ["in", " the", " ", "123"]),
        ("qwen2", ["in", " the", " ", "1", "2", "3"]),
    ],
)
def test_other_ways_to_cut(tmp_path, pre, pieces):
    text = open_text(gguf_files.write(tmp_path / "model.gguf", "llama", gguf_files.byte_pairs(pre)))
    assert [text.tokenizer.decode([i]) for i in text.tokenizer.encode("in the 123")] == pieces
    assert text.before == ((1,) if pre == "llama-bpe" else ()) == text.tokenizer.around[0]


def test_sentencepiece(tmp_path):
    """Pieces with scores, bytes for the rest, a space before the text."""
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{b:02X}>" for b in range(256)), "▁", "a", "b", "▁a", "▁ab"]
    told = {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.pre": None,
        "tokenizer.ggml.merges": None,
        "tokenizer.ggml.tokens": pieces,
        "tokenizer.ggml.scores": [0.0] * 259 + [-3.0, -4.0, -5.0, -1.0, -2.0],
        "tokenizer.ggml.token_type": [2, 3, 3] + [6] * 256 + [1] * 5,
        "tokenizer.ggml.unknown_token_id": 0,
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
    }
    text = open_text(gguf_files.write(tmp_path / "model.gguf", "llama", told))
    t = text.tokenizer
    assert [pieces[i] for i in t.encode("ab aé")] == ["▁ab", "▁a", "<0xC3>", "<0xA9>"]
    assert t.decode(t.encode("ab  aé\n")) == "ab  aé\n"
    assert (text.before, text.after, text.ends, t.bos_id, t.unk_id) == ((1,), (), (2,), 1, 0)
    assert t.encode_marked("<s>ab</s>").tolist() == [1, pieces.index("▁ab"), 2]


def test_what_cannot_be_read(tmp_path):
    refused(tmp_path, "llama.expert_count=8 is not supported", {"llama.expert_count": 8})
    refused(tmp_path, "attention.head_count_kv differs between layers", {"llama.attention.head_count_kv": [1, 2, 2]})
    refused(tmp_path, "rope.dimension_count=8 is not supported, only 16", {"llama.rope.dimension_count": 8})
    refused(tmp_path, "llama.embedding_length are missing", {"llama.embedding_length": None})
    refused(tmp_path, "'token_embd.weight' is missing", **{"token_embd.weight": None})
    up = "blk.1.ffn_up.weight"
    refused(tmp_path, r"'model.layers.1.mlp.up_proj.weight' is missing from model.gguf", **{up: None})
    refused(tmp_path, r"is \[6, 64\] in model.gguf, the model's \[96, 64\]", **{up: np.zeros((6, 64), np.float32)})
    refused(tmp_path, "tensor 'strange.weight' of model.gguf is unknown", **{"strange.weight": np.ones(3, np.float32)})
    with pytest.raises(UserError, match="the pre-tokenizer 'viking' is not supported"):
        open_text(gguf_files.write(tmp_path / "model.gguf", "llama", {"tokenizer.ggml.pre": "viking"}))
    with pytest.raises(UserError, match=r"model.gguf has no tokenizer.ggml.tokens"):
        open_text(gguf_files.write(tmp_path / "model.gguf", "llama", {"tokenizer.ggml.tokens": None}))


def test_files_that_are_no_gguf(tmp_path):
    path = gguf_files.write(tmp_path / "model.gguf", "llama")
    whole = path.read_bytes()
    for size in (0, 3, 20, 500, len(whole) // 2, len(whole) - 40):
        path.write_bytes(whole[:size])
        with pytest.raises(UserError, match=r"model.gguf is no GGUF file, or truncated \(.*\): download it again"):
            open_folder(path)
    path.write_bytes(b"NOPE" + whole[4:])
    with pytest.raises(UserError, match=r"model.gguf is no GGUF file"):
        open_folder(path)
    path.unlink()
    with pytest.raises(UserError, match=r"cannot read .*model.gguf \(No such file"):
        open_folder(path)


def test_another_architecture(tmp_path, monkeypatch):
    monkeypatch.setitem(gguf_files.SHAPES, "lama", gguf_files.SHAPES["llama"])
    with pytest.raises(UserError, match=r"architecture 'lama' is not supported; did you mean 'llama'\?"):
        open_folder(gguf_files.write(tmp_path / "model.gguf", "lama"))
