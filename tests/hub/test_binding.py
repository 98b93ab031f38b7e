"""Name tables: what is imported is exported again, to the bit, and mistakes are named."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lm.core.errors import UserError
from lm.core.param import flatten
from lm.hub.binding import Binding
from lm.hub.model_types import MODEL_TYPES
from lm.hub.tables.tensor_names import LINEAR, SAME, Layout
from lm.model.attention import Attention, Projections
from lm.zoo import gpt2, llama
from tests import toys

LLAMA = MODEL_TYPES["llama"].names
NAMES = {  # one name for each tensor that toys' attention-and-MLP models have
    "body/embed/token": "embed.weight",
    "body/embed/position/w": "position.weight",
    "body/stack/{layer}/attention_norm/{leaf}": "{layer}.norm1.{leaf}",
    "body/stack/{layer}/mlp_norm/{leaf}": "{layer}.norm2.{leaf}",
    "body/stack/{layer}/attention/o/{leaf}": "{layer}.o.{leaf}",
    "body/stack/{layer}/mlp/gate/{leaf}": "{layer}.gate.{leaf}",
    "body/stack/{layer}/mlp/up/{leaf}": "{layer}.up.{leaf}",
    "body/stack/{layer}/mlp/down/{leaf}": "{layer}.down.{leaf}",
    "body/stack/norm/w": "norm.weight",
    "head/w": "head.weight",
}
OTHERS = tuple((ours, theirs, LINEAR) for ours, theirs in NAMES.items() if "norm" not in ours)
OTHERS += tuple((ours, theirs, SAME) for ours, theirs in NAMES.items() if "norm" in ours)


def qkv(letters: str) -> tuple[str, ...]:
    return tuple(f"body/stack/{{layer}}/attention/{x}/{{leaf}}" for x in letters)


def fused(letters: str = "qkv", groups: int | str = 1) -> tuple:
    return (*OTHERS, (qkv(letters), "{layer}.qkv.{leaf}", Layout(transpose=True, groups=groups)))


def attention_model(kv: int = 2):
    one = Attention(4, 3, kv_heads=kv, projections=Projections(("q", "k", "v")))
    return toys.language_model([toys.block(one)] * 3)


def same(a, b) -> None:
    a, b = dict(flatten(a)), dict(flatten(b))
    assert a.keys() == b.keys()
    for path in a:
        np.testing.assert_array_equal(a[path], b[path], err_msg=path, strict=True)


def there_and_back(model, table, params) -> dict:
    tensors = Binding(model, table).to_tensors(params)
    same(Binding(model, table).to_params(tensors), params)
    return tensors


sizes = st.integers(1, 3)


@settings(max_examples=20)
@given(*(sizes,) * 5, st.booleans(), st.sampled_from(("gpt2", "llama")))
def test_export_undoes_import(layers, heads, groups, size, d_ff, tied, family):
    shape = dict(layers=layers, d_model=6, heads=heads * groups, head_dim=2 * size, d_ff=d_ff, vocab=11, tied=tied)
    model = gpt2.gpt2(context=5, **shape) if family == "gpt2" else llama.llama(kv_heads=heads, **shape)
    params = toys.values(model.spec())
    tensors = there_and_back(model, MODEL_TYPES[family].names, params)
    assert ("lm_head.weight" in tensors) != tied
    assert all(t.flags.c_contiguous for t in tensors.values())


@pytest.mark.parametrize("name", ["learned_positions", "dense_first", "shared_layers"])
def test_every_tensor_comes_back(name):
    model = toys.DECODERS[name]()
    experts = tuple(
        (f"body/stack/{{layer}}/mlp/experts/{x}/w", f"{{layer}}.experts.{{expert}}.{x}.weight", LINEAR)
        for x in ("gate", "up", "down")
    )
    router = tuple((f"body/stack/{{layer}}/mlp/router/{x}", f"{{layer}}.router.{x}", SAME) for x in ("w", "balance"))
    rest = (("body/stack/norm/b", "norm.bias", SAME), ("head/b", "head.bias", SAME))
    params = toys.values(model.spec())
    tensors = there_and_back(model, (*fused(), *experts, *router, *rest), params)
    if name == "dense_first":
        assert "0.up.weight" in tensors and "1.up.weight" not in tensors
        expected = params["body"]["stack"]["1"]["0"]["mlp"]["experts"]["up"]["w"][1, 3].T
        np.testing.assert_array_equal(tensors["2.experts.3.up.weight"], expected)
    if name == "shared_layers":  # a name per layer for one tensor: the first is written, any is read
        assert "0.o.weight" in tensors and "1.o.weight" not in tensors
        tensors["1.o.weight"] = tensors.pop("0.o.weight")
        same(Binding(model, (*fused(), *rest)).to_params(tensors), params)


def test_fused_layouts():
    """q has 4 heads of 3; each layout is written out as its family defines it."""

    def parts(model, layer):
        p = toys.values(model.spec())["body"]["stack"]["0"]["0"]["attention"]
        return {x: np.asarray(p[x]["w"][layer]).T for x in "qkv"}, {x: np.asarray(p[x]["b"][layer]) for x in "qkv"}

    def check(model, table, join):
        tensors = there_and_back(model, table, toys.values(model.spec()))
        for layer in range(3):
            weights, biases = parts(model, layer)
            np.testing.assert_array_equal(tensors[f"{layer}.qkv.weight"], join(**weights))
            np.testing.assert_array_equal(tensors[f"{layer}.qkv.bias"], join(**biases))

    def by(groups, *xs):  # [out, ...] -> [groups, out / groups, ...], joined and flattened again
        x = np.concatenate([x.reshape(groups, -1, *x.shape[1:]) for x in xs], axis=1)
        return x.reshape(-1, *x.shape[2:])

    check(attention_model(), fused(), lambda q, k, v: np.concatenate([q, k, v]))
    check(attention_model(4), fused(groups="heads"), lambda q, k, v: by(4, q, k, v))  # [h, 3, hd]
    check(attention_model(2), fused(groups="kv"), lambda q, k, v: by(2, q, k, v))  # [kv, h / kv + 2, hd]
    check(attention_model(4), fused("qvk", 2), lambda q, k, v: by(2, q, v, k))  # two slices, order q, v, k


def test_names_that_are_read_but_not_written():
    model, table = attention_model(), (*fused(), ((), "{layer}.mask", SAME))
    params = toys.values(model.spec())
    tensors = Binding(model, table).to_tensors(params)
    same(Binding(model, table).to_params(tensors | {"2.mask": np.zeros(1)}), params)


def test_tied_tables_may_come_twice_but_must_agree():
    model = llama.llama(layers=1, d_model=4, heads=2, d_ff=3, vocab=7, tied=True)
    params = toys.values(model.spec())
    tensors = Binding(model, LLAMA).to_tensors(params)
    embed = tensors["model.embed_tokens.weight"]
    same(Binding(model, LLAMA).to_params(tensors | {"lm_head.weight": embed}), params)
    with pytest.raises(UserError, match=r"'model.embed_tokens.weight' and 'lm_head.weight' differ.*untied"):
        Binding(model, LLAMA).to_params(tensors | {"lm_head.weight": embed + 1})
    del tensors["model.embed_tokens.weight"]
    same(Binding(model, LLAMA).to_params(tensors | {"lm_head.weight": embed}), params)


def test_mistakes_are_named():
    model = llama.llama(layers=2, d_model=4, heads=2, d_ff=3, vocab=7)
    params = toys.values(model.spec())
    good = Binding(model, LLAMA).to_tensors(params)
    down = "model.layers.1.mlp.down_proj.weight"

    def refused(match, **changes):
        changed = {k: v for k, v in (good | changes).items() if v is not None}
        with pytest.raises(UserError, match=match) as info:
            Binding(model, LLAMA).to_params(changed)
        assert "\n" not in str(info.value)

    refused(f"{down}' is missing", **{down: None})
    refused("'model.layers.2.mlp.down_proj.weight' is unknown", **{"model.layers.2.mlp.down_proj.weight": good[down]})
    refused(rf"{down}' is \[3, 4\], the model's \[4, 3\]", **{down: good[down].T})
    refused(f"{down}' is float16, but .* float32", **{down: good[down].astype(np.float16)})

    with pytest.raises(UserError, match="'head/w' is missing"):
        Binding(model, LLAMA).to_tensors({"body": params["body"]})
    with pytest.raises(UserError, match="'extra' is unknown"):
        Binding(model, LLAMA).to_tensors(params | {"extra": params["head"]["w"]})
    with pytest.raises(UserError, match=r"'head/w' is \[4, 7\]"):
        Binding(model, LLAMA).to_tensors(params | {"head": {"w": params["head"]["w"].T}})
    with pytest.raises(UserError, match="'body/embed/position/w' has no name"):
        Binding(gpt2.gpt2(layers=1, d_model=4, heads=2, vocab=7), LLAMA).to_params(good)


def test_dtype_is_kept():
    model = llama.llama(layers=2, d_model=4, heads=2, d_ff=3, vocab=7)
    tensors = Binding(model, LLAMA).to_tensors(toys.values(model.spec()))
    halves = {name: t.astype(np.float16) for name, t in tensors.items()}
    same(Binding(model, LLAMA).to_tensors(Binding(model, LLAMA).to_params(halves)), halves)
