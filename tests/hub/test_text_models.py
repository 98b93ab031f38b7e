"""Text models within files of models that see images too: Gemma 3's, in both layouts of names."""

import jax
import numpy as np
import pytest

from lm.core.errors import UserError
from lm.hub.config import read_config, text_config
from lm.hub.open import open_folder
from lm.zoo.registry import build
from tests.hub.tiny import configs, tensors_of, write

pytest.importorskip("safetensors")
ONE = np.ones(3, np.float32)
LAYOUTS = {
    "older": ("language_model.model.", ("vision_tower.vision_model.encoder.layers.0.mlp.fc1.weight",)),
    "newer": ("model.language_model.", ("model.vision_tower.vision_model.encoder.layers.0.mlp.fc1.weight",)),
}


def whole(kind: str = "Gemma3ForConditionalGeneration") -> dict:
    text = {k: v for k, v in configs()["gemma3_text"].items() if k != "architectures"}
    return {
        "architectures": [kind],
        "model_type": "gemma3",
        "text_config": text,
        "vision_config": {"model_type": "siglip_vision_model", "hidden_size": 8},
        "eos_token_id": [1, 106],
    }


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_text_model_of_gemma_3(tmp_path, caplog, layout):
    prefix, seeing = LAYOUTS[layout]
    config = configs()["gemma3_text"] | {"architectures": ["Gemma3ForCausalLM"]}
    tensors = tensors_of(config)
    alone = open_folder(write(tmp_path / "alone", config, tensors))
    renamed = {name.replace("model.", prefix, 1): tensor for name, tensor in tensors.items()}
    projector = "multi_modal_projector.mm_soft_emb_norm.weight"
    opened = open_folder(write(tmp_path / "whole", whole(), renamed | dict.fromkeys((*seeing, projector), ONE)))
    assert opened.model == alone.model
    jax.tree.map(np.testing.assert_array_equal, opened.params, alone.params)
    assert "not part of this model and not read" in caplog.text and seeing[0] in caplog.text
    assert opened.config["model_type"] == "gemma3_text" and opened.config["eos_token_id"] == [1, 106]
    base = open_folder(tmp_path / "whole", "Gemma3TextModel")
    jax.tree.map(np.testing.assert_array_equal, base.params["body"], alone.params["body"])


def test_what_the_text_config_leaves_out_has_the_model_types_values():
    """As in the published config of gemma-3-4b-it."""
    given = {"hidden_size": 2560, "intermediate_size": 10240, "num_hidden_layers": 34, "sliding_window": 1024}
    scaling = {"factor": 8.0, "rope_type": "linear"}
    outer = whole() | {"text_config": {"model_type": "gemma3_text", "rope_scaling": scaling} | given}
    assert build(read_config(text_config(outer)).knobs) == build({"family": "gemma3", "size": "4b"})


def test_the_base_model_of_gemma_3_and_others():
    assert text_config(whole("Gemma3Model"))["architectures"] == ["Gemma3TextModel"]
    outer = whole() | {"model_type": "llava", "text_config": {"model_type": "llama"}}
    with pytest.raises(UserError, match=r"save its text model \(text_config, model_type='llama'\) in a folder"):
        read_config(text_config(outer))
    with pytest.raises(UserError, match=r"model_type='blip' .* neither is its text model .*'blip_text_model'"):
        read_config({"model_type": "blip", "text_config": {"model_type": "blip_text_model"}})


def test_both_ways_the_file_tells_the_window_of_both_sides():
    config = configs()["gemma3_text"] | {"use_bidirectional_attention": True, "sliding_window": 512}
    knobs = read_config(config).knobs
    assert (knobs["window"], knobs["bidirectional"]) == (257, True)
