"""Evaluation: exact sums over all batches, divided once."""

import jax
import numpy as np
import pytest

from lm.core.errors import UserError
from lm.core.mesh import Sharding, make_mesh
from lm.core.metrics import values
from lm.evaluate.evaluator import Evaluator
from lm.objectives.causal import NextToken
from tests import toys

OBJECTIVE = NextToken()


def examples(rows: int, seed: int = 0) -> dict[str, np.ndarray]:
    """A batch of packed rows [rows, 8], in each two documents and some padding."""
    rng = np.random.default_rng(seed)
    segments = np.sort(rng.integers(0, 3, (rows, toys.LENGTH + 1)), axis=1)[:, ::-1]
    segments = np.where(segments > 0, 3 - segments, 0)  # 1 .. 2 .. 0
    tokens = rng.integers(0, toys.VOCAB, segments.shape)
    made = [OBJECTIVE.examples()({"tokens": t, "segments": s}, rng) for t, s in zip(tokens, segments, strict=True)]
    batch = {name: np.stack([one[name] for one in made]) for name in made[0]}
    return batch | {"bytes": batch["weights"].sum(1).astype(np.int32) * 2}


def parts(batch: dict, *sizes: int) -> list[dict]:
    ends = np.cumsum(sizes)
    return [{k: v[end - size : end] for k, v in batch.items()} for size, end in zip(sizes, ends, strict=True)]


@pytest.fixture(scope="module")
def setting():
    model = toys.grouped_queries()
    return model, toys.values(model.spec()), Evaluator(model, OBJECTIVE)


def test_figures_are_those_of_the_logits(setting):
    model, params, evaluate = setting
    batch = examples(8)
    result = values(evaluate(params, [batch]))
    rows = {k: batch[k] for k in ("tokens", "segments", "positions")}
    logits = np.asarray(toys.forward(model, params, rows)[0], np.float64)
    log_probs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    real = batch["weights"] > 0
    nll = -np.take_along_axis(log_probs, batch["targets"][..., None], -1)[..., 0][real]
    assert result["tokens"] == real.sum()
    assert result["loss"] == pytest.approx(nll.mean(), rel=1e-5)
    assert result["accuracy"] == pytest.approx((logits.argmax(-1) == batch["targets"])[real].mean())
    assert result["bits_per_byte"] == pytest.approx(nll.sum() / np.log(2) / (2 * real.sum()), rel=1e-5)
    assert result["bytes"] == 2 * real.sum()


def test_the_cut_into_batches_does_not_count(setting):
    model, params, evaluate = setting
    batch = examples(8)
    whole = values(evaluate(params, [batch]))
    assert values(evaluate(params, parts(batch, 2, 2, 4))) == pytest.approx(whole, rel=1e-5)


def test_it_compiles_once(setting):
    model, params, _ = setting
    evaluate = Evaluator(model, OBJECTIVE)
    for seed in range(2):
        evaluate(params, iter([examples(2, seed), examples(2, seed + 1)]))
    assert evaluate._metrics._cache_size() == 1


def test_a_mesh_gives_the_same(setting):
    model, params, evaluate = setting
    sharding, batch = Sharding(make_mesh({"data": 4, "fsdp": 2})), examples(8)
    placed = jax.device_put(params, sharding.tree(model.spec()))
    result = values(Evaluator(model, OBJECTIVE, sharding=sharding)(placed, [batch]))
    assert result == pytest.approx(values(evaluate(params, [batch])), rel=1e-5)


def test_batches_without_bytes_have_no_bits_per_byte(setting):
    model, params, evaluate = setting
    batch = examples(4)
    del batch["bytes"]
    assert set(evaluate(params, [batch])) == {"loss", "accuracy", "tokens"}


def test_nothing_to_predict_is_an_error(setting):
    model, params, evaluate = setting
    batch = examples(4)
    batch["weights"] = np.zeros_like(batch["weights"])
    for batches in ([], [batch]):
        with pytest.raises(UserError, match="no token to predict"):
            evaluate(params, batches)
