"""Hugging Face folders: parameters from config.json and safetensors files, and back. No pickle is ever read."""

import contextlib
import importlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lm.core.errors import UserError
from lm.core.param import Tree, flatten
from lm.hub.config import spelling
from lm.hub.names import Model, dropped_names, links_by_name, to_params, to_tensors
from lm.zoo.names import Table

CONFIG, WHOLE, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")
FLOATS = ("F32", "BF16", "F16")  # float32 holds each of them exactly


def is_hf_folder(folder: Path) -> bool:
    """Whether a folder says what its model is, as Hugging Face folders do. Its files may still be missing."""
    return (folder / CONFIG).is_file()


def read_folder(folder: str | Path, model: Model) -> Tree:
    """The parameters of `model` from `folder`: numpy float32, with the tree and shapes of `model.spec()`.

    Reads model.safetensors or, where there is none, the shards of model.safetensors.index.json, in float32, bfloat16
    or float16; one tensor at a time is held besides the result. config.json's model_type and class tell what the
    tensors are called; a base model's prefix (`transformer.`, `bert.`) may be missing or be there once more.

    Raises `UserError` where the package safetensors or a file is missing, a file is damaged, or a tensor is missing,
    unknown, of another shape than the model's or of no type above."""
    folder = Path(folder).expanduser()
    config = read_json(folder / CONFIG)
    try:
        names, prefix = spelling(config)
    except UserError as e:
        raise UserError(f"{folder / CONFIG}: {e}") from e
    with contextlib.ExitStack() as stack:
        stored = _stored(folder, stack)
        try:
            tensors = _Tensors(_renamed(stored, model, names, prefix))
            _check_vocabulary(tensors, model, names)
            return to_params(model, names, tensors)
        except UserError as e:
            raise UserError(f"{folder}: {e}") from e


def write_folder(folder: str | Path, model: Model, params: Tree, table: Table, dtype: Any = np.float32) -> None:
    """Write the parameters of `model` as `folder`/model.safetensors under the names of `table`, whole or not at all.
    config.json is the caller's to write.

    Raises `UserError` for parameters that are not the model's, where safetensors is missing or nothing can be
    written."""
    folder = Path(folder).expanduser()
    safetensors, save_file = _safetensors(folder), _safetensors(folder, ".numpy").save_file
    tensors = {name: np.asarray(t, dtype) for name, t in to_tensors(model, table, params).items()}
    unfinished = folder / f"{WHOLE}.new"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        save_file(tensors, unfinished, metadata={"format": "pt"})  # transformers refuses files that do not say so
        unfinished.replace(folder / WHOLE)
    except (OSError, safetensors.SafetensorError) as e:
        raise UserError(f"cannot write {folder / WHOLE} ({_reason(e)}): choose a folder with room to write to") from e


class _Stored(NamedTuple):
    """A tensor of an open file."""

    file: Any  # safetensors' handle
    name: str

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.file.get_slice(self.name).get_shape())

    def read(self) -> np.ndarray:
        if (dtype := self.file.get_slice(self.name).get_dtype()) not in FLOATS:
            raise UserError(f"tensor {self.name!r} is {dtype}, not {', '.join(FLOATS)}: convert it to one of these")
        return self.file.get_tensor(self.name).astype(np.float32)


class _Tensors(Mapping[str, np.ndarray]):
    """Tensors that are read when they are asked for: the whole of a large model is in memory once, as parameters."""

    def __init__(self, stored: Mapping[str, _Stored]) -> None:
        self.stored = stored

    def __getitem__(self, name: str) -> np.ndarray:
        return self.stored[name].read()

    def __contains__(self, name: object) -> bool:  # Mapping's own would read it
        return name in self.stored

    def __iter__(self) -> Iterator[str]:
        return iter(self.stored)

    def __len__(self) -> int:
        return len(self.stored)


def read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as e:
        raise UserError(f"cannot read {path} ({_reason(e)}): give a Hugging Face folder") from e
    except ValueError as e:  # neither JSON nor UTF-8
        raise UserError(f"{path} is not JSON ({_reason(e)}): download it again") from e
    if not isinstance(value, dict):
        raise UserError(f"{path} is not a JSON object but {type(value).__name__}: download it again")
    return value


def _safetensors(folder: Path, part: str = "") -> Any:
    try:
        return importlib.import_module(f"safetensors{part}")
    except ImportError as e:
        raise UserError(f"{folder} needs the package safetensors: pip install -e '.[hf]'") from e


def _stored(folder: Path, stack: contextlib.ExitStack) -> dict[str, _Stored]:
    """Every tensor of a folder by its name there, in files that `stack` closes."""
    if (folder / WHOLE).is_file():
        return _open(folder / WHOLE, stack)
    if not (folder / INDEX).is_file():
        pickles = sorted(path.name for pattern in PICKLES for path in folder.glob(pattern))
        if pickles:
            raise UserError(
                f"{folder} has {pickles[0]}, a pickle, which may run any code and is not read: convert it to "
                f"{WHOLE}, which save_pretrained of transformers writes"
            )
        raise UserError(f"{folder} has neither {WHOLE} nor {INDEX}: download the weights too")
    listed = read_json(folder / INDEX).get("weight_map")
    plain = isinstance(listed, dict) and all(isinstance(s, str) and s == Path(s).name for s in listed.values())
    if not listed or not plain:
        raise UserError(f"{folder / INDEX} has no weight_map from tensors to files beside it: download it again")
    found: dict[str, _Stored] = {}
    for shard in sorted(set(listed.values())):
        tensors = _open(folder / shard, stack)
        for name in tensors.keys() ^ {name for name, at in listed.items() if at == shard}:
            where = f"in {shard}, but not listed as such" if name in tensors else f"listed as in {shard}, but not there"
            raise UserError(f"{folder / INDEX}: tensor {name!r} is {where}: download index and shards again")
        found |= tensors
    return found


def _open(path: Path, stack: contextlib.ExitStack) -> dict[str, _Stored]:
    safetensors = _safetensors(path.parent)
    try:
        file = stack.enter_context(safetensors.safe_open(path, framework="np"))
    except OSError as e:
        raise UserError(f"cannot read {path} ({_reason(e)}): download it again") from e
    except safetensors.SafetensorError as e:
        raise UserError(f"{path} is truncated or damaged ({_reason(e)}): download it again") from e
    return {name: _Stored(file, name) for name in file.keys()}  # noqa: SIM118 (the handle is no mapping)


def _reason(e: Exception) -> str:
    return " ".join(str(getattr(e, "strerror", None) or e).split())[:120]


def _renamed(stored: Mapping[str, _Stored], model: Model, table: Table, prefix: str) -> dict[str, _Stored]:
    """The same tensors by the names of the table; those it does not know keep theirs."""
    known, dropped = links_by_name(model, table), dropped_names(table)
    renamed: dict[str, _Stored] = {}
    for name, tensor in stored.items():
        spellings = (name, prefix + name, name.removeprefix(prefix))
        wanted = next((s for s in spellings if s in known or dropped.fullmatch(s)), name)
        if wanted in renamed:
            raise UserError(f"{renamed[wanted].name!r} and {name!r} are both {wanted!r}: keep one of them")
        renamed[wanted] = tensor
    return renamed


def _check_vocabulary(tensors: _Tensors, model: Model, table: Table) -> None:
    """Raise `UserError` where only the vocabulary's size differs, as after padding: there are no values for the rest,
    and tokens past the file's would be garbage that nothing tells of."""
    spec = dict(flatten(model.spec()))
    for name, link in links_by_name(model, table).items():
        if name in tensors and "vocab" in spec[link.pieces[0].path].axes:
            there, here = tensors.stored[name].shape, link.shape
            differing = [pair for pair in zip(there, here, strict=False) if pair[0] != pair[1]]
            if len(there) == len(here) and len(differing) == 1 and differing[0][1] == model.vocab:
                raise UserError(
                    f"tensor {tensors.stored[name].name!r} has a vocabulary of {differing[0][0]}, the model one of "
                    f"{model.vocab}: set model.vocab={differing[0][0]}, without padding"
                )
