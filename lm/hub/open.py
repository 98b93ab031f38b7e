"""A model from elsewhere, opened without knowing what it is: a Hugging Face folder or a GGUF file.

from lm.hub.open import open_folder

opened = open_folder("SmolLM2-135M")
scores = opened.model(opened.params, {"tokens": tokens})
"""

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from lm.core.errors import UserError
from lm.core.param import Tree
from lm.hub.config import Described, Spelling, read_config, text_config
from lm.hub.folder import CONFIG, is_hf_folder
from lm.hub.gguf import GGUF
from lm.hub.names import Model, differing_names, links_by_name, missing_names
from lm.hub.tensors import (
    Comparison,
    Lazy,
    Progress,
    Stored,
    compare,
    quiet,
    read_json,
    read_tensors,
    renamed,
    stored_in,
)
from lm.hub.text import read_text
from lm.text.format import TextFormat
from lm.zoo.registry import build

LENGTHS = ("max_position_embeddings", "n_positions", "max_seq_len")  # what model types call it


class Opened(NamedTuple):
    """knobs: `config.model`, from which `lm.zoo.registry.build` makes the model again; config: config.json, or the one
    that a GGUF file's metadata stand for."""

    model: Model
    params: Tree  # numpy float32
    knobs: dict[str, Any]
    config: dict[str, Any]


class Source(NamedTuple):
    """A model that is known, its tensors not yet read."""

    model: Model
    knobs: dict[str, Any]
    config: dict[str, Any]
    spelling: Spelling
    stored: dict[str, Stored]  # by the names of the table

    @property
    def comparison(self) -> Comparison:
        return compare(self.stored, self.model, self.spelling.names)


def open_folder(folder: str | Path, architecture: str | None = None, progress: Progress = quiet) -> Opened:
    """The model of a Hugging Face folder, or of a GGUF file. `architecture` reads it as another class of its model type
    than config.json says.

    The file decides where config.json cannot know: a model whose two token tables are both there and differ is opened
    untied, one that pools the first token's state by a layer that is not there gives states alone. Tensors that no
    output depends on are left out and logged (`lm.hub.names.belonging`).

    Raises `UserError`, one line that names file and tensor, for what is missing, damaged, unknown or of another shape,
    and for values of config.json that are not supported."""
    with contextlib.ExitStack() as stack:
        source = inspect(folder, stack, architecture)
        with _naming(folder):
            params = read_tensors(source.stored, source.model, source.spelling.names, progress)
    return Opened(source.model, params, source.knobs, source.config)


def open_text(path: str | Path) -> TextFormat:
    """Tokenizer and chat template of a Hugging Face folder or a GGUF file."""
    return GGUF(path).text() if is_gguf(path) else read_text(path)


def context_of(model: Model, config: Mapping[str, Any]) -> int | None:
    """The most tokens that a model is made to read at a time: as its positions allow, or as its config.json says."""
    told = (config[name] for name in LENGTHS if isinstance(config.get(name), int) and config[name] > 0)
    return model.longest or next(told, None)


def inspect(path: str | Path, stack: contextlib.ExitStack, architecture: str | None = None) -> Source:
    """What `open_folder` is about to read, from files that `stack` closes."""
    path = Path(path).expanduser()
    if (path / "checkpoints").is_dir():
        raise UserError(f"{path} is a training run: `python -m lm.hub export {path} OUT` makes a folder of it")
    if is_gguf(path):
        file = GGUF(path)
        config, stored = file.config(), file.tensors()
    elif is_hf_folder(path):
        config, stored = text_config(read_json(path / CONFIG)), stored_in(path, stack)
    else:
        what = "has no config.json" if path.is_dir() else "is no folder" if path.exists() else "does not exist"
        raise UserError(f"{path} {what}: give a Hugging Face folder or a .gguf file")
    if architecture:
        config |= {"architectures": [architecture]}
    with _naming(path if is_gguf(path) else path / CONFIG):
        described = read_config(config)
        model = build(described.knobs)
    with _naming(path):
        tensors = renamed(stored, model, described.spelling)
        knobs = _untied(_unpooled(described, tensors), described, tensors)
    return Source(build(knobs), knobs, config, described.spelling, tensors)


def is_gguf(path: str | Path) -> bool:
    return Path(path).suffix.lower() == ".gguf"


def _unpooled(described: Described, stored: Mapping[str, Stored]) -> dict[str, Any]:
    """The knobs, with the class's bare head where the file has nothing that its own head pools by."""
    knobs, names = described.knobs, described.spelling.names
    if described.bare is None:
        return knobs
    bare = knobs | {"head": described.bare}
    pooler = links_by_name(build(knobs), names).keys() - links_by_name(build(bare), names).keys()
    return knobs if pooler & stored.keys() else bare


def _untied(knobs: dict[str, Any], described: Described, stored: Mapping[str, Stored]) -> dict[str, Any]:
    """The knobs, untied where the file has two different tables, and tied where it has one and that is enough.

    Raises `UserError` where they are untied, but the file has a single table."""
    model, names = build(knobs), described.spelling.names
    wrong = {tensor.name for tensor, _ in compare(stored, model, names).misshapen}  # which reading will tell of
    sound = Lazy({name: tensor for name, tensor in stored.items() if tensor.name not in wrong})
    if knobs.get("tied") and differing_names(model, names, sound):
        return knobs | {"tied": False}
    if knobs.get("tied") is False and (missing := missing_names(model, names, stored)):
        tied = knobs | {"tied": True}
        if not missing_names(build(tied), names, stored):
            if described.one_table:
                return tied
            files = ", ".join(sorted({tensor.path.name for tensor in stored.values()})[:2])
            raise UserError(
                f"tensor {missing[0]!r} is missing from {files}, and the config does not tie it to the token table: "
                "get the whole file, or set tie_word_embeddings to true if it was trained so"
            )
    return knobs


@contextlib.contextmanager
def _naming(path: str | Path) -> Iterator[None]:
    try:
        yield
    except UserError as e:
        raise UserError(f"{path}: {e}") from e
