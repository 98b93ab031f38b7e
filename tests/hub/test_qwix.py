"""qwix, which patches how Flax modules multiply, finds our weights (`pip install -e ".[qwix]"`)."""

import re
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lm.hub import as_linen
from lm.model.transformer import Model
from tests import toy_towers, toys

qwix = pytest.importorskip("qwix", reason='qwix is not installed: pip install -e ".[qwix]"')

PLAIN = toys.language_model([toys.block(toys.attention())] * 3)
MODELS = {"plain": PLAIN, "experts": toys.routed(), "encoder-decoder": toy_towers.encoder_decoder()}


def setting(model: Model) -> tuple:
    batch = {"tokens": toys.tokens(2)}
    batch |= {"encoder/tokens": toys.tokens(2, 5, 1)} if hasattr(model, "encoder") else {}
    module, params = as_linen(model), toys.values(model.spec())
    return module, params, batch, module.apply({"params": params}, batch)


def quantized(module, params, batch, **rule):
    """The module under one rule, and the parameters for it."""
    module = qwix.quantize_model(module, qwix.PtqProvider([qwix.QuantizationRule(**rule)]))
    shapes = jax.eval_shape(module.init, jax.random.key(0), batch)
    return module, qwix.quantize_params(params, shapes["params"])


def int8_dots(function, *args) -> int:
    """How many `dot_general`s, those inside loops and calls included, multiply int8 by int8."""

    def count(jaxpr) -> int:
        found = 0
        for eqn in jaxpr.eqns:
            if eqn.primitive.name == "dot_general":
                found += all(v.aval.dtype == jnp.int8 for v in eqn.invars)
            for value in eqn.params.values():
                for inner in value if isinstance(value, (tuple, list)) else (value,):
                    inner = getattr(inner, "jaxpr", inner)
                    found += count(inner) if hasattr(inner, "eqns") else 0
        return found

    return count(jax.make_jaxpr(function)(*args).jaxpr)


def int8_weights(params) -> list[str]:
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return [jax.tree_util.keystr(path) for path, x in leaves if x.dtype == jnp.int8]


@pytest.mark.parametrize("name", MODELS)
def test_weights_and_activations_are_int8(name):
    module, params, batch, exact = setting(MODELS[name])
    small, small_params = quantized(module, params, batch, module_path=".+", weight_qtype="int8", act_qtype="int8")
    rounded = jax.jit(small.apply)({"params": small_params}, batch)
    assert 0 < np.abs(rounded - exact).mean() / np.abs(exact).mean() < 0.1
    assert int8_dots(small.apply, {"params": small_params}, batch) >= 5
    assert int8_dots(module.apply, {"params": params}, batch) == 0
    assert len(int8_weights(small_params)) >= 5
    toys.close(module.apply({"params": params}, batch), exact)  # nothing of it stays behind


def test_rules_match_by_path():
    module, params, batch, exact = setting(PLAIN)
    small, small_params = quantized(module, params, batch, module_path=r"body/stack/.*/mlp/.*", weight_qtype="int8")
    weights = int8_weights(small_params)
    assert weights and all("mlp" in path for path in weights)
    assert toys.differ(small.apply({"params": small_params}, batch), exact)
    assert int8_dots(small.apply, {"params": small_params}, batch) == 0, "activations are not rounded"


def test_parameters_drawn_for_the_rules_are_those_rounded_afterwards():
    module, _, batch, _ = setting(toys.routed())
    key = jax.random.key(1)
    small, rounded = quantized(module, module.init(key, batch)["params"], batch, module_path=".+", weight_qtype="int8")
    drawn = small.init(key, batch)["params"]
    assert int8_weights(drawn) == int8_weights(rounded)
    for a, b in zip(jax.tree.leaves(drawn), jax.tree.leaves(rounded), strict=True):
        step = 1 if a.dtype == jnp.int8 else 1e-6  # a program fused otherwise rounds a tie the other way
        assert np.abs(np.asarray(a, np.float32) - np.asarray(b, np.float32)).max() <= step


def test_low_rank_adapters_start_as_the_base_and_are_trained():
    module, _, batch, _ = setting(PLAIN)
    rule = qwix.LoraRule(module_path=".*attention.*", rank=2, alpha=4.0)
    adapted = qwix.apply_lora_to_model(module, qwix.LoraProvider([rule]))
    variables = adapted.init(jax.random.key(1), batch)
    base = module.init(jax.random.key(1), batch)
    toys.close(adapted.apply(variables, batch), module.apply(base, batch))
    grads = jax.jit(jax.grad(lambda v: jnp.square(adapted.apply(v, batch)).mean()))(variables)
    moved = [g for path, g in jax.tree_util.tree_leaves_with_path(grads) if "w_lora_b" in jax.tree_util.keystr(path)]
    assert len(moved) >= 4
    assert all(np.abs(g).max() > 0 for g in moved)


def test_quantised_training():
    module, params, batch, exact = setting(PLAIN)
    rule = qwix.QtRule(module_path=".*mlp.*", weight_qtype="int8", act_qtype="int8", bwd_qtype="int8")
    small = qwix.quantize_model(module, qwix.QtProvider([rule]))
    grads = jax.jit(jax.grad(lambda p: jnp.square(small.apply({"params": p}, batch)).mean()))(params)
    plain = jax.jit(jax.grad(lambda p: jnp.square(module.apply({"params": p}, batch)).mean()))(params)
    for g, wanted in zip(jax.tree.leaves(grads), jax.tree.leaves(plain), strict=True):
        assert np.abs(g - wanted).mean() < 0.3 * np.abs(wanted).mean() + 1e-6
    assert toys.differ(small.apply({"params": params}, batch), exact)


def test_the_example_of_the_readme():
    text = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    names: dict[str, Any] = {}
    for block in blocks[: 1 + max(i for i, block in enumerate(blocks) if "qwix" in block)]:
        exec(block, names)
    assert int8_weights(names["small_params"]) and all("mlp" in path for path in int8_weights(names["small_params"]))
    exact = names["module"].apply({"params": names["params"]}, {"tokens": names["tokens"]})
    assert 0 < np.abs(names["logits"] - exact).mean() / np.abs(exact).mean() < 0.1
