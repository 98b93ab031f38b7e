"""GGUF files: what transformers makes of the same file, tokenizer and template, and what cannot be read."""

from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from lm.core.errors import UserError
from lm.hub.binding import Binding
from lm.hub.model_types import MODEL_TYPES
from lm.hub.open import open_folder, open_text
from lm.train.initial import initial_params
from lm.zoo.registry import build

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
    tensors = Binding(o.model, MODEL_TYPES["gemma"].names).to_tensors(o.params)
    np.testing.assert_array_equal(
        tensors["model.norm.weight"], gguf_files.tensors("gemma")["output_norm.weight"] - np.float32(1)
    )


@pytest.mark.parametrize("kind", KINDS)
def test_metadata_become_knobs(tmp_path, kind):
    o = opened(tmp_path, kind)
    assert (o.knobs["layers"], o.knobs["d_model"], o.knobs["heads"]) == (gguf_files.LAYERS, gguf_files.D, 4)
    assert o.knobs["eps"] == 0.01  # as the file's author wrote it, not as float32 holds it
    if kind == "gpt2":
        assert o.model.max_length == 1024
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
    refused(tmp_path, "rope.scaling 'longrope' is not supported", {"llama.rope.scaling.type": "longrope"})
    table = {"rope_freqs.weight": np.array(factors, np.float32)}
    refused(tmp_path, "'linear' together with rope_freqs.weight", linear, **table)
    refused(tmp_path, "rope_freqs.weight are not 8 divisors", **{"rope_freqs.weight": np.ones(4, np.float32)})


def test_other_frequencies_are_the_file_s(tmp_path):
    """What each is divided by, where that follows no rule."""
    factors = np.array([1, 1.5, 2, 9, 3, 8, 8, 64], np.float32)
    o = opened(tmp_path, **{"rope_freqs.weight": factors})
    rotary = o.model.body.stack.blocks()[0].parts[0][1].rotary
    for length in (3, 10**6):
        found, magnitude = rotary.scaling(5000.0, 16, lambda n=length: np.full((1, 1, 1, 1), n))
        np.testing.assert_allclose(np.squeeze(found), 5000.0 ** -(np.arange(8) / 8) / factors, rtol=1e-6)
        assert magnitude == 1
    same = opened(tmp_path, **{"rope_freqs.weight": np.ones(8, np.float32)})
    assert same.knobs["scaling"] is None


def test_a_factor_without_a_type_is_linear(tmp_path):
    """As llama.cpp reads it, under its first name too; none and 1 stretch nothing."""
    for name in ("rope.scaling.factor", "rope.scale_linear"):
        assert opened(tmp_path, change={f"llama.{name}": 4.0}).knobs["scaling"].factor == 4.0
        assert opened(tmp_path, change={f"llama.{name}": 1.0}).knobs["scaling"] is None
    none = {"llama.rope.scaling.type": "none", "llama.rope.scaling.factor": 4.0, "llama.rope.scaling.finetuned": True}
    assert opened(tmp_path, change=none).knobs["scaling"] is None
    ramp = {"yarn_beta_fast": 16.0, "yarn_beta_slow": 2.0, "type": "yarn", "factor": 4.0, "attn_factor": 1.0}
    scaling = opened(tmp_path, change={f"llama.rope.scaling.{k}": v for k, v in ramp.items()}).knobs["scaling"]
    assert (scaling.fast, scaling.slow, scaling.original) == (16.0, 2.0, gguf_files.CONTEXT)
    refused(tmp_path, "attn_factor=0.5 is not supported", {"llama.rope.scaling.attn_factor": 0.5})


SAYS_NOTHING = {
    "tensor_data_layout": "Meta AI original pth",
    "expert_count": 0,
    "expert_used_count": 2,
    "rope.dimension_count": 16,
    "attention.value_length": 16,
    "attention.scale": 0.25,
    "attention.clamp_kqv": 0.0,
    "attention.max_alibi_bias": 0.0,
    "attention.causal": True,
    "attention.sliding_window": 48,
    "attention.head_count_kv": [2, 2, 2],
    "feed_forward_length": [96, 96, 96],
    "logit_scale": 1.0,
    "final_logit_softcapping": 0.0,
    "pooling_type": 0,
    "nextn_predict_layers": 0,
    "embedding_length_out": 64,
}
CHANGES_OUTPUTS = {
    "expert_count": 8,
    "rope.dimension_count": 8,
    "attention.value_length": 8,
    "attention.scale": 0.5,
    "attention.clamp_kqv": 8.0,
    "attention.causal": False,
    "attention.sliding_window": 16,
    "attention.sliding_window_pattern": [True, True, True],
    "logit_scale": 0.5,
    "residual_scale": 2.0,
    "final_logit_softcapping": 30.0,
    "something.new": "yes",
}


def test_keys_that_say_nothing_new(tmp_path):
    """All at once; and whatever does not stand under the architecture's name."""
    plain = opened(tmp_path)
    meta = {f"llama.{k}": v for k, v in SAYS_NOTHING.items()}
    meta |= {"general.name": "x", "general.type": "model", "quantize.imatrix.file": "y", "odd.key": 3, "split.count": 1}
    o = opened(tmp_path, change=meta)
    assert o.config == plain.config
    jax.tree.map(np.testing.assert_array_equal, o.params, plain.params)


@pytest.mark.parametrize("key", CHANGES_OUTPUTS)
def test_keys_that_change_outputs_are_refused(tmp_path, key):
    value = CHANGES_OUTPUTS[key]
    refused(tmp_path, f"llama.{key}=.* is not supported", {f"llama.{key}": value})


def test_what_llama_cpp_takes_for_granted(tmp_path):
    lean = {"llama.attention.head_count_kv": None, "llama.rope.freq_base": None}
    wide = {f"blk.{i}.attn_{x}.weight": np.ones((64, 64), np.float32) for i in range(3) for x in "kv"}
    o = opened(tmp_path, change=lean, **wide)
    assert (o.knobs["kv_heads"], o.knobs["theta"]) == (gguf_files.HEADS, 10000.0)
    for key in ("block_count", "attention.layer_norm_rms_epsilon", "feed_forward_length"):
        refused(tmp_path, f"the metadata llama.{key} are missing", {f"llama.{key}": None})
    for value in ("x", -1.5, 0, True):
        refused(tmp_path, "block_count=.* is no positive number", {"llama.block_count": value})
    refused(tmp_path, "head_count=0 is no positive number", {"llama.attention.head_count": 0})
    refused(tmp_path, "freq_base='x' is no positive number", {"llama.rope.freq_base": "x"})


def test_biases_of_a_llama(tmp_path):
    rng = np.random.default_rng(0)
    sizes = {"attn_q": 64, "attn_k": 32, "attn_v": 32, "attn_output": 64}
    biases = {f"blk.{i}.{n}.bias": rng.normal(size=s).astype(np.float32) for i in range(3) for n, s in sizes.items()}
    o = opened(tmp_path, **biases)
    found = Binding(o.model, MODEL_TYPES["llama"].names).to_tensors(o.params)["model.layers.1.self_attn.q_proj.bias"]
    q = biases["blk.1.attn_q.bias"].reshape(4, 8, 2)  # rows of pairs, as those of the matrix
    np.testing.assert_array_equal(found, np.swapaxes(q, 1, 2).reshape(64))


def test_parts(tmp_path):
    """A file in parts is read from any of them."""
    whole = opened(tmp_path)
    first = gguf_files.write(tmp_path / "m.gguf", "llama", parts=3)
    paths = sorted(tmp_path.glob("m-*.gguf"))
    assert paths[0] == first and len(paths) == 3
    for path in paths:
        found = open_folder(path)
        assert found.config == whole.config
        jax.tree.map(np.testing.assert_array_equal, found.params, whole.params)
        assert open_text(path).ends == (0,)
    other = gguf_files.write(tmp_path / "n.gguf", "qwen2", parts=3).with_name("n-00003-of-00003.gguf")
    swapped, kept = paths[2].read_bytes(), other.read_bytes()
    paths[2].write_bytes(paths[1].read_bytes())
    with pytest.raises(UserError, match=r"m-00003-of-00003.gguf is not part 3 of 3"):
        open_folder(first)
    paths[2].write_bytes(kept)
    with pytest.raises(UserError, match=r"m-00003-of-00003.gguf|hold .* tensors, not"):
        open_folder(first)
    paths[2].write_bytes(swapped[: len(swapped) // 2])
    with pytest.raises(UserError, match=r"m-00003-of-00003.gguf is no GGUF file, or truncated"):
        open_folder(first)
    paths[2].unlink()
    with pytest.raises(UserError, match=r"is one of 3 parts, and m-00003-of-00003.gguf is missing: download it too"):
        open_folder(first)
    first.rename(tmp_path / "renamed.gguf")
    with pytest.raises(UserError, match=r"renamed.gguf is one of 3 parts, but is not called NAME-00001-of-00003"):
        open_folder(tmp_path / "renamed.gguf")


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16", "Q8_0", "Q5_1", "Q5_0", "Q4_1", "Q4_0"])
def test_types_of_weights(tmp_path, dtype):
    o = open_folder(
        gguf_files.write(tmp_path / "model.gguf", "qwen2", dtype=gguf_files.gguf.GGMLQuantizationType[dtype])
    )
    found = Binding(o.model, MODEL_TYPES["qwen2"].names).to_tensors(o.params)["model.layers.2.mlp.up_proj.weight"]
    true = gguf_files.tensors("qwen2")["blk.2.ffn_up.weight"]
    bits = {"F32": 24, "F16": 11, "BF16": 8}.get(dtype) or int(dtype[1])
    assert np.abs(found - true).max() <= np.abs(true).max() * 2.0 ** (1 - bits)


def test_weights_that_are_none(tmp_path):
    refused(tmp_path, "tensor 'blk.1.attn_norm.weight' is I32, which are no weights", **{
        "blk.1.attn_norm.weight": np.ones(64, np.int32)
    })  # fmt: skip
    path = gguf_files.write(tmp_path / "model.gguf", "llama")
    whole, name = path.read_bytes(), b"blk.1.ffn_up.weight"
    at = whole.index(name) + len(name) + 4 + 16  # dimensions, then the type
    path.write_bytes(whole[:at] + (200).to_bytes(4, "little") + whole[at + 4 :])
    with pytest.raises(UserError, match=r"a type that the package gguf does not know \(.*200.*update that"):
        open_folder(path)


def test_either_order_of_bytes(tmp_path):
    little = opened(tmp_path, "qwen3")
    plain = {"dtype": gguf_files.gguf.GGMLQuantizationType.F32}
    exact = open_folder(gguf_files.write(tmp_path / "little.gguf", "qwen3", **plain))
    big = open_folder(gguf_files.write(tmp_path / "big.gguf", "qwen3", big_endian=True, **plain))
    assert big.config == little.config
    jax.tree.map(np.testing.assert_array_equal, big.params, exact.params)
    with pytest.raises(UserError, match=r"is big-endian, and tensor .* Q8_0: convert it with gguf-convert-endian"):
        open_folder(gguf_files.write(tmp_path / "big.gguf", "qwen3", big_endian=True))


def test_versions(tmp_path):
    path = gguf_files.write(tmp_path / "model.gguf", "llama")
    whole, expected = path.read_bytes(), open_folder(path)
    path.write_bytes(whole[:4] + (2).to_bytes(4, "little") + whole[8:])
    jax.tree.map(np.testing.assert_array_equal, open_folder(path).params, expected.params)
    for version in (1, 4):
        path.write_bytes(whole[:4] + version.to_bytes(4, "little") + whole[8:])
        with pytest.raises(UserError, match=f"is version {version} of GGUF, not 2 or 3"):
            open_folder(path)


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
        ("tekken", ["in", " the", " ", "1", "2", "3"]),
        ("gpt-4o", ["in", " the", " ", "123"]),
    ],
)
def test_other_ways_to_cut(tmp_path, pre, pieces):
    text = open_text(gguf_files.write(tmp_path / "model.gguf", "llama", gguf_files.byte_pairs(pre)))
    assert [text.tokenizer.decode([i]) for i in text.tokenizer.encode("in the 123")] == pieces
    assert text.before == ((1,) if pre in ("llama-bpe", "tekken") else ()) == text.tokenizer.around[0]


def test_templates_with_names(tmp_path):
    def template(**values: Any) -> tuple:
        change = {"tokenizer.chat_template": None} | {f"tokenizer.{k}": v for k, v in values.items()}
        text = open_text(gguf_files.write(tmp_path / "model.gguf", "llama", change))
        return text.template, text.templates

    named = {"chat_templates": ["tool_use", "default"], "chat_template.tool_use": "A", "chat_template.default": "B"}
    assert template(**named, chat_template="C") == ("C", {"tool_use": "A"})
    assert template(**named) == ("B", {"tool_use": "A"})
    assert template(**(named | {"chat_template.default": None})) == ("A", {"tool_use": "A"})
    assert template() == (None, None)


def test_ends_of_turns_and_messages(tmp_path):
    more = {"tokenizer.ggml.eot_token_id": 5, "tokenizer.ggml.eom_token_id": 1}
    assert open_text(gguf_files.write(tmp_path / "model.gguf", "llama", more)).ends == (0, 1, 5)


def test_tokenizers_that_contradict_themselves(tmp_path):
    def wrong(match: str, **values: Any) -> None:
        change = {f"tokenizer.ggml.{k}": v for k, v in values.items()}
        with pytest.raises(UserError, match=match) as info:
            open_text(gguf_files.write(tmp_path / "model.gguf", "llama", change))
        assert "\n" not in str(info.value)

    wrong("has 2 tokenizer.ggml.token_type for 264 tokens", token_type=[1, 1])
    wrong("eos_token_id=264 is none of 264 tokens", eos_token_id=264)
    wrong("eot_token_id=4294967295 is none", eot_token_id=2**32 - 1)
    wrong("bos_token_id='a' is none", bos_token_id="a")
    wrong("has no tokenizer.ggml.eos_token_id", eos_token_id=None)
    wrong("has no tokenizer.ggml.merges", merges=None)
    wrong("merges do not fit the tokens", merges=["zz yy"])
    wrong("kind 'unigram' is not supported", model="unigram")


def test_sentencepiece(tmp_path):
    """Pieces with scores, bytes for the rest, a space before the text."""
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{b:02X}>" for b in range(256)), "▁", "a", "b", "▁a", "▁ab"]
    meta = {
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
    text = open_text(gguf_files.write(tmp_path / "model.gguf", "llama", meta))
    t = text.tokenizer
    assert [pieces[i] for i in t.encode("ab aé")] == ["▁ab", "▁a", "<0xC3>", "<0xA9>"]
    assert t.decode(t.encode("ab  aé\n")) == "ab  aé\n"
    assert (text.before, text.after, text.ends, t.bos_id, t.unk_id) == ((1,), (), (2,), 1, 0)
    assert t.encode_marked("<s>ab</s>").tolist() == [1, pieces.index("▁ab"), 2]


def test_what_cannot_be_read(tmp_path):
    refused(tmp_path, "holds no model, but 'adapter'", {"general.type": "adapter"})
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
