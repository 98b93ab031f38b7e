"""Meshes, and the rules that map logical axis names to mesh axes. Models know the logical names only.

A mesh is a list of named axes with sizes, outermost first. Neighbours along the last axis are neighbours on the
machine, so the axis that communicates most comes last. Rules say which logical axes each mesh axis cuts; an axis that
no rule uses is an error, since all its devices would compute the same."""

import dataclasses
import math
from collections.abc import Mapping, Sequence

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from lm.core.errors import UserError, nearest
from lm.core.param import Param, Tree, flatten

Rules = tuple[tuple[str, str | tuple[str, ...] | None], ...]

STAGE = "stage"  # the axis over which a pipeline spreads repeated layers
MESH_AXES = (
    STAGE,
    "data",
    "fsdp",
    "expert",
    "context",
    "tensor",
)  # as they are laid out

# Logical axis -> mesh axes. Within one tensor each mesh axis is used once, by the first logical axis that names it:
# activations [batch, seq, embed] use fsdp for batch, weights [embed, mlp] for embed.
RULES: Rules = (
    ("batch", ("data", "fsdp", "expert")),
    ("group", ("data", "fsdp")),
    ("expert", "expert"),
    ("vocab", "tensor"),
    ("heads", "tensor"),
    ("kv_heads", "tensor"),
    ("mlp", "tensor"),
    ("embed", "fsdp"),
    ("seq", "context"),
    ("layers", STAGE),
    ("position", None),
)


def with_own(own: Rules, preset: Rules = RULES) -> Rules:
    """A preset's rules, with those in `own` replacing the ones for the same logical axes."""
    mine = dict(own)
    return (*mine.items(), *(rule for rule in preset if rule[0] not in mine))


# "sequence": activations between the sub-layers are cut along the sequence where the tensor axis has nothing else to
# cut (sequence parallelism, Korthikanti et al. 2022, arXiv 2205.05198).
PRESETS: dict[str, Rules] = {
    "default": RULES,
    "sequence": with_own((("seq", ("context", "tensor")),)),
}


def axes_of(rules: Rules, name: str) -> tuple[str, ...]:
    """The mesh axes that may cut a logical axis. Raises `UserError` if no rule covers it."""
    table = dict(rules)
    if name not in table:
        raise UserError(f"no sharding rule covers the logical axis {name!r}{nearest(name, table)}")
    over = table[name]
    return (over,) if isinstance(over, str) else over or ()


def make_mesh(axes: Mapping[str, int], devices: Sequence[jax.Device] | None = None) -> Mesh:
    """A mesh with these axes and sizes, outermost first; one size may be -1 (whatever remains).

    Raises `UserError` when the sizes do not multiply to the number of devices."""
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
    return Mesh(np.asarray(devices).reshape(sizes), tuple(axes), axis_types=(AxisType.Auto,) * len(axes))


@dataclasses.dataclass(frozen=True)
class Sharding:
    """A mesh with its rules. Travels in ctx, not in a global: under jit a changed global is silently ignored.

    Raises `UserError` for a mesh axis that no rule uses."""

    mesh: Mesh
    rules: Rules = RULES

    def __post_init__(self) -> None:
        used = {axis for name, _ in self.rules for axis in axes_of(self.rules, name)}
        for axis in self.mesh.shape:
            if axis not in used:
                raise UserError(f"no sharding rule uses the mesh axis {axis!r}{nearest(axis, used)}")

    def ways(self, name: str) -> int:
        """Into how many parts this logical axis is cut."""
        return math.prod(self.mesh.shape.get(axis, 1) for axis in axes_of(self.rules, name))

    def spec(self, axes: Sequence[str | None]) -> PartitionSpec:
        """PartitionSpec of a tensor with these logical axes. A name that no rule covers is an error."""
        parts: list = []
        used: set[str] = set()
        for name in axes:
            wanted = () if name is None else axes_of(self.rules, name)
            free = tuple(axis for axis in wanted if axis not in used and self.mesh.shape.get(axis, 1) > 1)
            used.update(free)
            parts.append(free[0] if len(free) == 1 else free or None)
        return PartitionSpec(*parts)

    def named(self, axes: Sequence[str | None]) -> NamedSharding:
        return NamedSharding(self.mesh, self.spec(axes))

    def param(self, p: Param) -> NamedSharding:
        """Of a parameter. An axis of size 1 is not cut: layers that are not repeated lie on every stage."""
        return self.named([name if size > 1 else None for size, name in zip(p.shape, p.axes, strict=True)])

    def tree(self, spec: Tree) -> Tree:
        """NamedShardings for a spec tree, after checking that every sharded axis divides."""
        for path, p in flatten(spec):
            for size, name, over in zip(p.shape, p.axes, self.param(p).spec, strict=True):
                parts = math.prod(self.mesh.shape[a] for a in ([over] if isinstance(over, str) else over or ()))
                if size % parts:
                    raise UserError(
                        f"axis {name!r} of {path} has size {size}, which mesh axis {over!r} of size {parts} does not "
                        "divide: change the mesh, pad that size, or map the axis to None in the rules"
                    )
        return jax.tree.map(self.param, spec)
