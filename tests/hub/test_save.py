"""What is exported and opened again is the same to the bit, whatever the family, the shape and the files."""

import json
import tempfile
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lm.core.component import to_dict
from lm.core.errors import UserError
from lm.core.param import flatten
from lm.hub.open import open_folder
from lm.hub.save import config_of, save_folder
from lm.zoo.registry import build
from tests import toys
from tests.golden import FILES
from tests.golden.weights import tensors

save_file = pytest.importorskip("safetensors.numpy").save_file


def same(got: Any, want: Any) -> None:
    got, want = dict(flatten(got)), dict(flatten(want))
    assert got.keys() == want.keys()
    for path in want:
        np.testing.assert_array_equal(got[path], np.asarray(want[path]), err_msg=path, strict=True)


@pytest.mark.parametrize("name", FILES)
def test_what_transformers_wrote_goes_out_and_comes_back(tmp_path, name):
    """Each model type and class that we know: opened without further knowledge, exported, opened again."""
    meta = json.loads(str(np.load(FILES[name])["meta"]))
    (tmp_path / "config.json").write_text(json.dumps(meta["config"]))
    save_file(tensors(meta["shapes"]), tmp_path / "model.safetensors")
    opened = open_folder(tmp_path)
    save_folder(
        tmp_path / "out",
        opened.knobs,
        opened.params,
        model_type=opened.config["model_type"],
        architecture=opened.config["architectures"][0],
        shard=40_000,
    )
    again = open_folder(tmp_path / "out")
    same(again.params, opened.params)
    assert build(again.knobs).spec() == build(opened.knobs).spec()


SHAPES: dict[str, dict[str, Any]] = {
    "gpt2": {"context": 5},
    "llama": {"kv_heads": 1, "d_ff": 6},
    "gpt-neox": {"context": 5},
    "bloom": {},
    "qwen3": {"kv_heads": 1, "head_dim": 6, "d_ff": 6},
    "gemma3": {"kv_heads": 1, "head_dim": 6, "d_ff": 6},
    "opt": {"context": 5},
}
FOUND = [name for name in SHAPES if name in __import__("lm.zoo.registry", fromlist=["FAMILIES"]).FAMILIES]


@settings(deadline=None, max_examples=25)
@given(
    family=st.sampled_from(FOUND),
    layers=st.integers(1, 3),
    vocab=st.integers(2, 9),
    tied=st.booleans(),
    dtype=st.sampled_from(["float32", "bfloat16", "float16"]),
    shard=st.integers(1, 2000),
)
def test_any_shape(family, layers, vocab, tied, dtype, shard):
    knobs = {"family": family, "layers": layers, "d_model": 8, "heads": 2, "vocab": vocab, "tied": tied}
    knobs |= SHAPES[family]
    model = build(knobs)
    kind = {"float32": np.float32, "bfloat16": jnp.bfloat16, "float16": np.float16}[dtype]
    params = jax.tree.map(lambda x: np.asarray(x).astype(kind).astype(np.float32), toys.values(model.spec()))
    with tempfile.TemporaryDirectory() as folder:
        save_folder(folder, knobs, params, dtype=dtype, shard=shard)
        opened = open_folder(folder)
        assert json.loads((Path(folder) / "config.json").read_text())["torch_dtype"] == dtype
        files = list(Path(folder).glob("*.safetensors"))
        assert len(files) == 1 or all(len(set(map(str, files))) > 1 for _ in files)
    same(opened.params, params)
    assert opened.model.spec() == model.spec()


def knobs_of(**more: Any) -> dict[str, Any]:
    return {"family": "llama", "layers": 1, "d_model": 8, "heads": 2, "d_ff": 6, "vocab": 7, **more}


def saved(folder: Path, knobs: dict[str, Any], **options: Any) -> dict[str, Any]:
    return save_folder(folder, knobs, toys.values(build(knobs).spec()), **options)


def test_shards_are_no_larger_than_asked(tmp_path):
    saved(tmp_path, knobs_of(layers=3), shard=1500)
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    files = sorted(tmp_path.glob("*.safetensors"))
    assert {path.name for path in files} == set(index["weight_map"].values()) and len(files) > 2
    assert all(path.name.endswith(f"-of-{len(files):05}.safetensors") for path in files)
    loaded = [jax.tree.map(lambda x: x.nbytes, _load(path)) for path in files]
    assert all(sum(sizes.values()) <= 1500 or len(sizes) == 1 for sizes in loaded)
    assert sum(sum(sizes.values()) for sizes in loaded) == index["metadata"]["total_size"]
    assert not list(tmp_path.glob("*.new"))


def _load(path: Path) -> dict[str, np.ndarray]:
    from safetensors.numpy import load_file

    return load_file(path)


def test_new_files_take_the_place_of_old_ones(tmp_path):
    saved(tmp_path, knobs_of(), shard=500)
    saved(tmp_path, knobs_of(layers=2))
    assert not (tmp_path / "model.safetensors.index.json").exists()
    assert open_folder(tmp_path).knobs["layers"] == 2


def test_knobs_as_a_checkpoint_keeps_them(tmp_path):
    """Components as plain dicts, knobs that are not set as None; a family that is another with knobs set."""
    from lm.zoo.llama import SIZES

    scaling = to_dict(SIZES["3.1-8b"]["scaling"])
    config = saved(tmp_path, knobs_of(size=None, scaling=scaling, kv_heads=None))
    assert config["rope_scaling"]["rope_type"] == "llama3"
    assert to_dict(open_folder(tmp_path).knobs["scaling"]) == scaling
    config = config_of({**knobs_of(), "family": "deepseek"})
    assert config["model_type"] == "llama" and config["rms_norm_eps"] == 1e-6


def test_what_cannot_be_exported(tmp_path):
    with pytest.raises(UserError, match="dtype 'int8' is unknown"):
        saved(tmp_path, knobs_of(), dtype="int8")
    with pytest.raises(UserError, match="a 'llama' is no gpt2: choose another model_type"):
        saved(tmp_path, knobs_of(), model_type="gpt2")
    with pytest.raises(UserError, match="a tree of components has no name elsewhere"):
        config_of(to_dict(build(knobs_of())))
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"cannot write .*: choose a folder"):
        saved(tmp_path / "file", knobs_of())
