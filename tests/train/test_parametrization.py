"""muP and CompleteP from spec trees: what each tensor gets, in models of any family, and that steps change states of
any width alike."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lm.core.component import components
from lm.core.errors import UserError
from lm.core.param import Normal, Param, flatten, initialize
from lm.model.attention import Attention
from lm.model.heads import LMHead
from lm.model.program import Program
from lm.model.residual import PreNorm
from lm.train.optim.adafactor import Adafactor
from lm.train.optim.adamw import AdamW
from lm.train.optim.bound import BoundOptimizer
from lm.train.optim.lamb import LAMB
from lm.train.optim.lion import Lion
from lm.train.optim.muon import Muon
from lm.train.optim.optimizer import Optimizer
from lm.train.optim.schedule import ConstantRate
from lm.train.optim.sgd import SGD
from lm.train.parametrization.config import Parametrization
from lm.train.parametrization.growth import compared, reinitialized
from lm.train.setup import assemble
from lm.zoo.registry import FAMILIES, build, knobs
from tests.train import tiny

BASE = {"d_model": 16, "heads": 2, "layers": 2, "d_ff": 32}
WIDE = {"d_model": 64, "heads": 8, "layers": 8, "d_ff": 128}  # 4 times as wide, 4 times as deep


def grown(family: str, alpha: float = 1.0, base: dict = BASE, **more: Any) -> tuple[Any, dict]:
    """The model with its multipliers, and the growth of its tensors by path."""
    given = {"family": family, "vocab": 96, **WIDE, **more}
    choice = Parametrization(tuple(base.items()), alpha)
    model = choice.model(build(given), given)
    assert choice.model(model, given) == model  # once more changes nothing
    return model, dict(flatten(choice.growth(Program(model), given)))


def test_without_a_base_all_is_as_the_model_says(tmp_path):
    config = tiny.config(tmp_path)
    parts = assemble(config)
    assert parts.model == build(config.model)
    for tree in (parts.trainer.optimizer.multipliers, parts.trainer.optimizer.gradient):
        assert set(jax.tree.leaves(tree)) == {1.0}
    got, want = (initialize(spec, jax.random.key(0)) for spec in (parts.trainer.initial, parts.model.spec()))
    jax.tree.map(np.testing.assert_array_equal, got, want)


@pytest.mark.parametrize(("alpha", "deep_rate", "branch"), [(1.0, 1.0, 0.25), (0.5, 0.5, 0.5), (0.0, 1.0, 1.0)])
def test_the_table_of_complete_p(alpha, deep_rate, branch):
    """Dey et al. 2025, arXiv 2505.01618, table 1, for a model 4 times as wide and deep as its base."""
    model, found = grown("llama", alpha, tied=False, std=0.02)
    layer = "body/stack/0/0"
    for name in ("attention/q", "attention/k", "attention/v", "attention/o", "mlp/gate", "mlp/up", "mlp/down"):
        g = found[f"{layer}/{name}/w"]
        assert (g.init, g.update, g.gradient) == pytest.approx((0.5, deep_rate / 4, branch / 4)), name
    for name in ("attention_norm", "mlp_norm"):
        assert (found[f"{layer}/{name}/w"].update, found[f"{layer}/{name}/w"].gradient) == (deep_rate, branch / 4)
    for path in ("body/embed/token", "head/w", "body/stack/norm/w"):
        assert (found[path].init, found[path].update, found[path].gradient) == (1, 1, 0.25), path
    parts = list(components(model))
    assert {p.scale for p in parts if isinstance(p, LMHead)} == {0.25}
    assert {p.scale for p in parts if isinstance(p, PreNorm)} == {branch}
    assert {p.scale for p in parts if isinstance(p, Attention)} == {8**-0.5}  # heads are as wide


def test_scores_of_wider_heads_are_divided_by_their_width():
    model, _ = grown("llama", heads=2)
    assert {p.scale for p in components(model) if isinstance(p, Attention)} == {8**-0.5 * 8 / 32}


def test_a_table_that_is_tied_moves_as_one_that_is_looked_up():
    model, found = grown("gpt2")
    assert "head/w" not in found and model.head.scale == 0.25
    assert (found["body/embed/token"].init, found["body/embed/token"].update) == (1, 1)
    assert found["body/embed/position/w"].update == 1 and found["body/stack/0/0/mlp/up/b"].update == 1


def test_few_outputs_of_wide_states_begin_and_move_as_those_of_a_head():
    """A router, and keys and values of one head: fan-out does not grow. Experts: by the fan-in of each."""
    _, found = grown("mixtral", experts=4, kv_heads=1, base={**BASE, "kv_heads": 1})
    router, key, down = (found[f"body/stack/0/0/{n}/w"] for n in ("mlp/router", "attention/k", "mlp/experts/down"))
    for g in (router, key):
        assert (g.init, g.update, g.gradient) == pytest.approx((0.25, 0.25, 0.25))  # the last by depth alone
    assert (down.init, down.update, down.gradient) == (0.5, 0.25, 0.0625)


@pytest.mark.parametrize("family", [name for name, family in FAMILIES.items() if len(family.sizes) > 1])
def test_every_family_by_its_published_sizes(family):
    """The second size against the first: every tensor has its growth, or a line says why there is none."""
    small, size, *_ = FAMILIES[family].sizes
    given, choice = {"family": family, "size": size}, Parametrization((("size", small),), alpha=0.0)
    try:
        model = choice.model(build(given), given)
        found = dict(flatten(choice.growth(Program(model), given)))
    except UserError as e:  # which differ in more than sizes
        assert str(e).startswith("config.parametrization.base is another model") and "\n" not in str(e)
        return
    assert found.keys() == dict(flatten(model.spec())).keys()
    assert all(0 < x < 64 for g in found.values() for x in (g.init, g.update, g.gradient))


def toy(d: int) -> dict[str, Param]:
    """Tokens to states, to states, to scores."""
    return {
        "token": Param((8, d), ("vocab", "embed"), Normal(1.0)),
        "one": Param((2, d, d), ("layers", "embed", "mlp"), Normal(0.25)),
        "out": Param((d, 8), ("embed", None), Normal(0.25)),
    }


def changed(optimizer: Optimizer, d: int, base: int | None) -> tuple[float, float]:
    """How much states and scores of the toy change in three steps; `base`: the width that learning rate is for."""
    spec = toy(d)
    growth = compared(spec, toy(base or d), {}, 1.0)
    spec = reinitialized(spec, growth)
    bound, hyper = BoundOptimizer.of(optimizer, spec, ConstantRate(warmup=0), 3, growth=growth), optimizer.hyper
    params, ids = initialize(spec, jax.random.key(0)), jnp.arange(8)

    def states(p):
        h = p["token"][ids]
        for w in p["one"]:
            h = jax.nn.relu(h @ w)
        return h, h @ p["out"]

    def loss(p):
        return -jnp.mean(jax.nn.log_softmax(states(p)[1])[ids, (ids * 3) % 8])

    @jax.jit
    def run(params):
        state, now = bound.init(params, hyper), params
        for step in range(3):
            now, state, _ = bound.update(jax.grad(loss)(now), state, now, hyper, jnp.int32(step))
        return [jnp.sqrt(jnp.mean(jnp.square(x - y))) for x, y in zip(states(now), states(params), strict=True)]

    return tuple(map(float, run(params)))  # type: ignore[return-value]


KINDS: list[Optimizer] = [
    AdamW(learning_rate=0.01, weight_decay=0.0, clip=0.0),
    Lion(learning_rate=0.01, weight_decay=0.0, clip=0.0),
    SGD(learning_rate=0.3, weight_decay=0.0, clip=0.0, momentum=0.0),
    Muon(learning_rate=0.03, weight_decay=0.0, clip=0.0),
    LAMB(learning_rate=0.02, weight_decay=0.0, clip=0.0),
    Adafactor(learning_rate=0.02, weight_decay=0.0, clip=0.0, relative=True),
]


@pytest.mark.parametrize("optimizer", KINDS, ids=lambda o: type(o).__name__)
def test_states_of_any_width_change_alike(optimizer):
    widths = (32, 128, 512)
    change = np.array([changed(optimizer, d, base=32) for d in widths])
    power = np.polyfit(np.log(widths), np.log(change), 1)[0]
    assert np.all(np.abs(power) < 0.12), (power, change)
    if isinstance(optimizer, AdamW):
        change = np.array([changed(optimizer, d, base=None) for d in widths])
        assert np.all(np.polyfit(np.log(widths), np.log(change), 1)[0] > 0.4)


def test_another_model_is_no_base():
    def of(family: str, base: dict, alpha: float = 1.0, **more: Any) -> None:
        grown(family, alpha, base, **more)

    with pytest.raises(UserError, match=r"parametrization\.base is another model: parameter 'body/embed/position/w'"):
        of("llama", {"family": "gpt2"})
    with pytest.raises(UserError, match=r"parametrization\.base: model\.d_model=16 is no multiple"):
        of("llama", {"d_model": 16, "heads": 3})
    with pytest.raises(UserError, match=r"PostNorm has no multiplier of what is added.*alpha=0"):
        of("transformer", {"layers": 2}, d_ff=64)
    with pytest.raises(UserError, match=r"alpha=0\.2 lets states grow"):
        Parametrization((("layers", 2),), alpha=0.2)
    with pytest.raises(UserError, match=r"tree of components: give it by family"):
        Parametrization((("layers", 2),)).model(build(knobs("llama", **WIDE)), {"type": "LanguageModel"})


def test_a_run_takes_over_what_its_base_was_given(tmp_path):
    """Multipliers stand in the model, and a step moves each tensor by its own learning rate."""
    config = tiny.config(tmp_path)
    config.optimizer.update(weight_decay=0.0, clip=0.0, learning_rate=0.01)
    config.parametrization.base = (("d_model", config.model.d_model // 2), ("heads", config.model.heads // 2))
    parts = assemble(config)
    assert {p.scale for p in components(parts.model) if isinstance(p, LMHead)} == {0.5}
    rates = dict(flatten(parts.trainer.optimizer.multipliers))
    assert {rates[path] for path in rates if path.endswith("attention/q/w")} == {0.5}
