"""Files of 8-bit floats in blocks."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

from lm.core.errors import UserError
from lm.hub.binding import Binding
from lm.hub.config import read_config
from lm.hub.open import open_folder
from lm.zoo.registry import build
from tests.golden.cases.deepseek import CASES

pytest.importorskip("safetensors")
CONFIG = {
    "model_type": "deepseek_v3",
    "architectures": ["DeepseekV3ForCausalLM"],
    **CASES["deepseek_v3_experts"].config,
    "intermediate_size": 130,
    "moe_intermediate_size": 129,
}


def write(folder, tensors: dict[str, np.ndarray]) -> None:
    """safetensors' own writer wants arrays of kinds that NumPy has."""
    kinds, header, at = {"float32": "F32", "float8_e4m3fn": "F8_E4M3"}, {}, 0
    for name, x in tensors.items():
        header[name] = {"dtype": kinds[x.dtype.name], "shape": x.shape, "data_offsets": [at, at + x.nbytes]}
        at += x.nbytes
    text = json.dumps({"__metadata__": {"format": "pt"}} | header).encode()
    data = b"".join(x.tobytes() for x in tensors.values())
    (folder / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + data)
    (folder / "config.json").write_text(json.dumps(CONFIG))


@pytest.fixture
def plain() -> dict[str, np.ndarray]:
    described, rng = read_config(CONFIG), np.random.default_rng(0)
    links = Binding(build(described.knobs), described.spelling.names).links
    return {name: rng.normal(size=link.shape).astype(np.float32) for name, link in links.items()}


def quantized(plain: dict[str, np.ndarray], rng: np.random.Generator) -> tuple[dict, dict]:
    """Projections in 8 bits with factors, and what these stand for."""
    stored, meant = dict(plain), dict(plain)
    for name, x in plain.items():
        if "_proj" in name:
            stored[name] = x.astype(jnp.float8_e4m3fn)
            rows, columns = (-(-n // 128) for n in x.shape)
            stored[f"{name}_scale_inv"] = scales = rng.uniform(0.1, 3, (rows, columns)).astype(np.float32)
            meant[name] = np.zeros_like(x)
            for i in range(x.shape[0]):
                for j in range(x.shape[1]):
                    meant[name][i, j] = np.float32(stored[name][i, j]) * scales[i // 128, j // 128]
    return stored, meant


def test_blocks_are_read(tmp_path, plain):
    stored, meant = quantized(plain, np.random.default_rng(1))
    assert stored["model.layers.0.mlp.up_proj.weight_scale_inv"].shape == (2, 1)
    write(tmp_path, stored)
    found = open_folder(tmp_path)
    again = Binding(found.model, read_config(CONFIG).spelling.names).to_tensors(found.params)
    assert again.keys() == meant.keys()
    for name, x in meant.items():
        np.testing.assert_array_equal(again[name], x)


def test_what_lacks_its_factors_is_refused(tmp_path, plain):
    stored, _ = quantized(plain, np.random.default_rng(1))
    name = "model.layers.0.mlp.up_proj.weight"
    write(tmp_path, {n: x for n, x in stored.items() if n != f"{name}_scale_inv"})
    with pytest.raises(UserError, match=f"tensor '{name}' is F8_E4M3, not F32"):
        open_folder(tmp_path)
    write(tmp_path, stored | {f"{name}_scale_inv": np.ones((3, 1), np.float32)})
    with pytest.raises(UserError, match=f"tensor '{name}_scale_inv' of model.safetensors is unknown"):
        open_folder(tmp_path)
