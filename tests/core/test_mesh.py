"""Meshes and the rules from logical axes to mesh axes."""

import jax
import numpy as np
import pytest
from jax.sharding import Mesh, PartitionSpec

from lm.core.ctx import Ctx, constrain
from lm.core.errors import UserError
from lm.core.mesh import Sharding, make_mesh
from lm.core.param import Param
from lm.core.rules import PRESETS, RULES, with_own

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


HIDDEN, WIDE, GAIN = ("batch", "seq", "mlp"), ("batch", "seq", "embed"), Param((16,), ("embed",))


@pytest.mark.parametrize(
    ("preset", "sizes", "wide", "hidden", "weight"),
    [
        # Between sub-layers tokens are cut, within them what the tensor axis cuts of the weights.
        ("sequence", {"data": 2, "tensor": 4}, ("data", "tensor", None), ("data", None, "tensor"), (None, "tensor")),
        (
            "sequence",
            {"context": 2, "tensor": 4},
            (None, ("context", "tensor"), None),
            (None, "context", "tensor"),
            (None, "tensor"),
        ),
        # SUMMA's: every matrix by rows and columns.
        (
            "2d",
            {"data": 2, "row": 2, "column": 2},
            (("data", "row"), None, "column"),
            (("data", "row"), None, "column"),
            ("row", "column"),
        ),
        # Weights once for each layer of depth, which has rows of its own.
        (
            "2.5d",
            {"depth": 2, "row": 2, "column": 2},
            (("depth", "row"), None, "column"),
            (("depth", "row"), None, "column"),
            ("row", "column"),
        ),
        # An eighth of every tensor for each of eight devices; `column` and `depth` change places.
        (
            "3d",
            {"depth": 2, "row": 2, "column": 2},
            (("row", "depth"), None, "column"),
            (("row", "column"), None, "depth"),
            (("column", "row"), "depth"),
        ),
    ],
)
def test_presets(preset, sizes, wide, hidden, weight):
    sharding = Sharding(make_mesh(sizes), PRESETS[preset])
    assert sharding.spec(WIDE) == PartitionSpec(*wide)
    assert sharding.spec(HIDDEN) == PartitionSpec(*hidden)
    assert sharding.param(Param((16, 64), ("embed", "mlp"))).spec == PartitionSpec(*weight)
    assert sharding.spec(("batch", "heads", "seq", None))[:2] == (hidden[0], hidden[2])


def test_the_preset_that_an_axis_needs_is_named():
    with pytest.raises(UserError, match=r"'row'; config.parallel.rules='2d' or '2.5d' or '3d' does$"):
        Sharding(make_mesh({"row": 8}))


def test_own_rules_take_the_place_of_a_presets():
    own = (("mlp", "column"), ("mlp", "tensor"), ("mine", None))
    rules = with_own(own, RULES)
    assert rules[0] == ("mine", None) and [r for r in rules if r[0] == "mlp"] == list(own[:2])
    assert [r for r in rules if r[0] not in ("mlp", "mine")] == [r for r in RULES if r[0] != "mlp"]
    assert rules.index(("kv_heads", "tensor")) < rules.index(("mlp", "column")) < rules.index(("embed", ("fsdp",)))


@pytest.mark.parametrize(("zero", "cut"), [(1, "state"), (2, "state gradients"), (3, "state gradients parameters")])
def test_what_fsdp_shares_out(zero, cut):
    sharding = Sharding(make_mesh({"fsdp": 4, "tensor": 2}), zero=zero)
    layouts = {"parameters": sharding, "gradients": sharding.of_gradients, "state": sharding.of_state}
    for name, layout in layouts.items():
        assert layout.tree(W).spec == PartitionSpec("fsdp" if name in cut else None, "tensor"), name
        assert layout.spec(WIDE) == PartitionSpec("fsdp", None, None), "rows are always shared out"


def test_simulated_slices_are_blocks():
    mesh = make_mesh({"data": 2, "slice": 2, "tensor": 2})
    assert [[d.id for d in block.flat] for block in np.moveaxis(mesh.devices, 1, 0)] == [[0, 1, 4, 5], [2, 3, 6, 7]]
    sharding = Sharding(make_mesh({"slice": 2, "fsdp": 4}))
    assert [d.id for d in sharding.mesh.devices[1]] == [4, 5, 6, 7]
    assert sharding.spec(WIDE) == PartitionSpec(("slice", "fsdp"), None, None)
    assert sharding.param(W).spec == PartitionSpec("fsdp", None), "a slice has all parameters"


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
    odd = jax.jit(lambda x: constrain(x, ctx, "batch", "mlp"))(x[:, :3])
    assert odd.sharding.spec == PartitionSpec("data"), "an axis that does not divide stays whole"
