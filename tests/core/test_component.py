"""Component trees as JSON, and what is said when that JSON is wrong."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lm.core.component import component, from_dict, to_dict
from lm.core.errors import UserError, main_errors
from lm.core.param import FanIn, Normal
from lm.model.attention import Attention, Projections, QKNorm, Softmax
from lm.model.attention_bias import BucketedBias
from lm.model.block import Block, Parallel
from lm.model.kv_sources import CrossKV, SegmentMemory, SelfKV
from lm.model.layers import LayerNorm, RMSNorm
from lm.model.masks import Bidirectional, Causal, Window
from lm.model.mlp import MLP, GatedMLP
from lm.model.moe.dispatch import Capacity, Dropless
from lm.model.moe.layer import MoE
from lm.model.moe.top_k import TopK
from lm.model.residual import Plain, PreNorm, ResiDual, Sandwich
from lm.model.rotary import LinearScaling, Rotary
from lm.model.special.disentangled import ContentToPosition, Distances
from lm.model.stack import Stack
from tests import toy_towers, toys

sizes, rates, shares = st.integers(1, 9), st.floats(0, 1), st.floats(0, 1, exclude_max=True)
factors = st.floats(0.5, 9)
inits = st.one_of(st.builds(Normal, rates, sizes), st.builds(FanIn, rates))
norms = st.one_of(st.builds(RMSNorm, rates), st.builds(LayerNorm, rates, st.booleans()))
feed_forwards = st.one_of(
    st.builds(MLP, sizes, st.sampled_from(["relu", "gelu"]), st.booleans(), init=inits), st.builds(GatedMLP, sizes)
)
routers = st.builds(
    TopK, st.just(1), st.sampled_from(["softmax", "sigmoid"]), st.sampled_from([None, 1.0]), rate=st.none() | rates
)
dispatches = st.builds(Capacity, st.floats(1, 9), st.none() | sizes) | st.just(Dropless())
experts = st.builds(MoE, st.integers(2, 5), feed_forwards, routers, dispatches)
attentions = st.builds(
    Attention,
    heads=st.just(4),
    head_dim=sizes,
    kv_heads=st.sampled_from([None, 1, 2]),
    mask=st.one_of(st.just(Causal()), st.just(Bidirectional()), st.builds(Window, sizes)),
    rotary=st.none() | st.builds(Rotary, factors, scaling=st.none() | st.builds(LinearScaling, factors)),
    bias=st.lists(st.builds(BucketedBias) | st.builds(ContentToPosition, st.builds(Distances, sizes)), max_size=2).map(
        tuple
    ),
    source=st.one_of(st.just(SelfKV()), st.just(CrossKV()), st.builds(SegmentMemory, sizes)),
    projections=st.builds(Projections, st.lists(st.sampled_from("qkvo"), unique=True).map(tuple), init=inits),
    softmax=st.builds(Softmax, st.none() | rates, sinks=st.booleans()),
    qk_norm=st.none() | st.builds(QKNorm, st.none() | norms),
)
named = lambda parts: tuple((str(i), part) for i, part in enumerate(parts))  # noqa: E731
sublayers = st.recursive(
    attentions | feed_forwards | experts,
    lambda inner: st.builds(Parallel, st.lists(inner, min_size=1, max_size=2).map(named), norms),
    max_leaves=3,
)
single = st.one_of(st.just(Plain()), st.builds(PreNorm, norms), st.builds(Sandwich, norms, norms, shares))
double = st.builds(ResiDual, norms)
block = lambda wirings: st.builds(lambda part, wiring: Block((("part", part),), wiring), sublayers, wirings)  # noqa: E731
blocks = st.one_of(*(st.lists(block(wirings), min_size=1, max_size=4) for wirings in (single, double)))
trees = st.one_of(sublayers, single, double, blocks.map(Stack.of))


@given(trees)
def test_json_round_trip(tree):
    again = from_dict(json.loads(json.dumps(to_dict(tree))))
    assert again == tree
    assert hash(again) == hash(tree)


@pytest.mark.parametrize("make", [*toys.DECODERS.values(), toy_towers.encoder_decoder, toy_towers.two_models])
def test_whole_models_round_trip(make):
    assert from_dict(json.loads(json.dumps(to_dict(make())))) == make()


def test_a_stack_of_mixed_wirings_is_refused():
    one, two = (Block((("mlp", MLP(4)),), wiring) for wiring in (Plain(), ResiDual(RMSNorm())))
    with pytest.raises(UserError, match="cannot mix ResiDual"):
        Stack.of([one, two])


def test_numbers_are_read_as_the_knob_wants_them():
    assert from_dict({"type": "Normal", "std": 1}).std == 1.0
    assert isinstance(from_dict({"type": "Normal", "std": 1}).std, float)


GOOD = to_dict(Attention(heads=4, head_dim=2))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"type": "Atention"}, "model.type='Atention' is no component; did you mean 'Attention'?"),
        ({"heads": 3}, "model.type=None is no component"),
        (GOOD | {"head": 3}, "model.head is no knob of Attention; did you mean 'heads'?"),
        (GOOD | {"xyzzy": 3}, "model.xyzzy is no knob of Attention; known: bias, dropout, head_dim"),
        ({"type": "Attention", "heads": 4}, "model is a Attention without its knob 'head_dim': add it"),
        (GOOD | {"heads": "4"}, "model.heads='4' is a str; it must be int"),
        (GOOD | {"heads": 4.0}, "model.heads=4.0 is a float; it must be int"),
        (GOOD | {"heads": True}, "model.heads=True is a bool; it must be int"),
        (GOOD | {"dropout": float("nan")}, "model.dropout=nan must be a finite number, at least 0 and less than 1"),
        (GOOD | {"dropout": 1.0}, "model.dropout=1.0 must be at least 0 and less than 1"),
        (GOOD | {"scale": float("inf")}, "model.softmax.scale=inf must be a finite number"),
        (GOOD | {"heads": 0}, "model.heads=0 must be at least 1"),
        (GOOD | {"kv_heads": -1}, "model.kv_heads=-1 must be at least 1"),
        (GOOD | {"dropout": None}, "model.dropout=None is a NoneType; it must be float"),
        (GOOD | {"kv_heads": "all"}, "model.kv_heads='all' is a str; it must be int or None"),
        (
            GOOD | {"mask": to_dict(SelfKV())},
            "model.mask=SelfKV() is a SelfKV; it must be Bidirectional or Causal or Window or",
        ),
        (GOOD | {"init": 0.02}, "model.projections.init=0.02 is a float; it must be Initializer"),
        (GOOD | {"mask": {"type": "Window", "lef": 3}}, "model.mask.lef is no knob of Window; did you mean 'left'?"),
        (GOOD | {"mask": {"type": "Window", "left": "3"}}, "model.mask.left='3' is a str; it must be int"),
        (GOOD | {"biases": "qk"}, "model.projections.biases='qk' is a str; it must be tuple"),
        (GOOD | {"biases": ["q", 3]}, "model.projections.biases[1]=3 is a int; it must be str"),
        (GOOD | {"bias": [to_dict(SelfKV())]}, "model.bias[0]=SelfKV() is a SelfKV; it must be AttentionBias"),
        (
            GOOD | {"bias": [{"type": "BucketBias"}]},
            "model.bias[0].type='BucketBias' is no component; did you mean 'Buck",
        ),
        (GOOD | {"heads": 3, "kv_heads": 2}, "heads=3 is no multiple of kv_heads=2"),
        ({"type": "Parallel", "parts": [["a"]]}, "model.parts[0] has 1 items; it must have 2"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(wrong, message):
    with pytest.raises(UserError) as error:
        from_dict(wrong)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_two_components_of_one_name_are_a_mistake():
    class Causal:
        pass

    with pytest.raises(UserError, match=r"two components are named Causal, one in \S+/masks.py, one in \S+: re"):
        component(Causal)


def test_command_lines_exit_with_one_line(capsys):
    with pytest.raises(SystemExit) as exit, main_errors():
        from_dict({"type": "Atention"}, "config.model")
    assert exit.value.code == 2
    err = capsys.readouterr().err
    assert err.startswith("error: config.model.type='Atention' is no component; did you mean 'Attention'? (one of your")
    assert err.count("\n") == 1
