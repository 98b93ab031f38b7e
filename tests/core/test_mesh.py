"""Meshes and the rules from logical axes to mesh axes."""

import jax
import numpy as np
import pytest
from jax.sharding import Mesh, PartitionSpec

from lm.core.ctx import Ctx, constrain
from lm.core.errors import UserError
from lm.core.mesh import RULES, Sharding, make_mesh
from lm.core.param import Param

W = Param((16, 6), ("embed", "mlp"))


def test_sizes_multiply_to_the_devices():
    mesh = make_mesh({"data": 2, "tensor": -1})
    assert list(mesh.shape.items()) == [("data", 2), ("tensor", 4)]
    assert make_mesh({}, jax.devices()[:1]).size == 1


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ({"data": 3}, "mesh data=3 does not divide over the 8 devices"),
        ({"data": 2, "fsdp": 2}, "mesh data=2, fsdp=2 does not divide over the 8 devices"),
        ({"data": 3, "tensor": -1}, "mesh data=3, tensor=-1 does not divide over the 8 devices"),
        ({"dta": 8}, "no sharding rule uses the mesh axis 'dta'; did you mean 'data'?"),
        ({"data": -1, "tensor": -1}, "at most one may be -1"),
        ({"data": 0, "tensor": 8}, "sizes must be positive"),
        ({"data": -2, "tensor": -4}, "sizes must be positive"),
    ],
)
def test_wrong_meshes_are_named(shape, message):
    with pytest.raises(UserError) as error:
        Sharding(make_mesh(shape))
    assert message in str(error.value)


def test_a_mesh_axis_serves_once_in_a_tensor():
    sharding = Sharding(make_mesh({"data": 2, "fsdp": 2, "tensor": 2}))
    assert sharding.spec(("batch", "seq", "embed")) == PartitionSpec(("data", "fsdp"), None, None)
    assert sharding.spec(("layers", "embed", "mlp")) == PartitionSpec(None, "fsdp", "tensor")
    assert sharding.spec(("vocab", "embed")) == PartitionSpec("tensor", "fsdp")
    assert sharding.spec((None, "heads")) == PartitionSpec(None, "tensor")
    assert Sharding(make_mesh({"data": -1})).spec(("embed", "mlp")) == PartitionSpec(None, None)


def test_axes_of_ones_own():
    mesh = Mesh(np.asarray(jax.devices()).reshape(2, 4), ("pipe", "data"))
    sharding = Sharding(mesh, (("layers", "pipe"), *(r for r in RULES if r[0] != "layers")))
    assert sharding.spec(("layers", "embed", "mlp")) == PartitionSpec("pipe", None, None)


def test_a_tree_of_shardings():
    sharding = Sharding(make_mesh({"fsdp": 4, "tensor": 2}))
    found = sharding.tree({"w": W})["w"]
    assert (found.spec, found.mesh) == (PartitionSpec("fsdp", "tensor"), sharding.mesh)
    with pytest.raises(
        UserError, match=r"axis 'embed' of a/w has size 6, which mesh axis 'fsdp' of size 4 does not divide"
    ):
        sharding.tree({"a": {"w": Param((6, 4), ("embed", "mlp"))}})
    with pytest.raises(UserError, match=r"no sharding rule covers the logical axis 'embd'; did you mean 'embed'"):
        sharding.tree({"w": Param((4,), ("embd",))})


def test_constrain_lays_out_and_changes_nothing():
    x = np.arange(32.0).reshape(8, 4)
    ctx = Ctx(sharding=Sharding(make_mesh({"data": 4, "tensor": 2})))
    y = jax.jit(lambda x: constrain(x, ctx, "batch", "mlp"))(x)
    assert y.sharding.spec == PartitionSpec("data", "tensor")
    assert (y == x).all()
    assert constrain(x, Ctx(), "batch", "mlp") is x
    with pytest.raises(UserError, match="no sharding rule covers"):
        constrain(x, ctx, "batch", "mpl")
