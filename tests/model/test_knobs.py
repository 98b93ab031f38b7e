"""No dead knobs: changing any knob of any component changes the parameters or the traced program, or is refused."""

import dataclasses
import functools
import typing
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lm.core import component
from lm.core.ctx import Ctx
from lm.core.errors import UserError
from lm.core.param import Constant, Normal, abstract, flatten
from lm.infer.generate import turns
from lm.model.attention_bias import BucketedBias
from lm.model.heads import TokenClassifier
from lm.model.kv_sources import SegmentMemory
from lm.model.layers import LayerNorm, RMSNorm
from lm.model.masks import Bidirectional
from lm.model.mlp import MLP
from lm.model.moe.dispatch import Dropless
from lm.model.moe.top_k import TopK
from lm.model.positions import Learned, Sinusoidal
from lm.model.residual import Plain
from lm.model.rotary import LinearScaling, Rotary
from lm.model.special.summaries import BlockSummaries
from tests import toy_towers, toys

MODELS = (
    *(make() for make in toys.DECODERS.values()),
    toys.many_ahead(),
    toy_towers.encoder(),
    toy_towers.windowed_encoder(),
    toy_towers.taking_experts(),
    toy_towers.encoder_decoder(),
    toy_towers.predictors(),
    toy_towers.long_reader(),
    toy_towers.two_models(),
)

# What to put where a knob holds None or another component: the first that the type hint allows and that is new.
SUBSTITUTES = (
    Normal(0.7),
    Constant(0.3),
    RMSNorm(0.3),
    LayerNorm(0.3),
    Learned(19),
    Sinusoidal(7.0),
    Rotary(3.0),
    LinearScaling(3.0),
    Bidirectional(),
    SegmentMemory(3),
    Plain(),
    MLP(5),
    TopK(3),
    Dropless(),
    TokenClassifier(3),
    BlockSummaries(2, RMSNorm(), BucketedBias(None)),
    0.37,
    2,
    "silu",
)


def places(tree: Any, path: tuple = ()) -> Any:
    """(component, path to it) for each component in a tree of dataclasses and tuples."""
    if dataclasses.is_dataclass(tree):
        yield tree, path
        for f in dataclasses.fields(tree):
            yield from places(getattr(tree, f.name), (*path, f.name))
    elif isinstance(tree, tuple):
        for i, item in enumerate(tree):
            yield from places(item, (*path, i))


def changed(tree: Any, path: tuple, value: Any) -> Any:
    """`tree` with `value` at `path`."""
    if not path:
        return value
    first, *rest = path
    if isinstance(tree, tuple):
        return tuple(changed(x, tuple(rest), value) if i == first else x for i, x in enumerate(tree))
    return dataclasses.replace(tree, **{first: changed(getattr(tree, first), tuple(rest), value)})


def replaced(owner: Any, name: str, value: Any) -> Any:
    """`owner` with another value for a knob; None where it refuses it."""
    try:
        return dataclasses.replace(owner, **{name: value})
    except UserError:
        return None


def others(owner: Any, name: str) -> list:
    """Other values for a knob, by its present value and type hint."""
    value = getattr(owner, name)
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int):
        return [value + 1, value + 4]
    if isinstance(value, float):
        return [value * 1.5 + 0.1, value * 0.3]
    if isinstance(value, str):
        return ["last", "silu", value + "x"]
    if isinstance(value, tuple):
        return [value[:-1]] if value else []
    hint = typing.get_type_hints(type(owner))[name]
    found = []
    for other in SUBSTITUTES:
        try:
            component.checked(other, hint, name)
        except UserError:
            continue
        found.append(other)
    if not found and value is not None:  # only one kind of component may stand here: it matters if its knobs do
        pairs = [(f.name, other) for f in dataclasses.fields(value) for other in others(value, f.name)]
        found = [new for name, other in pairs if (new := replaced(value, name, other)) is not None]
    return [other for other in found if other != value]


@functools.cache
def drawn(init: Any) -> bytes:
    return np.asarray(init(jax.random.key(0), (2, 3), jnp.float32)).tobytes()


def program(model: Any) -> str:
    """What a model computes: in training with dropout, its update, from cache, and when these are read anew."""
    rows = {"tokens": jax.ShapeDtypeStruct((2, 8), jnp.int32), "positions": jax.ShapeDtypeStruct((2, 8), jnp.int32)}
    if hasattr(model, "encoder"):
        rows |= {f"encoder/{name}": value for name, value in rows.items()}

    def everything(params: Any, rows: dict, cache: Any) -> Any:
        ctx = Ctx(key=jax.random.key(0))
        _, _, out = model.hidden(params, rows, ctx)
        return model(params, rows, ctx), model.update(params, out), model.hidden(params, rows, Ctx(), cache)

    cache = jax.eval_shape(lambda: model.cache(toys.shape(2, memory=8)))
    traced = jax.make_jaxpr(everything)(abstract(model.spec()), rows, cache)
    return f"{traced}{[np.asarray(c).tolist() for c in traced.consts]}{turns(model)}"


def parameters(model: Any) -> list:
    return [(path, p.shape, p.axes, p.kind, drawn(p.init)) for path, p in flatten(model.spec())]


@functools.cache
def original(model: Any) -> tuple[list, list]:
    return parameters(model), programs(model)


def programs(model: Any) -> list[str]:
    if not hasattr(model, "parts"):
        return [program(model)]
    whole = jax.eval_shape(model.resolve, abstract(model.spec()))
    return [program(part) for name, part in model.parts if whole[name]]


def matters(model: Any, path: tuple, value: Any) -> bool:
    try:
        other = changed(model, path, value)
        return parameters(other) != original(model)[0] or programs(other) != original(model)[1]
    except UserError:
        return True


def knobs() -> dict[tuple[str, str], list[tuple]]:
    """(component, knob) -> where it occurs: model, path of the component, the component."""
    found: dict[tuple[str, str], list[tuple]] = {}
    for model in MODELS:
        for owner, path in places(model):
            for f in dataclasses.fields(owner):
                found.setdefault((type(owner).__name__, f.name), []).append((model, path, owner))
    return found


KNOBS = knobs()


def test_every_component_occurs_in_a_model():
    known = {cls.__name__ for cls in component._registry.values() if cls.__module__.startswith(("lm.model", "lm.core"))}
    assert known == {type(owner).__name__ for model in MODELS for owner, _ in places(model)}


@pytest.mark.parametrize("knob", KNOBS, ids=".".join)
def test_no_knob_is_dead(knob):
    tried = []
    for model, path, owner in KNOBS[knob]:
        for value in others(owner, knob[1]):
            tried.append(value)
            if matters(model, (*path, knob[1]), value):
                return
    assert not tried, f"{'.'.join(knob)} changes nothing: tried {tried}"
    pytest.fail(f"nothing to try for {'.'.join(knob)}: extend SUBSTITUTES or the toys")
