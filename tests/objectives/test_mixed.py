"""Several objectives in one run: exact proportions, examples of one shape, a loss for each."""

import dataclasses
import io

import jax
import numpy as np
import pytest
from rich.console import Console

from lm.core.component import to_dict
from lm.core.ctx import Ctx
from lm.core.errors import UserError
from lm.core.param import initialize
from lm.data.streams import addressed
from lm.objectives.causal import NextToken
from lm.objectives.denoising import MixtureOfDenoisers, PrefixMixtureOfDenoisers
from lm.objectives.examples.published import SPANS
from lm.objectives.masked import MaskedTokens
from lm.objectives.middle import FillInTheMiddle
from lm.objectives.mixed import Mixed
from lm.objectives.multi_token import MultiToken
from lm.objectives.permuted import Permutation
from lm.objectives.token_loss import TokenLoss
from lm.runs.metrics import read_metrics
from lm.text.tokenizers import ByteTokenizer
from lm.train import loop
from lm.train.config import as_config
from tests.train import tiny

BYTES, LENGTH = ByteTokenizer(), 24
PREFIX = PrefixMixtureOfDenoisers.of(LENGTH, SPANS)
DECODER = Mixed(((2.0, "causal", NextToken()), (1.0, "spans", PREFIX), (1.0, "middle", FillInTheMiddle())))


def row_of(source, index, length=LENGTH):
    rng = np.random.default_rng(index)
    row = {
        "tokens": rng.integers(3, 250, length + 1).astype(np.int32),
        "segments": np.ones(length + 1, np.int32),
        "bytes": np.ones(length + 1, np.int32),
    }
    return addressed(row, source, index)


def made_by(objective, row, seed=0):
    return objective.examples(BYTES)(row, np.random.default_rng(seed))


def test_proportions_are_exact_on_every_stretch():
    build = DECODER.examples(BYTES)
    for source in (0, 3):
        parts = [build.part_of(source, index) for index in range(400)]
        for n in range(1, 401):
            for part, share in enumerate((0.5, 0.25, 0.25)):
                assert abs(parts[:n].count(part) - n * share) <= 1
        assert [parts[n] for n in (7, 300)] == [build.part_of(source, n) for n in (7, 300)]


def test_an_example_is_its_parts_own_padded():
    shapes = set()
    for index in range(8):
        row = row_of(0, index)
        mixed = made_by(DECODER, row)
        own = made_by(DECODER.objectives[int(mixed["group"])], row)
        shapes.add(tuple((k, v.shape, v.dtype) for k, v in sorted(mixed.items())))
        for key, value in own.items():
            if key != "bytes":
                assert (mixed[key][: len(value)] == value).all() and not mixed[key][len(value) :].any()
        assert mixed["bytes"] == own["bytes"][own["weights"] > 0].sum()
        if mixed["group"] == 0:
            assert not mixed["prefix"].any(), "a causal row has no prefix"
    assert len(shapes) == 1
    padding = made_by(DECODER, addressed({k: 0 * v for k, v in row_of(0, 0).items()}, 0, 0))
    assert not padding["weights"].any() and not padding["segments"].any()


def test_targets_of_last_tokens_are_aligned():
    """Of a part that has fewer targets than tokens, they stay those of its last tokens."""
    objective = Mixed(((1.0, "few", Permutation(0.25)), (1.0, "many", Permutation(0.5))))
    for index in range(2):
        row = row_of(0, index)
        mixed, own = made_by(objective, row), made_by(objective.objectives[index], row)
        short = len(own["tokens"]) - len(own["targets"])
        assert not mixed["weights"][:short].any()
        assert (mixed["targets"][short : len(own["tokens"])] == own["targets"]).all()


def test_a_source_names_its_part():
    build = dataclasses.replace(DECODER.examples(BYTES), tied=(-1, DECODER.number_of("spans", "b.txt")))
    assert {build.part_of(1, n) for n in range(20)} == {1} and {build.part_of(0, n) for n in range(20)} == {0, 1, 2}
    with pytest.raises(UserError, match=r"b.txt names the objective 'span', which is no part .*did you mean 'spans'"):
        DECODER.number_of("span", "b.txt")


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (((-1.0, "a", NextToken()),), r"rate of the part 'a' of a mixture=-1.0 must be at least 0"),
        (((float("nan"), "a", NextToken()),), r"rate of the part 'a' .* must be a finite number"),
        (((0.0, "a", NextToken()),), r"no part with a rate above 0"),
        (((1.0, "a", NextToken()), (1.0, "a", PREFIX)), r"are named 'a', 'a': give each its own name"),
        (
            ((1.0, "a", MultiToken()),),
            r"part 'a' of a mixture is MultiToken: only objectives whose loss is a TokenLoss",
        ),
        (((1.0, "a", NextToken()), (1.0, "b", NextToken(TokenLoss(z_loss=1.0)))), r"'a' and 'b' .* different knobs"),
        (((1.0, "a", NextToken()), (1.0, "b", MaskedTokens())), r"'a' and 'b' .* heads or masks differ"),
        (((1.0, "a", MaskedTokens()), (1.0, "b", MaskedTokens(copies=2))), r"'a' repeats its examples after 0 epochs"),
        (((1.0, "a", NextToken()), (1.0, "b", Permutation())), r"'b' .* rows 'order', without which tokens of 'a'"),
    ],
)
def test_mixtures_that_cannot_be(parts, message):
    with pytest.raises(UserError, match=message):
        Mixed(parts)


def test_shapes_need_no_data():
    objective = Mixed(
        ((1.0, "spans", MixtureOfDenoisers.of(LENGTH)), (1.0, "short", MixtureOfDenoisers.of(LENGTH, SPANS)))
    )
    real = made_by(objective, row_of(0, 1))
    abstract = objective.examples(None)(row_of(0, 1), np.random.default_rng(0))
    assert {k: v.shape for k, v in real.items()} == {k: v.shape for k, v in abstract.items()}


def test_a_run_reports_each_part_and_each_source(tmp_path, monkeypatch):
    tiny.use_one_device(monkeypatch)
    c = tiny.config(tmp_path)
    other = tmp_path / "other.txt"
    other.write_text("".join(f"{n} bottles of beer\n" for n in range(300)))
    objective = Mixed(((3.0, "causal", NextToken()), (1.0, "half", NextToken()), (0.0, "own", NextToken())))
    c.objective = as_config(NextToken())
    with c.unlocked():
        c.objective = to_dict(objective)
    c.data.mixture = ((c.data.source, 3.0), (str(other), 1.0, "", "own"))
    c.train.steps = 2
    loop.train(c, tmp_path / "run", Console(file=io.StringIO()))
    records = read_metrics(tmp_path / "run/metrics.jsonl")
    (first, _), (held_out,) = [r for r in records if "loss" in r], [r for r in records if "validation_loss" in r]
    for names in (("causal", "half", "own"), ("corpus.txt", "other.txt")):
        tokens = [first[f"tokens/{name}"] for name in names]
        assert sum(tokens) == first["tokens"]
        total = sum(n * first[f"loss/{name}"] for n, name in zip(tokens, names, strict=True))
        assert total / first["tokens"] == pytest.approx(first["loss"], rel=1e-5)
    assert first["tokens/own"] == first["tokens/other.txt"] and first["loss/own"] == first["loss/other.txt"]
    assert held_out["validation_loss/own"] == pytest.approx(held_out["validation_loss_of"][str(other)], rel=1e-5)
    assert (tmp_path / "run/loss.png").stat().st_size > 1000


def test_a_single_part_has_the_loss_of_its_objective():
    model = tiny.dense()
    params = initialize(model.spec(), jax.random.key(0))
    batch = tiny.batch()
    alone = NextToken()(model, params, batch, Ctx())
    mixed = Mixed(((1.0, "a", NextToken()),))(model, params, batch | {"group": np.zeros(tiny.ROWS, np.int32)}, Ctx())
    assert mixed.total == alone.total and mixed.metrics["tokens/a"].total == alone.metrics["tokens"].total
    np.testing.assert_allclose(mixed.metrics["loss/a"].total, alone.metrics["loss"].total, rtol=1e-6)


def test_parts_that_predict_at_some_positions_share_a_batch_with_others():
    parts = (MaskedTokens(0.2), MaskedTokens(0.4, predictions=9))
    build = Mixed(tuple((1.0, name, part) for name, part in zip("ab", parts, strict=True))).examples(BYTES)
    for index in range(8):
        row = row_of(0, index)
        made, alone = build(row, np.random.default_rng(3)), parts[build.part_of(0, index)]
        whole = dataclasses.replace(alone, predictions=0).examples(BYTES)(row, np.random.default_rng(3))
        np.testing.assert_array_equal(made["targets"].shape, whole["targets"].shape)
        asked = made["weights"] > 0
        assert "predicted" not in made and 0 < asked.sum() <= whole["weights"].sum()
        np.testing.assert_array_equal(made["targets"][asked], whole["targets"][asked])
        np.testing.assert_array_equal(made["tokens"][~asked], whole["targets"][~asked])
