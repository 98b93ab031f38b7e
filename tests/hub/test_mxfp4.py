"""Files of 4-bit floats in blocks."""

import json

import numpy as np
import pytest

from lm.core.errors import UserError
from lm.core.param import flatten
from lm.hub.binding import Binding
from lm.hub.config import spelling
from lm.hub.folder import read_folder
from lm.zoo.registry import build

safetensors = pytest.importorskip("safetensors.numpy")
CONFIG = {
    "model_type": "gpt_oss",
    "architectures": ["GptOssForCausalLM"],
    "vocab_size": 11,
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 4,
    "intermediate_size": 64,
    "num_local_experts": 2,
    "num_experts_per_tok": 1,
}
MODEL = build(
    {
        "family": "gpt_oss", "layers": 1, "d_model": 32, "heads": 2, "kv_heads": 1, "head_dim": 4, "d_ff": 64,
        "experts": 2, "k": 1, "vocab": 11,
    }
)  # fmt: skip


def stored() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    names = Binding(MODEL, spelling(CONFIG).names).links
    found = {name: rng.normal(size=link.shape).astype(np.float32) for name, link in names.items()}
    for name, out, width in (("gate_up_proj", 128, 32), ("down_proj", 32, 64)):
        name = f"model.layers.0.mlp.experts.{name}"
        del found[name]
        found[f"{name}_blocks"] = rng.integers(0, 256, (2, out, width // 32, 16)).astype(np.uint8)
        found[f"{name}_scales"] = rng.integers(120, 130, (2, out, width // 32)).astype(np.uint8)
    return found


def write(folder, tensors):
    (folder / "config.json").write_text(json.dumps(CONFIG))
    safetensors.save_file(tensors, folder / "model.safetensors")


def test_blocks_are_read(tmp_path):
    tensors = stored()
    blocks, scales = (tensors[f"model.layers.0.mlp.experts.gate_up_proj_{kind}"] for kind in ("blocks", "scales"))
    blocks[1, 6, 0, :3] = [0x21, 0xF7, 0x8C]  # the lower half first: 0.5 1, 6 -6, -2 -0
    scales[1, 6, 0] = 130
    write(tmp_path, tensors)
    params = dict(flatten(read_folder(tmp_path, MODEL)))
    gate = params["body/stack/0/0/mlp/experts/gate/w"]  # [layer, expert, in, out]: even columns
    np.testing.assert_array_equal(gate[0, 1, :6, 3], [4.0, 8.0, 48.0, -48.0, -16.0, 0.0])
    assert params["body/stack/0/0/mlp/experts/down/w"].shape == (1, 2, 64, 32)


def test_blocks_of_another_model_are_refused(tmp_path):
    tensors = stored()
    name = "model.layers.0.mlp.experts.down_proj"
    for kind in ("blocks", "scales"):
        tensors[f"{name}_{kind}"] = tensors[f"{name}_{kind}"][:1]
    write(tmp_path, tensors)
    with pytest.raises(UserError, match=r"down_proj' is \[1, 64, 32\] .* the model's \[2, 64, 32\]"):
        read_folder(tmp_path, MODEL)
    del tensors[f"{name}_scales"]
    write(tmp_path, tensors)
    with pytest.raises(UserError, match="down_proj_blocks"):
        read_folder(tmp_path, MODEL)
