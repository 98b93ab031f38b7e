"""Folders that are opened without knowing what they hold; what is wrong with one is told in one line."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lm.core.errors import UserError
from lm.core.param import flatten
from lm.hub import gguf
from lm.hub import open as open_module
from lm.hub.binding import Binding
from lm.hub.model_types import MODEL_TYPES
from lm.hub.open import open_folder
from lm.open import open_any
from lm.zoo.registry import build
from tests import toys
from tests.hub import gguf_files

save_file = pytest.importorskip("safetensors.numpy").save_file

SIZES = {
    "hidden_size": 8,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 6,
    "vocab_size": 7,
    "head_dim": 4,
}
LLAMA = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], **SIZES}
UP = "model.layers.1.mlp.up_proj.weight"


def weights(tied: bool = False, **knobs: Any) -> dict[str, np.ndarray]:
    shape = {"layers": 2, "d_model": 8, "heads": 2, "d_ff": 6, "vocab": 7}
    model = build({"family": "llama", "tied": tied, **shape, **knobs})
    return Binding(model, MODEL_TYPES["llama"].names).to_tensors(toys.values(model.spec()))


def folder_with(folder: Path, config: dict[str, Any] | str, tensors: dict[str, np.ndarray]) -> Path:
    (folder / "config.json").write_text(config if isinstance(config, str) else json.dumps(config))
    save_file(tensors, folder / "model.safetensors")
    return folder


def refused(folder: Path, match: str) -> None:
    with pytest.raises(UserError, match=match) as info:
        open_folder(folder)
    assert "\n" not in str(info.value) and str(folder) in str(info.value)


def test_both_dialects_of_config(tmp_path):
    """`rope_theta`, `rope_scaling`, `torch_dtype` of transformers 4; `rope_parameters`, `dtype` of 5."""
    old = {"rope_theta": 500.0, "rope_scaling": {"type": "linear", "factor": 2.0}, "torch_dtype": "float32"}
    new = {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 500.0}, "dtype": "float32"}
    one, two = (open_folder(folder_with(tmp_path, LLAMA | changes, weights())) for changes in (old, new))
    assert one.model == two.model and one.knobs["theta"] == 500.0 and one.knobs["scaling"].factor == 2.0


def test_infinities(tmp_path):
    text = json.dumps(LLAMA)[:-1] + ', "pretraining_tp": Infinity, "attention_dropout": {"__float__": "-Infinity"}}'
    opened = open_folder(folder_with(tmp_path, text, weights()))
    assert opened.config["pretraining_tp"] == float("inf") == -opened.config["attention_dropout"]


def counted(monkeypatch, where: Any, name: str) -> list[Any]:
    """One entry for each call of a function of a module."""
    calls, real = [], getattr(where, name)
    monkeypatch.setattr(where, name, lambda *given: calls.append(given) or real(*given))
    return calls


@pytest.mark.parametrize(("tied", "models"), [(False, 1), (True, 2)])
def test_a_model_is_built_and_bound_once(tmp_path, monkeypatch, tied, models):
    """And once more where the file's tables differ, though its config ties them."""
    folder = folder_with(tmp_path, LLAMA | {"tie_word_embeddings": tied}, weights())
    built, bound = (counted(monkeypatch, open_module, name) for name in ("build", "Binding"))
    open_folder(folder)
    assert (len(built), len(bound)) == (models, models)


def test_a_gguf_file_is_parsed_once(tmp_path, monkeypatch):
    pytest.importorskip("gguf")
    path = gguf_files.write(tmp_path / "model.gguf", "llama")
    parsed = counted(monkeypatch, gguf, "open_gguf")
    opened = open_any(path)
    assert len(parsed) == 1 and opened.text.tokenizer.vocab_size


def test_two_tables_that_differ_are_not_tied(tmp_path):
    """Whatever config.json says, as transformers 5 does; equal ones are."""
    config, tensors = LLAMA | {"tie_word_embeddings": True}, weights()
    opened = open_folder(folder_with(tmp_path, config, tensors))
    assert opened.knobs["tied"] is False and not opened.model.ties
    np.testing.assert_array_equal(opened.params["head"]["w"], tensors["lm_head.weight"])
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"]
    opened = open_folder(folder_with(tmp_path, config, tensors))
    assert opened.knobs["tied"] is True and "head" not in dict(flatten(opened.params))


def test_a_head_that_is_missing(tmp_path):
    folder_with(tmp_path, LLAMA, weights(tied=True))
    refused(tmp_path, "'lm_head.weight' is missing from model.safetensors, and the config does not tie it")
    assert open_folder(folder_with(tmp_path, LLAMA | {"tie_word_embeddings": True}, weights(tied=True))).model.ties


def test_another_class_of_the_same_file(tmp_path):
    tensors = {name: t for name, t in weights().items() if name != "lm_head.weight"}
    folder_with(tmp_path, LLAMA, tensors)
    assert not dict(flatten(open_folder(tmp_path, "LlamaModel").params["head"]))
    with pytest.raises(UserError, match=r"'LlamaModle'.* did you mean 'LlamaModel'\?"):
        open_folder(tmp_path, "LlamaModle")


def test_wrong_tensors_are_named_with_their_file(tmp_path):
    tensors = weights()
    refused(
        folder_with(tmp_path, LLAMA, {k: v for k, v in tensors.items() if k != UP}),
        f"tensor '{UP}' is missing from model.safetensors: check",
    )
    bias = "model.layers.1.self_attn.q_proj.bias"
    refused(
        folder_with(tmp_path, LLAMA, tensors | {bias: np.zeros(8, np.float32)}),
        f"tensor '{bias}' of model.safetensors is unknown",
    )
    refused(
        folder_with(tmp_path, LLAMA, tensors | {UP: tensors[UP].T.copy()}),
        rf"tensor '{UP}' is \[8, 6\] in model.safetensors, the model's \[6, 8\]",
    )
    refused(
        folder_with(tmp_path, LLAMA | {"tie_word_embeddings": True}, weights(vocab=9)),
        "tensor 'model.embed_tokens.weight' has a vocabulary of 9 in model.safetensors, the model one of 7",
    )
    file = folder_with(tmp_path, LLAMA, tensors) / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-5])
    refused(tmp_path, "model.safetensors is truncated or damaged")


def test_configs_that_are_not_supported(tmp_path):
    inner = {"model_type": "llava", "text_config": {"model_type": "llama", **SIZES}}
    refused(
        folder_with(tmp_path, inner, weights()),
        r"config.json: model_type='llava' is a model of more than text.*\(text_config, model_type='llama'\)",
    )
    refused(folder_with(tmp_path, LLAMA | {"hidden_act": "mish"}, weights()), "config.json: hidden_act='mish'")
    refused(folder_with(tmp_path, {"model_type": "llama"}, weights()), "config.json: 'hidden_size' is missing")
    refused(folder_with(tmp_path, LLAMA | {"model_type": "lama"}, weights()), r"did you mean 'llama'\?")
    (tmp_path / "config.json").unlink()
    refused(tmp_path, "has no config.json: give a Hugging Face folder or a .gguf file")
    refused(tmp_path / "model.safetensors", "is no folder")
    refused(tmp_path / "gone", "does not exist")


def test_a_pickle_is_never_run(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(LLAMA))
    ran = tmp_path / "ran"
    (tmp_path / "pytorch_model.bin").write_bytes(f"cposix\nsystem\n(S'touch {ran}'\ntR.".encode())
    refused(tmp_path, "pytorch_model.bin, a pickle, which may run any code and is not read")
    assert not ran.exists()
