"""Hugging Face folders: what is written is read again, to the bit, however the files spell it; mistakes are named."""

import json
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lm.core.errors import UserError
from lm.core.param import flatten
from lm.hub.binding import Binding
from lm.hub.folder import read_folder, write_folder
from lm.hub.model_types import MODEL_TYPES
from lm.zoo.gpt2 import gpt2
from lm.zoo.llama import llama
from tests import toys

save_file = pytest.importorskip("safetensors.numpy").save_file

SHAPE: dict[str, Any] = {"layers": 2, "d_model": 4, "heads": 2, "d_ff": 6, "vocab": 7}
MODELS = {"gpt2": gpt2(context=5, **SHAPE), "llama": llama(**SHAPE)}
MLP = {"gpt2": "transformer.h.1.mlp.c_fc.weight", "llama": "model.layers.1.mlp.up_proj.weight"}
families = pytest.mark.parametrize("family", MODELS)


def params_of(family: str) -> Any:
    return toys.values(MODELS[family].spec())


def tensors_of(family: str) -> dict[str, np.ndarray]:
    return Binding(MODELS[family], MODEL_TYPES[family].names).to_tensors(params_of(family))


def folder_with(folder: Path, family: str, tensors: dict[str, np.ndarray]) -> Path:
    """A folder with these tensors in one file."""
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"model_type": family}))
    save_file(tensors, folder / "model.safetensors")
    return folder


def sharded(folder: Path, family: str, listed: dict[str, str] | None = None) -> Path:
    """A folder with the tensors in two files and an index, where `listed` overrides it."""
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"model_type": family}))
    tensors, where = tensors_of(family), {}
    for i, part in enumerate((sorted(tensors)[::2], sorted(tensors)[1::2]), 1):
        shard = f"model-0000{i}-of-00002.safetensors"
        save_file({name: tensors[name] for name in part}, folder / shard)
        where |= dict.fromkeys(part, shard)
    index = {"metadata": {"total_size": 0}, "weight_map": where | (listed or {})}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def same(got: Any, want: Any) -> None:
    got, want = dict(flatten(got)), dict(flatten(want))
    assert got.keys() == want.keys()
    for path in want:
        np.testing.assert_array_equal(got[path], np.asarray(want[path]), err_msg=path, strict=True)


def refused(folder: Path, match: str, family: str = "gpt2", model: Any = None) -> None:
    with pytest.raises(UserError, match=match) as info:
        read_folder(folder, model or MODELS[family])
    assert "\n" not in str(info.value) and str(folder) in str(info.value)


@families
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
def test_what_is_written_is_read(tmp_path, family, dtype):
    """Halves come back as float32 of the same value."""
    params = params_of(family)
    write_folder(tmp_path, Binding(MODELS[family], MODEL_TYPES[family].names), params, dtype)
    assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]
    (tmp_path / "config.json").write_text(json.dumps({"model_type": family}))
    got = read_folder(str(tmp_path), MODELS[family])
    same(got, jax.tree.map(lambda x: np.asarray(x).astype(dtype).astype(np.float32), params))


@families
def test_shards(tmp_path, family):
    same(read_folder(sharded(tmp_path, family), MODELS[family]), params_of(family))


@families
@pytest.mark.parametrize("spelling", ["missing", "twice", "some"])
def test_prefixes(tmp_path, family, spelling):
    prefix = {"gpt2": "transformer.", "llama": "model."}[family]
    tensors = tensors_of(family)
    respelled = {
        "missing": {name.removeprefix(prefix): t for name, t in tensors.items()},
        "twice": {prefix + name: t for name, t in tensors.items()},
        "some": {name.removeprefix(prefix) if "1" in name else name: t for name, t in tensors.items()},
    }[spelling]
    assert respelled.keys() != tensors.keys()
    same(read_folder(folder_with(tmp_path, family, respelled), MODELS[family]), params_of(family))


@pytest.mark.parametrize(
    "family, names",
    [
        ("gpt2", ("transformer.h.0.attn.bias", "transformer.h.1.attn.masked_bias", "h.1.attn.bias")),
        ("llama", ("model.layers.1.self_attn.rotary_emb.inv_freq", "model.rotary_emb.inv_freq")),
    ],
)
@pytest.mark.parametrize("dtype", [np.float32, np.uint8])
def test_dead_buffers(tmp_path, family, names, dtype):
    dead = {name: np.ones((1, 1, 5, 5), dtype) for name in names}
    folder_with(tmp_path, family, tensors_of(family) | dead)
    same(read_folder(tmp_path, MODELS[family]), params_of(family))


def test_a_tied_head_may_be_written_out(tmp_path):
    tensors = tensors_of("gpt2")
    head = tensors["transformer.wte.weight"]
    folder_with(tmp_path, "gpt2", tensors | {"lm_head.weight": head})
    same(read_folder(tmp_path, MODELS["gpt2"]), params_of("gpt2"))
    folder_with(tmp_path, "gpt2", tensors | {"lm_head.weight": head + 1})
    refused(tmp_path, "'transformer.wte.weight' and 'lm_head.weight' differ.*: build it untied$")
    folder_with(tmp_path, "gpt2", tensors)
    refused(tmp_path, "'lm_head.weight' is missing.* and ties$", model=gpt2(context=5, tied=False, **SHAPE))


@families
def test_wrong_tensors_are_named(tmp_path, family):
    tensors, mlp = tensors_of(family), MLP[family]
    folder_with(tmp_path, family, {k: v for k, v in tensors.items() if k != mlp})
    refused(tmp_path, f"tensor '{mlp}' is missing from model.safetensors: check", family)
    further = mlp.replace("1", "2")
    folder_with(tmp_path, family, tensors | {further: tensors[mlp]})
    refused(tmp_path, f"tensor '{further}' of model.safetensors is unknown", family)
    folder_with(tmp_path, family, tensors | {mlp: tensors[mlp].T})
    shapes = r"\[\d, \d\] in model.safetensors, the model's \[\d, \d\]"
    refused(tmp_path, f"tensor '{mlp}' is {shapes}: build the model", family)
    folder_with(tmp_path, family, tensors | {mlp: tensors[mlp].astype(np.int8)})
    refused(tmp_path, f"tensor '{mlp}' is I8, not F32, BF16, F16: convert", family)
    folder_with(tmp_path, family, tensors | {mlp.split(".", 1)[1]: tensors[mlp]})
    refused(tmp_path, f"are both '{mlp}': keep one of them$", family)


@families
@pytest.mark.parametrize("vocab", [6, 8])
def test_another_vocabulary_is_told_in_both_sizes(tmp_path, family, vocab):
    folder_with(tmp_path, family, tensors_of(family))
    shape = SHAPE | {"vocab": vocab}
    model = gpt2(context=5, **shape) if family == "gpt2" else llama(**shape)
    match = f"has a vocabulary of 7 in model.safetensors, the model one of {vocab}: set model.vocab=7, without padding$"
    refused(tmp_path, match, model=model)


def test_a_folder_of_another_family(tmp_path):
    folder_with(tmp_path, "gpt2", tensors_of("gpt2"))
    refused(tmp_path, "'body/.*' has no name in this table", "llama")
    (tmp_path / "config.json").write_text('{"model_type": "gpt"}')
    refused(tmp_path, r"config.json: model_type='gpt' is not supported; did you mean 'gptj'\?$")
    (tmp_path / "config.json").write_text('{"vocab_size": 7}')
    refused(tmp_path, "config.json: model_type=None is not supported; known: .*gpt2.*llama")
    (tmp_path / "config.json").write_text("[]")
    refused(tmp_path, "config.json is not a JSON object but list")
    (tmp_path / "config.json").write_text('{"model_type":')
    refused(tmp_path, r"config.json is not JSON \(.*\): download it again$")
    (tmp_path / "config.json").unlink()
    refused(tmp_path, "cannot read .*config.json .*: give a Hugging Face folder$")


@pytest.mark.parametrize("size", [0, 6, 40, -1])
@pytest.mark.parametrize("layout", [lambda f: folder_with(f, "gpt2", tensors_of("gpt2")), lambda f: sharded(f, "gpt2")])
def test_cut_files_are_named(tmp_path, size, layout):
    file = sorted(layout(tmp_path).glob("*.safetensors"))[-1]
    file.write_bytes(file.read_bytes()[:size])
    refused(tmp_path, rf"{file.name} is truncated or damaged \(.+\): download it again$")


def test_missing_files_are_named(tmp_path):
    folder = sharded(tmp_path, "gpt2")
    (folder / "model-00002-of-00002.safetensors").unlink()
    refused(folder, r"cannot read .*model-00002-of-00002.safetensors \(No such file.*\): download it again$")
    for shard in folder.glob("model*"):
        shard.unlink()
    refused(folder, "has neither model.safetensors nor model.safetensors.index.json: download")
    (folder / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'exit 1'\ntR.")
    refused(folder, "has pytorch_model.bin, a pickle, .*not read: convert it to model.safetensors")


def test_an_index_that_is_not_that_of_its_shards(tmp_path):
    first = "model-00001-of-00002.safetensors"
    moved = sorted(tensors_of("gpt2"))[1]  # is in the second
    refused(sharded(tmp_path, "gpt2", {moved: first}), f"tensor '{moved}' is listed as in {first}, but not there: ")
    refused(sharded(tmp_path, "gpt2", {moved: "../elsewhere"}), "no weight_map from tensors to files beside it")
    index = sharded(tmp_path, "gpt2") / "model.safetensors.index.json"
    listed = json.loads(index.read_text())["weight_map"]
    del listed[moved]
    index.write_text(json.dumps({"weight_map": listed}))
    refused(tmp_path, f"tensor '{moved}' is in .*, but not listed as such: ")
    for broken in ({}, {"weight_map": {}}, {"weight_map": [first]}, {"weight_map": {moved: 3}}):
        index.write_text(json.dumps(broken))
        refused(tmp_path, "index.json has no weight_map")
    index.write_text("{")
    refused(tmp_path, "index.json is not JSON")


def test_without_the_package(tmp_path, monkeypatch):
    folder_with(tmp_path, "gpt2", tensors_of("gpt2"))
    monkeypatch.setitem(sys.modules, "safetensors", None)
    refused(tmp_path, r"needs the package safetensors: pip install -e '.\[hf\]'$")


def test_what_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"cannot write .*model.safetensors \(.+\): choose a folder"):
        write_folder(tmp_path / "file", Binding(MODELS["gpt2"], MODEL_TYPES["gpt2"].names), params_of("gpt2"))
    with pytest.raises(UserError, match="'head/w' is missing"):
        write_folder(
            tmp_path, Binding(MODELS["llama"], MODEL_TYPES["llama"].names), {"body": params_of("llama")["body"]}
        )
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
