"""What a run has learned by heart: counted by hand on small arrays, and measured on a run that reads one page again and
again."""

import json
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lm.core.component import to_dict
from lm.core.errors import UserError
from lm.objectives.causal import PrefixNextToken
from lm.train.loop import train
from scaling.dynamics import emergence as leaps
from scaling.dynamics.measure import Asked, measure
from scaling.dynamics.measures import (
    Predicted,
    by_duplicates,
    by_frequency,
    by_position,
    exact_match,
    occurrences,
    reproduced,
)
from scaling.dynamics.noise import noise_scale
from scaling.plots import save
from scaling.plots.dynamics import by_octaves, chosen, dynamics
from scaling.plots.emergence import emergence
from tests.train import tiny


def made(right: list[list[int]], counted: list[list[int]] | None = None) -> Predicted:
    hit = np.array(right, bool)
    tokens = np.arange(hit.size).reshape(hit.shape) % 7
    return Predicted(
        tokens,
        tokens + 1,
        np.where(hit, 0.5, 2.0),
        hit,
        np.ones_like(hit) if counted is None else np.array(counted, bool),
    )


def test_a_window_is_reproduced_if_each_of_its_tokens_is_the_likeliest():
    of = made([[0, 1, 1, 1, 0], [1, 1, 0, 1, 1], [1, 1, 1, 1, 1]], [[1] * 5, [1] * 5, [1, 1, 0, 1, 1]])
    hits, rows = reproduced(of, 2, 3)
    assert hits.tolist() == [True, False] and rows.tolist() == [0, 1]  # a document ends in the third row
    assert reproduced(of, 1, 1)[0].tolist() == [False, True, True]
    assert reproduced(of, 3, 4)[1].size == 0  # longer than a row


@given(st.lists(st.integers(0, 2), min_size=8, max_size=60), st.integers(1, 8), st.integers(0, 50))
def test_occurrences_are_counted_as_by_hand(text, length, at):
    at = min(at, len(text) - length)
    window = text[at : at + length]
    by_hand = sum(text[i : i + length] == window for i in range(len(text) - length + 1))
    assert occurrences(np.array(text), np.array([window, [9] * length])).tolist() == [by_hand, 0]


def test_bins_positions_and_matches():
    rates = by_duplicates(np.array([1, 0, 1, 1]), np.array([0, 1, 3, 2]))
    assert {n: (rate.share, rate.windows) for n, rate in rates.items()} == {0: (1.0, 1), 1: (0.0, 1), 2: (1.0, 2)}
    of = made([[1, 0, 1, 1]], [[1, 1, 1, 0]])
    np.testing.assert_array_equal(by_position(of), [0.5, 2.0, 0.5, np.nan])
    counts = np.array([0, 9, 9, 1, 0, 0, 0, 0])  # of the targets 1, 2, 3
    assert by_frequency(of, counts) == {1: (0.5, pytest.approx(1 / 3)), 8: (1.25, pytest.approx(2 / 3))}
    assert exact_match(of, (1, 2, 8)) == {1: pytest.approx(2 / 3), 2: 0.0}


def test_the_noise_scale_of_known_gradients():
    """Gradients are g + e / sqrt(tokens), e of unit covariance in d dimensions: the noise scale is d / |g|^2. Both
    parts are unbiased, and the error is what the estimates scatter by."""
    rng, d, n, tokens = np.random.default_rng(0), 200, 8, 16.0
    g = np.full(d, 0.1)
    found = []
    for _ in range(300):
        each = g + rng.normal(size=(n, d)) / tokens**0.5
        found.append(noise_scale((each**2).sum(1), each @ each.sum(0), tokens))
    covariance, signal, scale, error = np.array([[x.covariance, x.signal, x.tokens, x.error] for x in found]).T
    assert covariance.mean() == pytest.approx(d, rel=0.01) and signal.mean() == pytest.approx(g @ g, rel=0.02)
    assert np.median(scale) == pytest.approx(d / (g @ g), rel=0.1)
    assert np.median(error) == pytest.approx(scale.std(), rel=0.2)
    nothing = noise_scale(np.ones(4), np.ones(4), tokens)  # orthogonal ones: no gradient shows
    assert np.isnan(nothing.tokens) and nothing.signal == 0
    with pytest.raises(UserError, match="2 batches tell of no noise"):
        noise_scale(np.ones(2), np.ones(2), tokens)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_rising_values_never_fall_and_keep_their_mean(values):
    up = leaps.rising(np.array(values))
    assert np.all(np.diff(up) >= 0) and up.mean() == pytest.approx(np.mean(values), abs=1e-9)
    if sorted(values) == values:
        np.testing.assert_array_equal(up, values)


def leaping(accuracy: np.ndarray) -> dict[str, np.ndarray]:
    """Runs whose accuracy of one token rises evenly with log FLOPs, and two that less compute beats."""
    flops = 1e12 * 10.0 ** np.arange(len(accuracy))
    runs = {"flops": flops, "loss": 4 - 2 * accuracy, "accuracy": accuracy}
    return {name: np.append(x, [x[0], x[0]] if name != "flops" else x[-1] * np.ones(2)) for name, x in runs.items()}


def test_a_power_leaps_where_what_is_beneath_it_rises_evenly(tmp_path):
    runs, names = leaping(np.linspace(0.2, 0.9, 8)), ["accuracy", "accuracy^16"]
    assert leaps.frontier(runs["flops"], runs["loss"]).tolist() == list(range(8))
    found = leaps.described(runs, names, 0.5)
    assert found["accuracy"].flops[0] == pytest.approx(1e15) and found["accuracy"].loss[0] == pytest.approx(3.0)
    assert np.isnan(found["accuracy^16"].flops[0])  # 0.9^16 = 0.19
    assert found["accuracy"].share == pytest.approx(0.8) and found["loss"].share == pytest.approx(0.8)
    assert found["accuracy^16"].share < 0.3
    assert found["accuracy"].score == pytest.approx(7) and found["accuracy^16"].score > 100
    assert found["loss"].score == pytest.approx(7)
    told = leaps.lines(found, 0.5)
    assert told[0].startswith("accuracy: passes 0.5 at a loss of 3 [") and "never passes 0.5" in told[1]
    save(emergence(runs, names, found, 0.5), tmp_path / "emergence.png")
    assert (tmp_path / "emergence.png").stat().st_size > 20_000


def test_runs_whose_steps_nearly_meet_a_budget_share_it():
    flops = np.array([1e12, 1.0005e12, 1.9995e12, 2e12, 2.1e12])
    assert leaps.frontier(flops, np.array([2.3, 1.8, 1.7, 1.6, 1.5])).tolist() == [1, 3, 4]
    assert leaps.frontier(flops, np.array([1.8, 1.8, 1.7, 1.7, 1.7])).tolist() == [0, 2]  # a tie: the cheapest


def test_runs_without_a_rise_are_refused():
    runs = leaping(np.array([0.2, 0.3]))
    with pytest.raises(UserError, match="2 runs are better than all with less compute"):
        leaps.described(runs, ["accuracy"], 0.5)
    for name, message in (
        ("acuracy", r"no column 'acuracy'.* 'accuracy'"),
        ("loss", "must hold a share between 0 and 1"),
    ):
        with pytest.raises(UserError, match=message):
            leaps.metric_of(runs, name)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Ten words, read hundreds of times: a model of two layers knows them."""
    folder = tmp_path_factory.mktemp("learned")
    (folder / "corpus.txt").write_text("mast sail keel oar tide hull wind rope deck port\n" * 60)
    config = tiny.config(folder)
    config.optimizer.learning_rate = 1e-2
    config.train.steps = 200
    config.log.update(checkpoint_every=100, keep=5, every=100)
    train(config, folder / "run")
    return folder / "run"


@pytest.mark.slow
def test_a_run_that_reads_one_page_knows_it_by_heart(run, tmp_path):
    records = [{"run": "run", **r} for r in measure(run, [100, 200], Asked(32, (2, 6), 6, noise=4))]
    early, late = records
    assert late["memorised"]["training"][6]["share"] > max(early["memorised"]["training"][6]["share"], 0.3)
    assert late["loss"]["training"] < early["loss"]["training"]
    assert max(late["by_duplicates"]["training"]) >= 32  # every window stands there as often as its line
    match = late["exact_match"]
    assert 1 >= match[1] >= match[2] >= match[4] >= match[8]
    assert late["tokens"] == 200 * tiny.ROWS * tiny.LENGTH and late["flops"] == 2 * early["flops"]
    assert late["noise_scale"]["tokens"] > 0 and late["noise_scale"]["batches"] == 4
    save(dynamics(records), tmp_path / "dynamics.png")
    assert (tmp_path / "dynamics.png").stat().st_size > 20_000


def test_what_is_drawn():
    x, means = by_octaves(np.array([1.0, 2.0, np.nan, 4.0, 6.0]))
    np.testing.assert_allclose(x, [1, 2, np.sqrt(20)])
    assert means.tolist() == [1.0, 2.0, 5.0]
    records = [{"run": "a", "step": step} for step in range(20)]
    assert [r["step"] for r in chosen(records)] == [0, 5, 10, 14, 19]
    assert chosen([*records, {"run": "b", "step": 3}]) == [records[-1], {"run": "b", "step": 3}]


@pytest.mark.slow
def test_the_command_line(run, tmp_path):
    command = [sys.executable, "-m", "scaling.dynamics", f"--checkpoint={run}", f"--out={tmp_path}"]
    bad = subprocess.run(command, capture_output=True, text=True, cwd=tiny.ROOT, check=False)
    assert bad.returncode == 2 and "ask for 80 tokens, more than the 16 of a row" in bad.stderr
    command += ["--prefixes=4,8", "--continuation=4", "--rows=16"]
    subprocess.run(command, check=True, capture_output=True, cwd=tiny.ROOT)
    assert [r["step"] for r in json.loads((tmp_path / "dynamics.json").read_text())] == [100, 200]


@pytest.mark.slow
def test_a_run_of_another_objective_is_refused(run, tmp_path):
    config = json.loads((run / "config.json").read_text())
    config["objective"] = to_dict(PrefixNextToken())
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=r"was trained with PrefixNextToken: prefixes are reproduced by"):
        next(measure(tmp_path, [1], Asked()))
    (tmp_path / "nothing").mkdir()
    with pytest.raises(UserError, match=r"the folder has no config\.json"):
        next(measure(tmp_path / "nothing", [1], Asked()))
