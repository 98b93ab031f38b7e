"""Tensors of 8-bit floats in blocks of 128 by 128 that share a factor, in which DeepSeek-V3 and R1 are published
(DeepSeek-AI 2024, arXiv 2412.19437, section 3.3). A file has two tensors for one: `<name>` [out, in] in F8_E4M3 and
`<name>_scale_inv` [out / 128, in / 128], rounded up, in float32."""

import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

SCALES, KIND, BLOCK = "_scale_inv", "F8_E4M3", 128


class ScaledBlocks(NamedTuple):
    """The tensor of two."""

    values: Any  # `lm.hub.tensors.Stored`
    scales: Any

    @property
    def name(self) -> str:
        return self.values.name

    @property
    def path(self) -> Path:
        return self.values.path

    @property
    def shape(self) -> tuple[int, ...]:
        return self.values.shape

    @property
    def dtype(self) -> str:
        return KIND

    def read(self) -> np.ndarray:
        """As float32."""
        rows, columns = self.shape
        values = _bytes(self.path, self.name).view(jnp.float8_e4m3fn).reshape(self.shape).astype(np.float32)
        scales = np.repeat(np.repeat(self.scales.read(), BLOCK, axis=0)[:rows], BLOCK, axis=1)[:, :columns]
        return values * scales


def joined(stored: Mapping[str, Any]) -> dict[str, Any]:
    """The tensors of a file, with one in the place of each two that hold values and the factors of their blocks."""
    found = dict(stored)
    for name, values in stored.items():
        scales = stored.get(name + SCALES)
        if scales is not None and values.dtype == KIND and scales.shape == tuple(-(-n // BLOCK) for n in values.shape):
            found[name] = ScaledBlocks(values, found.pop(name + SCALES))
    return found


def _bytes(path: Path, name: str) -> np.ndarray:
    """Those of a tensor of a safetensors file: NumPy has no such floats, and safetensors does not read them for it."""
    first, offsets = _offsets(path)
    start, end = offsets[name]
    return np.fromfile(path, np.uint8, end - start, offset=first + start)


@functools.lru_cache(maxsize=8)
def _offsets(path: Path) -> tuple[int, dict[str, tuple[int, int]]]:
    """Where in a safetensors file the data begin, and where in these each tensor is."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
    return 8 + length, {name: tuple(x["data_offsets"]) for name, x in header.items() if name != "__metadata__"}
