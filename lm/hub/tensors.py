"""Tensors in safetensors files, one or in shards: opened, named as a table names them, and read one at a time."""

import contextlib
import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from lm.core.errors import UserError
from lm.core.optional import package
from lm.core.param import Tree
from lm.hub import fp8, mxfp4
from lm.hub.binding import Binding, Link

WHOLE, INDEX = "model.safetensors", "model.safetensors.index.json"
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")
log = logging.getLogger(__name__)
FLOATS = ("F32", "BF16", "F16")  # float32 holds each of them exactly


class Stored(Protocol):
    """A tensor of a file, not yet read."""

    @property
    def name(self) -> str: ...
    @property
    def path(self) -> Path: ...
    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> str: ...
    def read(self) -> np.ndarray: ...


class InSafetensors(NamedTuple):
    """A tensor of an open safetensors file."""

    file: Any  # safetensors' handle
    name: str
    path: Path

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.file.get_slice(self.name).get_shape())

    @property
    def dtype(self) -> str:
        return self.file.get_slice(self.name).get_dtype()

    def raw(self) -> np.ndarray:
        """As it is stored."""
        return self.file.get_tensor(self.name)

    def read(self) -> np.ndarray:
        """As float32."""
        if self.dtype not in FLOATS:
            raise UserError(
                f"tensor {self.name!r} is {self.dtype}, not {', '.join(FLOATS)}: convert it to one of these"
            )
        return self.raw().astype(np.float32)


ProgressCallback = Callable[[str], None]  # called with a line now and then


def quiet(line: str) -> None:
    """The callback that ignores progress."""


class Lazy(Mapping[str, np.ndarray]):
    """Tensors that are read when they are asked for: the whole of a large model is in memory once, as parameters."""

    def __init__(self, stored: Mapping[str, Stored], progress: ProgressCallback = quiet) -> None:
        self.stored, self.progress, self.read = stored, progress, 0

    def __getitem__(self, name: str) -> np.ndarray:
        self.read += 1
        self.progress(f"{self.read} of {len(self.stored)} tensors")
        return self.stored[name].read()

    def __contains__(self, name: object) -> bool:  # Mapping's own would read it
        return name in self.stored

    def __iter__(self) -> Iterator[str]:
        return iter(self.stored)

    def __len__(self) -> int:
        return len(self.stored)


class Comparison(NamedTuple):
    """How the tensors of a folder suit a model: those that are missing, that the model should have had but does not
    (`Binding.belongs`), that are of another shape, that no output depends on, and that of these which no model type is
    known to leave in its files."""

    missing: list[str]
    unknown: list[Stored]
    misshapen: list[tuple[Stored, Link]]
    unused: list[Stored]
    unexpected: list[Stored]


def compare(stored: Mapping[str, Stored], binding: Binding) -> Comparison:
    """`stored` by the names of the table, see `renamed`."""
    known = binding.links
    extra = {name: tensor for name, tensor in stored.items() if name not in known}
    unused = {name: tensor for name, tensor in extra.items() if not binding.belongs(name)}
    return Comparison(
        binding.missing(stored),
        [tensor for name, tensor in extra.items() if name not in unused],
        [(stored[name], link) for name, link in known.items() if name in stored and stored[name].shape != link.shape],
        list(unused.values()),
        [tensor for name, tensor in unused.items() if not binding.dead(name)],
    )


def read_tensors(stored: Mapping[str, Stored], binding: Binding, progress: ProgressCallback = quiet) -> Tree:
    """The parameters of the binding's model from tensors by the names of the table: numpy float32. What is left over is
    logged.

    Raises `UserError` naming tensor and file where one is missing, of another shape, no floats, or one that the model
    should have had (`Binding.belongs`)."""
    missing, unknown, misshapen, _, unexpected = compare(stored, binding)
    _check_vocabulary(misshapen, binding)
    for tensor, link in misshapen:
        raise UserError(
            f"tensor {tensor.name!r} is {list(tensor.shape)} in {tensor.path.name}, the model's {list(link.shape)}: "
            "build the model with the shape of the checkpoint"
        )
    for tensor in unknown:
        raise UserError(
            f"tensor {tensor.name!r} of {tensor.path.name} is unknown to this model, whose tensors are called "
            f"{min(binding.links)!r} and so on: check family and size"
        )
    if missing:
        files = ", ".join(sorted({tensor.path.name for tensor in stored.values()})[:2])
        other = f", which has {unexpected[0].name!r} that this model lacks" if unexpected else ""
        raise UserError(
            f"tensor {missing[0]!r} is missing from {files}{other}: check that the file is whole, and family, size "
            "and ties"
        )
    if unexpected:
        log.warning(left_out(unexpected))
    return binding.to_params(Lazy({name: t for name, t in stored.items() if name in binding.links}, progress))


def left_out(tensors: list[Stored]) -> str:
    """One line about tensors that are not read."""
    names = ", ".join(tensor.name for tensor in tensors[:3])
    more = f" and {len(tensors) - 3} more" if len(tensors) > 3 else ""
    return f"{tensors[0].path.parent}: not part of this model and not read: {names}{more}"


def _check_vocabulary(misshapen: list[tuple[Stored, Link]], binding: Binding) -> None:
    """Raise `UserError` where only the vocabulary's size differs, as after padding: there are no values for the rest,
    and tokens past the file's would be garbage that nothing tells of."""
    vocab = binding.model.vocab
    for tensor, link in misshapen:
        if "vocab" in binding.spec[link.pieces[0].path].axes and len(tensor.shape) == len(link.shape):
            differing = [pair for pair in zip(tensor.shape, link.shape, strict=True) if pair[0] != pair[1]]
            if len(differing) == 1 and differing[0][1] == vocab:
                raise UserError(
                    f"tensor {tensor.name!r} has a vocabulary of {differing[0][0]} in {tensor.path.name}, the model "
                    f"one of {vocab}: set model.vocab={differing[0][0]}, without padding"
                )


def renamed(stored: Mapping[str, Stored], binding: Binding, prefixes: Sequence[str]) -> dict[str, Stored]:
    """The same tensors by the names of the table, any of the `prefixes` missing, doubled or in another's place, norms
    as they were called before; those it does not know keep theirs."""
    prefixes = ("", *prefixes)
    found: dict[str, Stored] = {}
    for name, tensor in stored.items():
        bare = [n.removeprefix(p) for n in dict.fromkeys((name, _modern(name))) for p in prefixes]
        spellings = dict.fromkeys((name, *(p + n for n in bare for p in prefixes)))
        kinds = (binding.links.__contains__, binding.dead, binding.belongs)
        wanted = next((s for suits in kinds for s in spellings if suits(s)), name)
        if wanted in found:
            raise UserError(f"{found[wanted].name!r} and {name!r} are both {wanted!r}: keep one of them")
        found[wanted] = tensor
    return found


def _modern(name: str) -> str:
    """What is called `gamma` and `beta` of a norm in files that come from TensorFlow."""
    for old, new in ((".gamma", ".weight"), (".beta", ".bias")):
        name = name.removesuffix(old) + new if name.endswith(old) else name
    return name


def stored_in(folder: Path, stack: contextlib.ExitStack) -> dict[str, Stored]:
    """Every tensor of a folder by its name there, in files that `stack` closes. Two that hold blocks and scales are one
    (`lm.hub.mxfp4`, `lm.hub.fp8`).

    Raises `UserError` where the package safetensors or a file is missing, damaged, or not the index's."""
    if (folder / WHOLE).is_file():
        return _joined(_open(folder / WHOLE, stack))
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
    found: dict[str, Stored] = {}
    for shard in sorted(set(listed.values())):
        tensors = _open(folder / shard, stack)
        for name in tensors.keys() ^ {name for name, at in listed.items() if at == shard}:
            where = f"in {shard}, but not listed as such" if name in tensors else f"listed as in {shard}, but not there"
            raise UserError(f"{folder / INDEX}: tensor {name!r} is {where}: download index and shards again")
        found |= tensors
    return _joined(found)


def _joined(stored: dict[str, Stored]) -> dict[str, Stored]:
    return fp8.joined(mxfp4.joined(stored))


def _open(path: Path, stack: contextlib.ExitStack) -> dict[str, Stored]:
    safetensors = package("safetensors", path.parent)
    try:
        file = stack.enter_context(safetensors.safe_open(path, framework="np"))
    except OSError as e:
        raise UserError(f"cannot read {path} ({reason(e)}): download it again") from e
    except safetensors.SafetensorError as e:
        raise UserError(f"{path} is truncated or damaged ({reason(e)}): download it again") from e
    return {name: InSafetensors(file, name, path) for name in file.keys()}  # noqa: SIM118 (the handle is no mapping)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object; infinities may be spelled `Infinity` or {"__float__": "Infinity"}."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"), object_hook=_float)
    except OSError as e:
        raise UserError(f"cannot read {path} ({reason(e)}): give a Hugging Face folder") from e
    except ValueError as e:  # neither JSON nor UTF-8
        raise UserError(f"{path} is not JSON ({reason(e)}): download it again") from e
    if not isinstance(value, dict):
        raise UserError(f"{path} is not a JSON object but {type(value).__name__}: download it again")
    return value


def _float(value: dict[str, Any]) -> Any:
    return float(value["__float__"]) if value.keys() == {"__float__"} else value


def reason(e: Exception) -> str:
    """An exception in one short line."""
    return " ".join(str(getattr(e, "strerror", None) or e).split())[:120]
