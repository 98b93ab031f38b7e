"""Meshes of devices, and what lies where on them by rules (`lm.core.rules`).

A mesh is a list of named axes with sizes, outermost first. Neighbours along the last axis are neighbours on the
machine, so the axis that communicates most comes last. An axis that no rule uses is an error, since all its devices
would compute the same."""

import dataclasses
import math
from collections.abc import Mapping, Sequence

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

from lm.core.errors import UserError, nearest
from lm.core.param import Param, Tree, flatten
from lm.core.rules import FSDP, PRESETS, RULES, SLICE, Rules, as_axes, axes_of

WHOLE = 32  # chips in three dimensions along which weights are gathered at once


def make_mesh(axes: Mapping[str, int], devices: Sequence[jax.Device] | None = None) -> Mesh:
    """A mesh with these axes and sizes, outermost first; one size may be -1 (whatever remains).

    Raises `UserError` when the sizes do not multiply to the number of devices, and when another axis than `slice` would
    lie across TPU slices."""
    devices = jax.devices() if devices is None else list(devices)
    sizes = [int(size) for size in axes.values()]
    wanted = ", ".join(f"{n}={s}" for n, s in zip(axes, sizes, strict=True) if s != 1) or "1"
    if any(s < 1 and s != -1 for s in sizes) or sizes.count(-1) > 1:
        raise UserError(f"mesh {wanted}: sizes must be positive, and at most one may be -1 (whatever remains)")
    fixed = math.prod(s for s in sizes if s != -1)
    if -1 in sizes and len(devices) % fixed == 0:
        sizes[sizes.index(-1)] = len(devices) // fixed
    if math.prod(sizes) != len(devices):
        raise UserError(
            f"mesh {wanted} does not divide over the {len(devices)} devices here: "
            "make the sizes multiply to that number, or give one axis -1"
        )
    placed = _placed(dict(zip(axes, sizes, strict=True)), devices)
    return Mesh(placed, tuple(axes), axis_types=(AxisType.Auto,) * len(axes))


def mesh_around(mesh: Mesh | AbstractMesh) -> Mesh | AbstractMesh:
    """The mesh as what is being traced sees it: within a stage of a pipeline, that stage's, with one axis taken."""
    around = jax.sharding.get_abstract_mesh()
    return around if around.manual_axes else mesh


def lay_out(x: jax.Array, layout: NamedSharding) -> jax.Array:
    """Ask for a layout, within a stage of a pipeline too."""
    return jax.lax.with_sharding_constraint(x, NamedSharding(mesh_around(layout.mesh), layout.spec))


@dataclasses.dataclass(frozen=True)
class Halves:
    """A mesh with two axes, far and near, in place of one of it, for what goes along that in two steps. Device i along
    the axis is (i // size of near, i % size of near)."""

    axis: str
    mesh: Mesh

    @property
    def far(self) -> str:
        return f"{self.axis}.far"

    @property
    def groups(self) -> tuple[list[list[int]], list[list[int]]]:
        """Places along the axis: of those that are near each other, and of those that are far."""
        far, near = (self.mesh.shape[f"{self.axis}.{half}"] for half in ("far", "near"))
        numbers = np.arange(far * near).reshape(far, near)
        return numbers.tolist(), numbers.T.tolist()

    def halfway(self, cut: PartitionSpec, whole: PartitionSpec) -> NamedSharding:
        """Between `cut`, which is cut along the axis, and `whole`, which is not: along its far half."""
        pairs = zip(map(as_axes, cut), map(as_axes, whole), strict=True)
        parts = ((*after, self.far) if self.axis in before else after for before, after in pairs)
        return NamedSharding(self.mesh, PartitionSpec(*(part or None for part in parts)))


def halves_of(mesh: Mesh, axis: str) -> Halves | None:
    """Of an axis along which the compiler for TPUs knows no all-gather and no reduce-scatter, else None: more than
    `WHOLE` chips along it lie in three dimensions of the torus (seen with libtpu 0.0.42.1, v5p:4x4x4). There it adds up
    arrays padded with zeros, and sends twice as much. Along a plane or a ring it gathers as it should."""
    along = np.moveaxis(mesh.devices, mesh.axis_names.index(axis), 0).reshape(mesh.shape[axis], -1)[:, 0]
    places = {tuple(getattr(device, "coords", ())) for device in along}
    dimensions = sum(len(set(at)) > 1 for at in zip(*places, strict=True))
    return halved(mesh, axis) if len(along) > WHOLE and dimensions == 3 else None


def halved(mesh: Mesh, axis: str) -> Halves:
    """The near half is a ring of a cube, the far one a plane, which has more links for what is sent most."""
    place, size = mesh.axis_names.index(axis), mesh.shape[axis]
    near = next(n for n in range(1, size + 1) if size % n == 0 and n**3 >= size)
    sizes = (*mesh.devices.shape[:place], size // near, near, *mesh.devices.shape[place + 1 :])
    names = (*mesh.axis_names[:place], f"{axis}.far", f"{axis}.near", *mesh.axis_names[place + 1 :])
    return Halves(axis, Mesh(mesh.devices.reshape(sizes), names, axis_types=(AxisType.Auto,) * len(names)))


def _placed(axes: dict[str, int], devices: Sequence[jax.Device]) -> np.ndarray:
    """The devices as an array of these sizes. On TPUs `mesh_utils` lays axes along rings and planes of the chips'
    torus, inner axes along whole rings where it can, and tells slices apart. Elsewhere devices keep their order, in
    which those of a process, and the simulated devices of a `slice`, are neighbours."""
    slices = len({getattr(d, "slice_index", 0) for d in devices})
    if devices[0].platform != "tpu":
        return np.asarray(devices).reshape(tuple(axes.values()))
    if axes.get(SLICE, 1) != slices:
        raise UserError(
            f"mesh slice={axes.get(SLICE, 1)}, but these {len(devices)} devices lie in {slices} TPU slice(s), and no "
            f"other axis may lie across them: set config.mesh.slice={slices}"
        )
    inside = tuple(1 if axis == SLICE else size for axis, size in axes.items())
    across = tuple(size if axis == SLICE else 1 for axis, size in axes.items())
    if slices > 1:
        return mesh_utils.create_hybrid_device_mesh(inside, across, devices, allow_split_physical_axes=True)
    return mesh_utils.create_device_mesh(inside, devices, allow_split_physical_axes=True)


@dataclasses.dataclass(frozen=True)
class Sharding:
    """A mesh with its rules. Travels in ctx, not in a global: under jit a changed global is silently ignored.

    zero: what the axis `fsdp` shares out, beside rows of the batch, in place of keeping copies: the optimizer's state
    (1), gradients too (2), parameters too (3), as in ZeRO (Rajbhandari et al. 2020, arXiv 1910.02054).

    Raises `UserError` for a mesh axis of several devices that no rule uses."""

    mesh: Mesh
    rules: Rules = RULES
    zero: int = 3

    def __post_init__(self) -> None:
        used = {axis for name, _ in self.rules for axis in axes_of(self.rules, name)}
        for axis, size in self.mesh.shape.items():
            if size > 1 and axis not in used:
                fit = [repr(name) for name, rules in PRESETS.items() if any(axis in as_axes(over) for _, over in rules)]
                hint = f"; config.parallel.rules={' or '.join(fit)} does" if fit else nearest(axis, used)
                raise UserError(f"no sharding rule uses the mesh axis {axis!r}{hint}")

    def over(self, name: str) -> tuple[str, ...]:
        """The axes of this mesh that cut a logical axis into more than one part."""
        return tuple(axis for axis in axes_of(self.rules, name) if self.mesh.shape.get(axis, 1) > 1)

    def ways(self, name: str) -> int:
        """Into how many parts this logical axis is cut."""
        return self._parts(self.over(name))

    def _parts(self, axes: Sequence[str]) -> int:
        return math.prod(self.mesh.shape[axis] for axis in axes)

    def spec(self, axes: Sequence[str | None], whole: Sequence[str] = ()) -> PartitionSpec:
        """PartitionSpec of a tensor with these logical axes, along the mesh axes `whole` a copy each. A name that no
        rule covers is an error."""
        for name in axes:
            axes_of(self.rules, name) if name is not None else ()
        parts: list[list[str]] = [[] for _ in axes]
        used = set(whole)
        for name, over in self.rules:
            for i in (i for i, wanting in enumerate(axes) if wanting == name):
                free = [axis for axis in as_axes(over) if axis not in used and self.mesh.shape.get(axis, 1) > 1]
                used.update(free)
                parts[i] += free
        return PartitionSpec(*(part[0] if len(part) == 1 else tuple(part) or None for part in parts))

    def named(self, axes: Sequence[str | None]) -> NamedSharding:
        return NamedSharding(self.mesh, self.spec(axes))

    def fitting(self, shape: Sequence[int], axes: Sequence[str | None]) -> NamedSharding:
        """Of an activation of that shape: as `named`, but an axis that does not divide is not cut."""
        parts = zip(shape, self.spec(axes), strict=True)
        return NamedSharding(self.mesh, PartitionSpec(*(None if n % self._parts(as_axes(a)) else a for n, a in parts)))

    def param(self, p: Param) -> NamedSharding:
        """Of a parameter. An axis of size 1 is not cut: layers that are not repeated lie on every stage."""
        names = [name if size > 1 else None for size, name in zip(p.shape, p.axes, strict=True)]
        return NamedSharding(self.mesh, self.spec(names, () if self.zero == 3 else (FSDP,)))

    def tree(self, spec: Tree) -> Tree:
        """NamedShardings for a spec tree of parameters, after checking that every sharded axis divides."""
        for path, p in flatten(spec):
            for size, name, over in zip(p.shape, p.axes, self.param(p).spec, strict=True):
                if size % (parts := self._parts(as_axes(over))):
                    raise UserError(
                        f"axis {name!r} of {path} has size {size}, which mesh axis {over!r} of size {parts} does not "
                        "divide: change the mesh, pad that size, or map the axis to None in the rules"
                    )
        return jax.tree.map(self.param, spec)

    @property
    def of_gradients(self) -> "Sharding":
        """Where gradients of parameters, and their sums, lie."""
        return dataclasses.replace(self, zero=1 if self.zero == 1 else 3)

    @property
    def of_state(self) -> "Sharding":
        """Where the optimizer's state lies, and averages of parameters."""
        return dataclasses.replace(self, zero=3)
