"""`python -m scaling.predict`, from a fit to a run that trains."""

import io
import json
import re

import numpy as np
import pytest
from rich.console import Console

from lm.commands import cli
from lm.train.config_file import read_config
from lm.train.loop import train
from scaling import engine, predict
from scaling.laws import EPOCH, HOFFMANN, Chinchilla, cheapest


def run(*argv):
    cli.run(predict.main, usage=predict.USAGE, flag_values=predict.OWN, argv=["predict", *argv])


@pytest.fixture(scope="module")
def fit(tmp_path_factory):
    """A fit.json of `EPOCH` with laws around it and runs that scatter by half a percent."""
    rng = np.random.default_rng(0)
    near = {k: v * np.exp(0.01 * rng.standard_normal(50)) for k, v in EPOCH.constants().items()}
    ranges = {"params": (1e7, 1e9), "tokens": (1e8, 1e11), "flops": (6e16, 2e21)}
    known = engine.Estimate(EPOCH, Chinchilla(**near), np.sort(0.005 * rng.standard_normal(60)), ranges)
    path = tmp_path_factory.mktemp("fit") / "fit.json"
    path.write_text(json.dumps(engine.to_json(known, "chinchilla")))
    return path


def numbers(line):
    return [float(v) for v in re.findall(r"[\d.]+(?:e[+-]\d+)?", line)]


def lines(printed, name):
    return [numbers(line) for line in printed.splitlines() if line.strip().startswith(name)]


def test_the_best_size_with_both_intervals(fit, capsys):
    run(f"--fit={fit}", "--flops=1e22,1e26")
    printed = capsys.readouterr().out
    for flops, (n, low, high) in zip((1e22, 1e26), lines(printed, "N_opt"), strict=True):
        assert n == pytest.approx(EPOCH.optimal(flops)[0], rel=1e-3)
        assert low < n < high
    loss, low, high = lines(printed, "loss")[0]
    assert loss == pytest.approx(EPOCH.predict(*EPOCH.optimal(1e22)), abs=1e-4)
    run_low, run_high = next(numbers(line) for line in printed.splitlines() if "one run" in line)
    assert run_low < low < loss < high < run_high
    assert printed.count("mean little") == 1  # of 1e26, far beyond 2e21


def test_a_given_run_and_what_a_better_size_would_give(fit, capsys):
    run(f"--fit={fit}", "--params=1e8", "--tokens=1e12")
    printed = capsys.readouterr().out
    assert lines(printed, "loss")[0][0] == pytest.approx(EPOCH.predict(1e8, 1e12), abs=1e-4)
    best, less = lines(printed, "the best size")[0]
    assert best == pytest.approx(EPOCH.predict(*EPOCH.optimal(6e20)), abs=1e-4)
    assert less == pytest.approx(EPOCH.predict(1e8, 1e12) - best, abs=2e-4)


def test_with_inference_a_smaller_model_reads_more(fit, capsys):
    run(f"--fit={fit}", "--flops=1e22", "--inference_tokens=1e13")
    printed = capsys.readouterr().out
    found = cheapest(EPOCH, EPOCH.predict(*EPOCH.optimal(1e22)), 1e13)
    (n, low, high), (d, *_) = lines(printed, "N ")[0], lines(printed, "D ")[0]
    assert n == pytest.approx(found.params, rel=1e-3) and low < n < high
    assert n < EPOCH.optimal(1e22)[0] and d > EPOCH.optimal(1e22)[1]


def test_the_config_that_it_writes_trains(fit, tmp_path, capsys):
    out, text = tmp_path / "new" / "run.json", tmp_path / "text.txt"
    text.write_text("\n".join(f"{a} times {b} is {a * b}" for a in range(60) for b in range(20)))
    data = (f"--config.data.source={text}", f"--config.data.cache={tmp_path}", "--config.data.batch_size=8")
    run(f"--fit={fit}", "--flops=1e12", f"--out={out}", *data)
    printed = capsys.readouterr().out
    config = read_config(out)
    params = int(re.search(r"([\d,]+) parameters", printed)[1].replace(",", ""))
    tokens = config.train.steps * config.data.batch_size * config.data.length
    assert 6 * params * tokens == pytest.approx(1e12, rel=0.01)
    assert params == pytest.approx(EPOCH.optimal(1e12)[0], rel=0.5)
    assert config.optimizer.learning_rate == pytest.approx(0.128 / config.model.d_model)
    with config.unlocked():
        config.train.steps = config.log.eval_every = 2
    ended = train(config, tmp_path / "run", Console(file=io.StringIO()))
    assert 0 < ended["loss"] < 2 * np.log(config.model.vocab)


def test_inference_tokens_and_given_size_are_checked(fit, capsys):
    wrong = {
        "--flops=1e20": "--fit is missing",
        f"--fit={fit}": "give --flops, or --params and --tokens",
        f"--fit={fit} --flops=-1": "give positive numbers",
        f"--fit={fit} --params=1e8": "--params needs --tokens",
        f"--fit={fit.parent}/no.json --flops=1e20": "python -m scaling.fit writes a fit.json",
        f"--fit={fit} --flops=1e20 --rule=deep --out={fit.parent}/x.json": "--rule=deep is unknown",
    }
    for argv, said in wrong.items():
        with pytest.raises(SystemExit):
            run(*argv.split())
        error = capsys.readouterr().err.strip()
        assert said in error and error.startswith("error: ") and "\n" not in error


def test_a_fit_without_a_frontier_is_refused(tmp_path, capsys):
    path = tmp_path / "fit.json"
    path.write_text(json.dumps({"law": "size", "scatter": []}))
    with pytest.raises(SystemExit):
        run(f"--fit={path}", "--flops=1e20")
    assert "does not say how to divide compute" in capsys.readouterr().err


def test_the_law_is_the_fits_own(fit, tmp_path, capsys):
    saved = json.loads(fit.read_text()) | {"constants": HOFFMANN.constants(), "resampled": None}
    (tmp_path / "fit.json").write_text(json.dumps(saved))
    run(f"--fit={tmp_path}/fit.json", "--flops=1e22")
    printed = capsys.readouterr().out
    assert lines(printed, "N_opt")[0][0] == pytest.approx(HOFFMANN.optimal(1e22)[0], rel=1e-3)
    assert "fit again with --bootstrap" in printed
