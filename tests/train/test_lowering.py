"""The largest published decoder is lowered from shapes alone: no parameter is allocated, and the program grows with
distinct layers, not with layers."""

import functools
import itertools
from typing import Any

import jax
import pytest
from jax.extend import core as jex

from benchmarks import lowering
from lm.core.param import count
from lm.model.transformer import Model
from lm.zoo.registry import build

MAKES = {"forward": lowering.forward, "step": lowering.step}


@functools.cache
def of_depth(layers: int) -> Model:
    """GPT-3 175B, with as many layers: 96 are the published ones."""
    return build({"family": "gpt3", "size": "175b", "layers": layers})


def equations(jaxpr: Any) -> int:
    """How many equations, those of loops, branches and calls included."""
    values = itertools.chain.from_iterable(eqn.params.values() for eqn in jaxpr.eqns)
    flat = itertools.chain.from_iterable(v if isinstance(v, (tuple, list)) else (v,) for v in values)
    inner = (v.jaxpr if isinstance(v, jex.ClosedJaxpr) else v for v in flat)
    return len(jaxpr.eqns) + sum(equations(j) for j in inner if isinstance(j, jex.Jaxpr))


@pytest.mark.parametrize("name", MAKES)
def test_the_program_of_96_layers_is_as_long_as_that_of_12(name):
    model = of_depth(96)
    assert count(model.spec()) == 174_604_259_328
    before = len(jax.live_arrays())
    traced = {
        layers: function.trace(*args) for layers in (12, 96) for function, args in [MAKES[name](of_depth(layers))]
    }
    sizes = {layers: equations(t.jaxpr.jaxpr) for layers, t in traced.items()}
    assert sizes[12] == sizes[96] > 50
    lines = {layers: t.lower().as_text().count("\n") for layers, t in traced.items()}
    assert lines[12] == lines[96] > 50
    assert sum(x.nbytes for x in jax.live_arrays()[before:]) < 1e6, "nothing of the model's size is allocated"
