"""Transforms suit every family: each weight is read through what a leaf answers."""

import jax
import jax.numpy as jnp
import pytest

from lm.adapt.lora import LoRA
from lm.compress.int8 import Int8
from lm.core.param import abstract
from lm.model.program import Program
from lm.zoo.registry import FAMILIES, build

SIZED = [name for name, family in FAMILIES.items() if family.sizes]


@pytest.mark.slow
@pytest.mark.parametrize("family", SIZED)
def test_a_family_with_adapters_over_int8_tables_and_all(family):
    """Of the first published size, traced: nothing is allocated."""
    model = build({"family": family, "size": next(iter(FAMILIES[family].sizes))})
    program = Program(model, (Int8("."), LoRA(2, target=".")))
    params, row = abstract(program.spec()), jax.ShapeDtypeStruct((1, 16), jnp.int32)
    batch = {"tokens": row} | ({"encoder/tokens": row} if hasattr(model, "encoder") else {})
    assert jax.tree.leaves(jax.eval_shape(model, params, batch))
    merged = jax.eval_shape(program.merge, params)
    assert jax.tree.map(lambda x: x.shape, merged) == jax.tree.map(lambda p: p.shape, model.spec())
