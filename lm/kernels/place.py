"""Where a program will run: what kernels ask before they say whether they can do something."""

import dataclasses

import jax

from lm.core.ctx import Ctx
from lm.core.mesh import Sharding


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a program will run, as far as a kernel needs to know.

    platform: "cpu", "gpu", "tpu";
    partitioned: whether XLA may cut arrays over devices, which it cannot do inside a Pallas kernel;
    sharding: the mesh and rules by which it cuts them; None: one device, or the inside of a `jax.shard_map` whose code
        knows nothing of the mesh."""

    platform: str
    partitioned: bool = False
    sharding: Sharding | None = None

    def cut(self, name: str) -> bool:
        """Whether this logical axis is cut into several parts."""
        return self.sharding is not None and self.sharding.ways(name) > 1


def place_of(ctx: Ctx) -> Place:
    """Where what is being traced will run: on the mesh of ctx or of the `jax.shard_map` around, else on JAX's default
    device."""
    mesh = jax.sharding.get_abstract_mesh() if ctx.sharding is None else ctx.sharding.mesh.abstract_mesh
    device = getattr(mesh, "abstract_device", None)
    free = [axis for axis in mesh.axis_names if axis not in mesh.manual_axes and mesh.shape[axis] > 1]
    return Place(device.platform if device else jax.default_backend(), bool(free), ctx.sharding)
