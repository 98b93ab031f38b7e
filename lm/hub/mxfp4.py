"""Tensors of 4-bit floats in blocks of 32 that share a power of two: MXFP4 (OCP Microscaling Formats 1.0, 2023), in
which gpt-oss is published. A file has two tensors for one: `<name>_blocks` [..., out, in / 32, 16], two values in each
byte, the lower half first, and `<name>_scales` [..., out, in / 32], exponents from -127 on."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

BLOCKS, SCALES = "_blocks", "_scales"
VALUES = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6], np.float32)
VALUES = np.concatenate([VALUES, -VALUES])  # by sign, two bits of exponent and one of mantissa


class InBlocks(NamedTuple):
    """The tensor [..., in, out] of two."""

    blocks: Any  # `lm.hub.tensors.Stored`
    scales: Any

    @property
    def name(self) -> str:
        return self.blocks.name.removesuffix(BLOCKS)

    @property
    def path(self) -> Path:
        return self.blocks.path

    @property
    def shape(self) -> tuple[int, ...]:
        *lead, out, number, half = self.blocks.shape
        return (*lead, 2 * number * half, out)

    @property
    def dtype(self) -> str:
        return "MXFP4"

    def read(self) -> np.ndarray:
        blocks, scales = self.blocks.raw(), self.scales.raw()
        x = np.stack([VALUES[blocks & 15], VALUES[blocks >> 4]], axis=-1).reshape(*scales.shape, -1)
        x = np.ldexp(x, scales[..., None].astype(np.int32) - 127)
        return np.swapaxes(x.reshape(*scales.shape[:-1], -1), -1, -2)


def joined(stored: Mapping[str, Any]) -> dict[str, Any]:
    """The tensors of a file, with one in the place of each two that hold blocks and scales."""
    found = {}
    for name, tensor in stored.items():
        whole = name.removesuffix(BLOCKS).removesuffix(SCALES)
        blocks, scales = stored.get(whole + BLOCKS), stored.get(whole + SCALES)
        if blocks is None or scales is None or blocks.shape[:-1] != scales.shape:
            found[name] = tensor
        else:
            found[whole] = InBlocks(blocks, scales)
    return found
