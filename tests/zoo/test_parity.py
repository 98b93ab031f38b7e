"""Our families compute what `transformers` computes, from the same weights (goldens: `tests/golden/generate.py`)."""

import functools
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lm.core.ctx import Ctx
from lm.hub.config import read_config
from lm.hub.names import to_params, to_tensors
from lm.infer.generate import Generator
from lm.infer.sampling import Sampler
from lm.model.transformer import LanguageModel
from lm.objectives.causal import NextToken
from lm.zoo.build import build
from lm.zoo.names import Table
from tests.golden.weights import tensors

GOLDEN = Path(__file__).parents[1] / "golden"
CASES = sorted(path.stem for path in GOLDEN.glob("*.npz"))
# Our loss reads one token less than theirs, which drops its prediction.
LENGTH_MATTERS = {"llama_dynamic": "dynamic scaling looks at the length of the text"}
CLOSE = 2e-5  # float32 agrees to 1e-6 or so; ten times this would let a wrong GELU pass


@functools.cache
def case(name: str) -> tuple[LanguageModel, Table, Any, dict[str, np.ndarray]]:
    """Model, name table, parameters and golden."""
    golden = dict(np.load(GOLDEN / f"{name}.npz"))
    meta = json.loads(str(golden["meta"]))
    described = read_config(meta["config"])
    model, table = build(described.knobs), described.dialect.names
    params = jax.tree.map(jnp.asarray, to_params(model, table, tensors(meta["shapes"])))
    return model, table, params, golden


def assert_close(ours: Any, theirs: np.ndarray, what: str) -> None:
    ours = np.asarray(ours)
    assert ours.shape == theirs.shape
    error = np.abs(ours - theirs).max() / np.abs(theirs).max()
    print(f"{what}: relative error {error:.1e}")  # shown by pytest -s
    assert error < CLOSE, f"{what}: relative error {error:.1e}"


@pytest.mark.parametrize("name", CASES)
def test_logits(name):
    model, _, params, golden = case(name)
    mask = golden["mask"]

    @jax.jit
    def logits(params: Any, batch: dict) -> jax.Array:
        x, _, _ = model.hidden(params, batch, Ctx())
        return model.logits(params, x, Ctx())

    positions = np.maximum(mask.cumsum(1, dtype=np.int32) - 1, 0)
    ours = logits(params, {"tokens": golden["tokens"], "segments": mask, "positions": positions})
    assert_close(np.asarray(ours)[mask == 1], golden["logits"], f"{name} logits")


@pytest.mark.parametrize("name", CASES)
def test_loss_and_gradients(name):
    if name in LENGTH_MATTERS:
        pytest.skip(LENGTH_MATTERS[name])
    model, table, params, golden = case(name)
    objective = NextToken()
    rows = [{"tokens": t, "segments": s} for t, s in zip(golden["tokens"], golden["mask"], strict=True)]
    examples = [objective.example(row, np.random.default_rng(0)) for row in rows]
    batch = {key: np.stack([example[key] for example in examples]) for key in examples[0]}

    @jax.jit
    @jax.value_and_grad
    def value_and_grad(params: Any) -> jax.Array:
        loss = objective(model, params, batch, Ctx())
        return loss.total / loss.weight

    loss, gradient = value_and_grad(params)
    assert_close(loss, golden["loss"], f"{name} loss")
    ours = to_tensors(model, table, gradient)
    kept = {key.removeprefix("grad/"): value for key, value in golden.items() if key.startswith("grad/")}
    for key, theirs in kept.items():
        assert_close(ours[key], theirs, f"{name} gradient of {key}")


@pytest.mark.parametrize("name", CASES)
def test_greedy_tokens(name):
    model, _, params, golden = case(name)
    prompts = [row[mask == 1] for row, mask in zip(golden["tokens"], golden["mask"], strict=True)]
    new = golden["greedy"].shape[1]
    ours = Generator(model, params)(prompts, max_new=new, sampler=Sampler(temperature=0))
    np.testing.assert_array_equal(np.stack(ours), golden["greedy"])
