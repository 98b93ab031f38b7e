"""FLOPs of one instruction of a compiled program: two per multiply-add of matmuls and convolutions; nothing else is
counted.

TPUs compute every matmul as a convolution, of which batch axes may be spatial ones with dilation and padding. Holes
and padding are not counted: of each spatial axis the pairs of an output and a kernel position that meet an input."""

import functools
import math
import re

import numpy as np

from tpu.hlo import Computation, Instruction, Shape
from tpu.kernels import kernel_flops


def flops(x: Instruction, inside: Computation) -> int:
    """Of a dot, a convolution or a kernel; else 0."""
    if x.opcode == "dot":
        return _dot(x, inside)
    if x.opcode == "convolution":
        return _convolution(x, inside)
    return (kernel_flops(x, inside) or 0) if x.opcode == "custom-call" else 0


def _dot(x: Instruction, inside: Computation) -> int:
    lhs = inside.operands(x)[0].shapes[0]
    return 2 * x.shapes[0].size * math.prod(lhs.dims[i] for i in _numbers(x, "lhs_contracting_dims"))


def _convolution(x: Instruction, inside: Computation) -> int:
    lhs, rhs = (operand.shapes[0] for operand in inside.operands(x))
    out = x.shapes[0]
    found = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", x.attributes)
    assert found is not None  # every convolution has them
    lhs_labels, rhs_labels, out_labels = found.groups()
    of_axis = _windows(x)
    met = 1
    for axis in (label for label in out_labels if label.isdigit()):
        window = of_axis[int(axis)] if of_axis else (1, 0, 1, 1)
        met *= _meetings(_dim(lhs, lhs_labels, axis), _dim(rhs, rhs_labels, axis), _dim(out, out_labels, axis), *window)
    # Groups of features or of the batch are left out already: of the kernel's input features, of the output's batch.
    return 2 * met * _dim(out, out_labels, "b") * _dim(out, out_labels, "f") * _dim(rhs, rhs_labels, "i")


def _dim(shape: Shape, labels: str, label: str) -> int:
    return shape.dims[labels.index(label)]


def _windows(x: Instruction) -> list[tuple[int, int, int, int]]:
    """(stride, padding before, dilation of the input, dilation of the kernel) of each spatial axis."""
    found = re.search(r"window=\{([^}]*)\}", x.attributes)
    fields = dict(field.split("=") for field in found[1].split()) if found else {}
    axes = fields.get("size", "").split("x") if fields else []

    def of(name: str, default: str) -> list[int]:
        return [int(value.split("_")[0]) for value in fields.get(name, "x".join([default] * len(axes))).split("x")]

    if not axes:
        return []
    return list(zip(of("stride", "1"), of("pad", "0_0"), of("lhs_dilate", "1"), of("rhs_dilate", "1"), strict=True))


@functools.lru_cache(maxsize=4096)
def _meetings(size: int, kernel: int, out: int, stride: int, before: int, dilation: int, kernel_dilation: int) -> int:
    """How many (output position, kernel position) meet an element of the input: neither padding nor a hole."""
    at = np.arange(out) * stride - before
    last = (size - 1) * dilation
    total = 0
    for k in range(kernel):
        where = at + k * kernel_dilation
        total += int(np.count_nonzero((where >= 0) & (where <= last) & (where % dilation == 0)))
    return total


def _numbers(x: Instruction, name: str) -> list[int]:
    found = re.search(rf"\b{name}=\{{([\d,]*)\}}", x.attributes)
    return [int(n) for n in found[1].split(",") if n] if found else []
