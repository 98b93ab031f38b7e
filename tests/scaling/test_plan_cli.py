"""`python -m scaling.plan`, end to end, on the config of experiments/sweep.py."""

import json
import sys

import numpy as np
import pytest

from lm.commands import cli
from scaling import plan
from scaling.cells import read_plan
from scaling.design.forecast import intervals, simulated
from scaling.design.precision import DECISIONS, Noise, Question, deviation
from scaling.laws import EPOCH
from scaling.trunks import flops_of, trunks_of
from tests.tpu.test_compile import needs_libtpu
from tests.tpu.test_compile import run as compile_in_its_own_process

FLOPS = 2e13


def run(*argv):
    cli.run(plan.main, arguments=1, usage=plan.USAGE, flag_values=plan.OWN, argv=["plan", *argv])


@pytest.fixture(scope="module")
def planned(tmp_path_factory):
    """The folder of a plan, and what it printed."""
    out = tmp_path_factory.mktemp("plan") / "new" / "folder"
    run(f"--flops={FLOPS}", "--most_runs=16", f"--out={out}")
    return out


@pytest.fixture(scope="module")
def trunks(planned):
    made = read_plan(planned / "plan.json")
    return trunks_of(made.config, made.cells, (128, 0), sys.maxsize)


def test_what_is_planned_costs_what_it_may(trunks, planned):
    cost = sum(flops_of(trunk.points) for trunk in trunks)
    assert 0.8 * FLOPS < cost <= FLOPS
    expected = json.loads((planned / "plan.json").read_text())["expected"]
    assert expected["designs"]["optimal"]["flops"] == pytest.approx(cost, rel=0.01)
    assert all(design["flops"] <= FLOPS for design in expected["designs"].values())


def test_one_size_is_one_trunk_at_the_rate_of_its_width(trunks):
    assert len({t.cell.d_model for t in trunks}) == len(trunks) >= 3
    assert all(t.cell.learning_rate == pytest.approx(0.128 / t.cell.d_model) for t in trunks)
    assert all(t.points[0].steps >= 100 for t in trunks)


def test_the_optimal_design_is_expected_to_answer_best(planned):
    expected = json.loads((planned / "plan.json").read_text())["expected"]
    widths = {name: np.diff(np.log(d["intervals"]["N_opt"])) for name, d in expected["designs"].items()}
    assert set(widths) == {"optimal", "isoflop", "curves"}
    assert widths["optimal"] < 1.1 * min(widths.values())  # of 200 simulations, which are off by a twentieth
    low, high = expected["designs"]["optimal"]["intervals"]["loss"]
    assert low < expected["decisions"]["loss"] < high
    assert (planned / "plan.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("delta", [1e-3, np.inf])
def test_the_delta_method_agrees_with_simulation(trunks, delta):
    """With little noise; of least squares and of Huber's loss, whose kink is far within the noise."""
    N = np.array([t.size.params for t in trunks for _ in t.points], float)
    D = np.array([p.tokens for t in trunks for p in t.points], float)
    noise = Noise(0.002)
    found = simulated(EPOCH, N, D, N, noise, delta=delta, replications=400)
    spread = intervals(EPOCH, found, 1e14, 68.27)
    for decision in DECISIONS:
        half = np.log(spread[decision].high / spread[decision].low) / 2
        assert half == pytest.approx(deviation(EPOCH, N, D, N, noise, Question(decision, 1e14), delta), rel=0.2)


def test_refine_goes_on_from_records(trunks, tmp_path, capsys):
    rng, lines = np.random.default_rng(0), ["params,tokens,flops,loss,seed"]
    for t in trunks:
        for p in t.points:
            loss = EPOCH.predict(t.size.params, p.tokens) * np.exp(0.003 * rng.standard_normal())
            lines.append(f"{t.size.params},{p.tokens},{p.flops},{loss},4")
    (tmp_path / "runs.csv").write_text("\n".join(lines))
    run("refine", f"--flops={FLOPS}", "--most_runs=10", f"--runs={tmp_path}/runs.csv", f"--out={tmp_path}")
    printed = capsys.readouterr().out
    assert "now" in printed and "and these" in printed
    made = read_plan(tmp_path / "plan.json")
    cost = sum(flops_of(t.points) for t in trunks_of(made.config, made.cells, (128, 0), sys.maxsize))
    assert 0 < cost <= FLOPS and len(made.cells) <= 10
    assert {c.seed for c in made.cells} == {5}  # one that no record has
    now, then = (np.diff(made.expected["designs"][k]["intervals"]["a"])[0] for k in ("now", "and these"))
    assert then < now


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--out=x"], "--flops is missing"),
        (["--flops=1e13"], "--out is missing"),
        (["--flops=1e13", "--out=x", "--rule=deepsek"], "did you mean 'deepseek'?"),
        (["--flops=1e13", "--out=x", "--prior=epohc"], "did you mean 'epoch'?"),
        (["--flops=1e3", "--out=x"], "no size of the ladder"),
        (["--flops=2e11", "--out=x"], "is too little for --design=optimal: give more, or smaller models"),
        (["refin", "--flops=1e13", "--out=x"], "the only one is 'refine'"),
        (["refine", "--flops=1e13", "--out=x"], "--runs is missing"),
        (["refine", "--flops=1e13", "--out=x", "--runs=y", "--law=size"], "says nothing of how to divide compute"),
    ],
)
def test_wrong_input_is_one_line(argv, said, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        run(*argv)
    error = capsys.readouterr().err.strip()
    assert said in error and error.startswith("error: ") and "\n" not in error


LARGE = """
from tpu import topology  # before jax starts
from lm.core.errors import main_errors
from lm.train.config_file import read_config
from scaling.cells import Cell, default
from scaling.design.making import Template, check_fit

template = Template.of(read_config("experiments/sweep.py", default), "width")
cell = Cell(16, 2, 1 << 40, None, 0.01, 1 << 18, 0, 0.99, 0.1)
with main_errors():
    check_fit(template, [cell], "v5e:2x2")
"""


@pytest.mark.slow
@needs_libtpu
def test_a_plan_is_compiled_for_a_pod_and_refused_if_it_does_not_fit(tmp_path):
    command = ["-m", "scaling.plan", "--flops=2e12", "--most_runs=6", f"--out={tmp_path}", "--topology=v5e:2x2"]
    fits = compile_in_its_own_process([sys.executable, *command])
    assert fits.returncode == 0 and "of 16.0 GiB a chip" in fits.stdout
    large = compile_in_its_own_process([sys.executable, "-c", LARGE])  # by its batch: that takes no longer to compile
    assert large.returncode == 2 and "1 of 1 shapes do not fit v5e:2x2" in large.stderr
