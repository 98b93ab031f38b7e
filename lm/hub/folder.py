"""Hugging Face folders: parameters from config.json and safetensors files, and back. No pickle is ever read."""

import contextlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from lm.core.errors import UserError
from lm.core.optional import package
from lm.core.param import Tree
from lm.hub.binding import Binding
from lm.hub.config import spelling, text_config
from lm.hub.tensors import INDEX, WHOLE, ProgressCallback, quiet, read_json, read_tensors, reason, renamed, stored_in
from lm.model.transformer import Model

CONFIG = "config.json"
SHARD = 5 * 10**9  # bytes


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
    config = text_config(read_json(folder / CONFIG))
    try:
        known = spelling(config)
    except UserError as e:
        raise UserError(f"{folder / CONFIG}: {e}") from e
    with contextlib.ExitStack() as stack:
        stored = stored_in(folder, stack)
        try:
            binding = Binding(model, known.names)
            return read_tensors(renamed(stored, binding, known.prefixes), binding)
        except UserError as e:
            raise UserError(f"{folder}: {e}") from e


def write_folder(
    folder: str | Path,
    binding: Binding,
    params: Tree,
    dtype: Any = np.float32,
    shard: int = SHARD,
    progress: ProgressCallback = quiet,
) -> None:
    """Write the parameters of the binding's model under their names: as `folder`/model.safetensors or, above `shard`
    bytes, as several files with model.safetensors.index.json; old files give way when all new ones are whole.
    config.json is the caller's to write. No more than a shard is held besides `params`.

    Raises `UserError` for parameters that are not the model's, where safetensors is missing or nothing can be
    written."""
    folder = Path(folder).expanduser()
    safetensors = package("safetensors", folder)
    save_file = package("safetensors.numpy", folder).save_file
    dtype = np.dtype(dtype)
    held: dict[str, np.ndarray] = {}
    shards: list[list[str]] = []
    total = size = 0

    def unfinished(i: int) -> Path:
        return folder / f"{WHOLE}.{i}.new"

    def flush() -> None:
        folder.mkdir(parents=True, exist_ok=True)
        save_file(held, unfinished(len(shards)), metadata={"format": "pt"})  # transformers refuses files without it
        unfinished(len(shards)).chmod(folder.stat().st_mode & 0o666)  # it keeps files to their owner
        shards.append(list(held))
        progress(f"{total / 1e6:,.0f} MB in {len(shards)} file(s)")
        held.clear()

    try:
        for name, tensor in binding.each_tensor(params):
            if held and size + tensor.size * dtype.itemsize > shard:
                flush()
                size = 0
            held[name] = tensor.astype(dtype)
            size += held[name].nbytes
            total += held[name].nbytes
        flush()
        names = [WHOLE] if len(shards) == 1 else [_shard_name(i, len(shards)) for i in range(len(shards))]
        for i, name in enumerate(names):
            unfinished(i).replace(folder / name)
        if len(shards) > 1:
            where = {tensor: name for name, tensors in zip(names, shards, strict=True) for tensor in tensors}
            index = {"metadata": {"total_size": total}, "weight_map": where}
            (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n")
        # Last, so that the folder is never without weights: what is whole is read before what is in shards.
        (folder / (INDEX if len(shards) == 1 else WHOLE)).unlink(missing_ok=True)
    except (OSError, safetensors.SafetensorError) as e:
        raise UserError(f"cannot write {folder / WHOLE} ({reason(e)}): choose a folder with room to write to") from e
    finally:  # what a failure left
        for path in folder.glob(f"{WHOLE}.*.new"):
            path.unlink()


def _shard_name(i: int, of: int) -> str:
    return f"model-{i + 1:05}-of-{of:05}.safetensors"
