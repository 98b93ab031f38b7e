"""GGUF files as they lie on disk: one, or the parts that one was split into, with either order of bytes."""

import re
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lm.core.errors import UserError
from lm.core.optional import package
from lm.hub.gguf_tables import Values
from lm.hub.tensors import reason

MAGIC, VERSIONS = b"GGUF", (2, 3)
PART = re.compile(r"(.*)-(\d{5})-of-(\d{5})(\.gguf)", re.IGNORECASE)


class InGGUF(NamedTuple):
    """A tensor of a GGUF file, by its name in a Hugging Face folder."""

    tensor: Any  # the package's
    name: str
    path: Path
    turn: Values = lambda x: x  # undoes what the conversion did to it

    @property
    def shape(self) -> tuple[int, ...]:
        return self.turn(np.broadcast_to(np.float32(0), self.tensor.shape[::-1].tolist())).shape

    @property
    def dtype(self) -> str:
        return self.tensor.tensor_type.name

    def read(self) -> np.ndarray:
        return self.turn(self._values()).astype(np.float32)

    def _values(self) -> np.ndarray:
        data = self.tensor.data
        if data.dtype.kind == "f":
            return data.astype(np.float32)
        if data.dtype != np.uint8:
            raise UserError(f"tensor {self.tensor.name!r} is {self.dtype}, which are no weights: get another file")
        quants = package("gguf.quants", self.path, "gguf")
        try:
            return quants.dequantize(data, self.tensor.tensor_type)
        except NotImplementedError as e:
            raise UserError(
                f"tensor {self.tensor.name!r} is {self.dtype}, which the package gguf cannot dequantise: get a file of "
                "another type"
            ) from e


class GGUFContents(NamedTuple):
    """Metadata of a file, or of the first of its parts, and the tensors of all, by their names there."""

    metadata: dict[str, Any]
    tensors: dict[str, InGGUF]


def open_gguf(path: Path) -> GGUFContents:
    """Raises `UserError` where the package gguf or a part is missing, for a file that is no GGUF or damaged, and for
    parts that do not belong together."""
    found = _open(path)
    count = found.metadata.get("split.count", 1)
    if not isinstance(count, int) or count < 2:
        return found
    parts = [_open(part) for part in _parts(path, count)]
    tensors: dict[str, InGGUF] = {}
    for i, (part, (metadata, own)) in enumerate(zip(_parts(path, count), parts, strict=True)):
        if (metadata.get("split.no"), metadata.get("split.count")) != (i, count):
            raise UserError(f"{part} is not part {i + 1} of {count}, as its name says: download it again")
        if twice := sorted(own.keys() & tensors.keys()):
            raise UserError(f"{part} holds tensor {twice[0]!r} once more: its parts are of different files")
        tensors |= own
    said = parts[0].metadata.get("split.tensors.count", len(tensors))
    if said != len(tensors):
        raise UserError(f"{path}: its {count} parts hold {len(tensors)} tensors, not {said}: download them again")
    return GGUFContents(parts[0].metadata, tensors)


def _parts(path: Path, count: int) -> list[Path]:
    match = PART.fullmatch(path.name)
    if not match or int(match[3]) != count:
        raise UserError(
            f"{path} is one of {count} parts, but is not called NAME-00001-of-{count:05}.gguf: give all parts the "
            "names that they were downloaded with"
        )
    parts = [path.with_name(f"{match[1]}-{i + 1:05}-of-{count:05}{match[4]}") for i in range(count)]
    missing = [part.name for part in parts if not part.is_file()]
    if missing:
        raise UserError(f"{path} is one of {count} parts, and {', '.join(missing[:3])} is missing: download it too")
    return parts


def _open(path: Path) -> GGUFContents:
    gguf = package("gguf", path, "gguf")
    try:
        version = _version(path)
        if version not in (None, *VERSIONS):
            raise UserError(
                f"{path} is version {version} of GGUF, not {' or '.join(map(str, VERSIONS))}: get a newer file"
            )
        reader = gguf.GGUFReader(path)
        metadata = {name: field.contents() for name, field in reader.fields.items()}
    except OSError as e:
        raise UserError(f"cannot read {path} ({reason(e)}): give a .gguf file") from e
    except (ValueError, IndexError, KeyError, UnicodeDecodeError, OverflowError, MemoryError) as e:
        if "GGMLQuantizationType" in str(e):
            raise UserError(
                f"{path} holds tensors of a type that the package gguf does not know ({reason(e)}): update that "
                "(pip install -U gguf), or get a file of another type"
            ) from e
        raise UserError(f"{path} is no GGUF file, or truncated ({reason(e)}): download it again") from e
    tensors = {tensor.name: InGGUF(tensor, tensor.name, path) for tensor in reader.tensors}
    if reader.endianess.name.lower() != sys.byteorder:
        for tensor in tensors.values():
            if tensor.tensor.data.dtype == np.uint8:  # blocks of several numbers, whose bytes nobody has swapped
                raise UserError(
                    f"{path} is {reader.endianess.name.lower()}-endian, and tensor {tensor.name!r} {tensor.dtype}: "
                    "convert it with gguf-convert-endian of the package gguf"
                )
    return GGUFContents(metadata, tensors)


def _version(path: Path) -> int | None:
    """None: there is none."""
    with open(path, "rb") as file:
        head = file.read(8)
    if len(head) < 8 or head[:4] != MAGIC:
        return None
    little, big = (int.from_bytes(head[4:], order) for order in ("little", "big"))
    return big if little & 0xFFFF == 0 else little
