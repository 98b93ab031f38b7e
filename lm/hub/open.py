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
from lm.hub.binding import Binding
from lm.hub.config import Described, read_config, text_config
from lm.hub.folder import CONFIG, is_hf_folder
from lm.hub.gguf import GGUF
from lm.hub.tensors import (
    Comparison,
    Lazy,
    ProgressCallback,
    Stored,
    compare,
    quiet,
    read_json,
    read_tensors,
    renamed,
    stored_in,
)
from lm.hub.text import read_text
from lm.model.transformer import Model
from lm.text.format import TextFormat
from lm.zoo.registry import build

LENGTHS = ("max_position_embeddings", "n_positions", "max_seq_len")  # what model types call it


class FoundModel(NamedTuple):
    """A model that stands in a folder or a GGUF file, whose tensors are not yet read. knobs: `config.model`, from which
    `lm.zoo.registry.build` makes the model again; config: config.json, or the one that a GGUF file's metadata stand
    for; stored: its tensors, by the names of the table."""

    knobs: dict[str, Any]
    config: dict[str, Any]
    binding: Binding
    stored: dict[str, Stored]

    @property
    def model(self) -> Model:
        return self.binding.model

    @property
    def comparison(self) -> Comparison:
        return compare(self.stored, self.binding)


class Opened(NamedTuple):
    """A model with its parameters; knobs and config as in `FoundModel`."""

    model: Model
    params: Tree  # numpy float32
    knobs: dict[str, Any]
    config: dict[str, Any]


class ModelFiles:
    """A Hugging Face folder or a GGUF file, opened once for all that is asked of it. Use it in a `with` statement: it
    keeps files open.

    Raises `UserError` for what is neither, or cannot be read."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).expanduser()
        self._files = contextlib.ExitStack()
        if (self.path / "checkpoints").is_dir():
            remedy = f"`python -m lm.hub export {self.path} OUT` makes a folder of it"
            raise UserError(f"{self.path} is a training run: {remedy}")
        self._gguf = GGUF(self.path) if is_gguf(self.path) else None
        if self._gguf is None and not is_hf_folder(self.path):
            there = self.path.exists()
            what = "has no config.json" if self.path.is_dir() else "is no folder" if there else "does not exist"
            raise UserError(f"{self.path} {what}: give a Hugging Face folder or a .gguf file")

    def __enter__(self) -> "ModelFiles":
        return self

    def __exit__(self, *error: object) -> None:
        self._files.close()

    def text(self) -> TextFormat:
        """Tokenizer and chat template."""
        return self._gguf.text() if self._gguf else read_text(self.path)

    def find(self, architecture: str | None = None) -> FoundModel:
        """The model, as another class of its model type than config.json says if `architecture` is one.

        Raises `UserError`, one line that names the file, for a config.json or metadata that are not supported."""
        if self._gguf:
            config, stored = self._gguf.config(), self._gguf.tensors()
        else:
            config, stored = text_config(read_json(self.path / CONFIG)), stored_in(self.path, self._files)
        if architecture:
            config |= {"architectures": [architecture]}
        with _naming(self.path if self._gguf else self.path / CONFIG):
            described = read_config(config)
            binding = Binding(build(described.knobs), described.spelling.names)
        with _naming(self.path):
            stored = renamed(stored, binding, described.spelling.prefixes)
            knobs, binding = _unpooled(described.knobs, binding, described, stored)
            knobs, binding = _untied(knobs, binding, described, stored)
        return FoundModel(knobs, config, binding, stored)

    def read(self, found: FoundModel, progress: ProgressCallback = quiet) -> Opened:
        """Its parameters too. Raises `UserError`, one line that names file and tensor, for what is missing, damaged,
        unknown or of another shape."""
        with _naming(self.path):
            params = read_tensors(found.stored, found.binding, progress)
        return Opened(found.model, params, found.knobs, found.config)


def open_folder(folder: str | Path, architecture: str | None = None, progress: ProgressCallback = quiet) -> Opened:
    """The model of a Hugging Face folder, or of a GGUF file. `architecture` reads it as another class of its model type
    than config.json says.

    The file decides where config.json cannot know: a model whose two token tables are both there and differ is opened
    untied, one that pools the first token's state by a layer that is not there gives states alone. Tensors that no
    output depends on are left out and logged (`lm.hub.binding.Binding.belongs`).

    Raises `UserError`, one line that names file and tensor, for what is missing, damaged, unknown or of another shape,
    and for values of config.json that are not supported."""
    with ModelFiles(folder) as files:
        return files.read(files.find(architecture), progress)


def open_text(path: str | Path) -> TextFormat:
    """Tokenizer and chat template of a Hugging Face folder or a GGUF file."""
    return GGUF(path).text() if is_gguf(path) else read_text(path)


def context_of(model: Model, config: Mapping[str, Any]) -> int | None:
    """The most tokens that a model is made to read at a time: as its positions allow, or as its config.json says."""
    lengths = (config[name] for name in LENGTHS if isinstance(config.get(name), int) and config[name] > 0)
    return model.max_length or next(lengths, None)


def is_gguf(path: str | Path) -> bool:
    return Path(path).suffix.lower() == ".gguf"


Bound = tuple[dict[str, Any], Binding]  # knobs, and the binding of their model


def _unpooled(knobs: dict[str, Any], binding: Binding, described: Described, stored: Mapping[str, Stored]) -> Bound:
    """With the class's bare head where the file has nothing that its own head pools by."""
    if described.bare is None:
        return knobs, binding
    bare, unpooled = _rebuilt(knobs, binding, head=described.bare)
    pooler = binding.links.keys() - unpooled.links.keys()
    return (knobs, binding) if pooler & stored.keys() else (bare, unpooled)


def _untied(knobs: dict[str, Any], binding: Binding, described: Described, stored: Mapping[str, Stored]) -> Bound:
    """Untied where the file has two different tables, and tied where it has one and that is enough.

    Raises `UserError` where they are untied, but the file has a single table."""
    if knobs.get("tied"):
        wrong = {tensor.name for tensor, _ in compare(stored, binding).misshapen}  # which reading will tell of
        sound = Lazy({name: tensor for name, tensor in stored.items() if tensor.name not in wrong})
        return _rebuilt(knobs, binding, tied=False) if binding.differing(sound) else (knobs, binding)
    if knobs.get("tied") is False and (missing := binding.missing(stored)):
        tied = _rebuilt(knobs, binding, tied=True)
        if not tied[1].missing(stored):
            if described.one_table:
                return tied
            files = ", ".join(sorted({tensor.path.name for tensor in stored.values()})[:2])
            raise UserError(
                f"tensor {missing[0]!r} is missing from {files}, and the config does not tie it to the token table: "
                "get the whole file, or set tie_word_embeddings to true if it was trained so"
            )
    return knobs, binding


def _rebuilt(knobs: dict[str, Any], binding: Binding, **changes: Any) -> Bound:
    knobs = knobs | changes
    return knobs, Binding(build(knobs), binding.table)


@contextlib.contextmanager
def _naming(path: str | Path) -> Iterator[None]:
    try:
        yield
    except UserError as e:
        raise UserError(f"{path}: {e}") from e
