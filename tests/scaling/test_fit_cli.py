"""`python -m scaling.fit`, end to end."""

import json

import numpy as np
import pytest

from lm.core.errors import UserError
from scaling import fit
from scaling.fit_file import read_fit
from scaling.laws import EPOCH


@pytest.fixture
def runs(tmp_path):
    """Four isoFLOP profiles of a known law, with budgets under another name, and a run outside them."""
    lines = ["params,tokens,c4,flop_budget"]
    for C in (1e19, 1e20, 1e21, 1e22):
        N = EPOCH.optimal(C)[0] * np.exp(np.linspace(-1, 1, 7))
        lines += [f"{n},{C / (6 * n)},{EPOCH.predict(n, C / (6 * n))},{C}" for n in N]
    lines.append(f"1e9,1e12,{EPOCH.predict(1e9, 1e12)},")
    path = tmp_path / "runs.csv"
    path.write_text("\n".join(lines))
    return f"--runs={path}"


def run(*argv):
    fit.main(["fit", *argv])


def test_parametric(runs, tmp_path, capsys):
    run(
        runs,
        "--columns=loss=c4",
        "--compute=5.76e23",
        "--bootstrap=20",
        "--starts=32",
        f"--out={tmp_path}/deep/er",
    )
    printed = capsys.readouterr().out
    assert "29 runs" in printed and "alpha  0.3478" in printed and "20 resamples" in printed
    found = json.loads((tmp_path / "deep/er/fit.json").read_text())
    N, D = EPOCH.optimal(5.76e23)
    (plan,) = found["optimal"]
    assert plan["a"] == pytest.approx(EPOCH.exponents[0], abs=1e-4)
    assert (plan["N_opt"], plan["D/N"]) == pytest.approx((N, D / N), rel=1e-2)
    low, high = plan["intervals"]["loss"]
    assert low == pytest.approx(float(EPOCH.predict(N, D)), rel=1e-3) == high
    assert (tmp_path / "deep/er/fit.png").read_bytes().startswith(b"\x89PNG")
    assert found["held_out"]["runs"] == 7 and found["held_out"]["error"] < 1e-5
    again = read_fit(tmp_path / "deep/er/fit.json", "fit")
    assert again.decisions(5.76e23)["N_opt"].value == plan["N_opt"]
    (tmp_path / "newer.json").write_text(json.dumps(found | {"format": 1000}))
    with pytest.raises(UserError, match=r"is a fit of a scaling law of format 1000, .*: update"):
        read_fit(tmp_path / "newer.json", "fit")


def test_laws_are_compared_by_the_runs_held_out(runs, tmp_path, capsys):
    run(runs, "--columns=loss=c4,budget=flop_budget", "--law=kaplan,chinchilla", "--bootstrap=20", f"--out={tmp_path}")
    printed = capsys.readouterr().out
    assert "approach 3, chinchilla:" in printed and "held out, the 7 largest runs (1e+22 FLOPs)" in printed
    rows = json.loads((tmp_path / "fit.json").read_text())["compared"]
    assert [row["law"] for row in rows] == ["chinchilla", "kaplan"]
    assert rows[0]["held"]["error"] < 1e-5 < 1e-3 < rows[1]["held"]["error"]


def test_constants_may_be_fixed_and_tied(runs, tmp_path):
    run(
        runs,
        "--columns=loss=c4",
        "--fix=E=1.7",
        "--tie=beta=alpha",
        "--bootstrap=0",
        "--starts=16",
        f"--out={tmp_path}",
    )
    constants = json.loads((tmp_path / "fit.json").read_text())["constants"]
    assert constants["E"] == 1.7 and constants["alpha"] == constants["beta"]


def test_a_law_of_another_column(tmp_path, capsys):
    """Best learning rates of compute: no sizes, no loss."""
    flops = np.geomspace(1e17, 1e20, 8)
    path = tmp_path / "rates.csv"
    path.write_text("\n".join(["flops,lr", *(f"{c},{0.3 * c**-0.125}" for c in flops)]))
    run(f"--runs={path}", "--law=rate-of-compute", "--columns=learning_rate=lr", "--bootstrap=20", f"--out={tmp_path}")
    constants = json.loads((tmp_path / "fit.json").read_text())["constants"]
    assert min(constants.values()) == pytest.approx(-0.125, abs=1e-6)
    assert "error in log learning_rate" in capsys.readouterr().out


def test_isoflop(runs, tmp_path, capsys):
    run(runs, "--approach=2", "--columns=loss=c4,budget=flop_budget", "--bootstrap=20", f"--out={tmp_path}")
    assert "1 runs have no budget" in capsys.readouterr().out
    found = json.loads((tmp_path / "fit.json").read_text())
    assert found["params"]["exponent"] == pytest.approx(EPOCH.exponents[0], abs=0.01)
    assert [plan["C"] for plan in found["optimal"]] == pytest.approx([1e22, 1e23, 1e24])
    assert (tmp_path / "fit.png").exists()


def test_envelope(tmp_path, capsys):
    N, D = (v.ravel() for v in np.meshgrid(np.geomspace(1e7, 1e10, 20), np.geomspace(1e8, 1e12, 20)))
    path = law_file(tmp_path / "curves.csv", N, D)
    run(path, "--approach=1", "--bootstrap=20", f"--out={tmp_path}")
    assert "approach 1, the envelope of 20 runs with 400 points" in capsys.readouterr().out
    found = json.loads((tmp_path / "fit.json").read_text())
    assert found["params"]["exponent"] == pytest.approx(EPOCH.exponents[0], abs=0.02)
    low, high = found["intervals"]["b"]
    assert low < found["tokens"]["exponent"] < high and (tmp_path / "fit.png").exists()


def test_isoflop_says_its_bias(tmp_path, capsys):
    N = np.concatenate([EPOCH.optimal(C)[0] * np.geomspace(0.1, 10, 9) for C in (1e18, 1e20, 1e22)])
    path = law_file(tmp_path / "wide.csv", N, np.repeat([1e18, 1e20, 1e22], 9) / (6 * N), 1e-3)
    run(path, "--approach=2", "--interpolation=akima", "--bootstrap=20", "--starts=16", f"--out={tmp_path}")
    assert "Akima's curve for each budget" in capsys.readouterr().out
    found = json.loads((tmp_path / "fit.json").read_text())
    of = found["bias"]["a"]
    assert of["corrected"] == pytest.approx(found["params"]["exponent"] - of["of_estimator"])
    assert of["corrected"] == pytest.approx(EPOCH.exponents[0], abs=0.03)


def law_file(path, N, D, noise=0.0):
    loss = EPOCH.predict(N, D) * (1 + noise * np.sin(np.arange(len(N))))
    rows = zip(N, D, loss, np.round(6 * N * D, -15), strict=True)
    path.write_text("\n".join(["params,tokens,loss,budget", *(",".join(map(repr, map(float, r))) for r in rows)]))
    return f"--runs={path}"


def test_narrow_ranges_are_flagged(tmp_path, capsys):
    N, D = (v.ravel() for v in np.meshgrid(np.geomspace(1e9, 1.2e9, 4), np.geomspace(1e10, 1.2e10, 4)))
    with pytest.raises(SystemExit):
        run(law_file(tmp_path / "narrow.csv", N, D), "--bootstrap=0", "--out=")
    assert "params span only 1.2x, from 1e+09 to 1.2e+09" in capsys.readouterr().err
    run(f"--runs={tmp_path}/narrow.csv", "--force", "--bootstrap=0", "--starts=16", f"--out={tmp_path}")
    printed = capsys.readouterr().out
    assert "params span only 1.2x" in printed and "tokens span only 1.2x" in printed
    assert len(json.loads((tmp_path / "fit.json").read_text())["notes"]) >= 2
    N = np.geomspace(1e7, 1e10, 12)
    D = 20 * N * np.tile([0.8, 1.25], 6)
    run(law_file(tmp_path / "near.csv", N, D, 1e-3), "--bootstrap=0", "--starts=16", "--out=")
    assert "N and D are hardly told apart: all runs lie within a factor of" in capsys.readouterr().out


def test_narrow_profiles_are_flagged(tmp_path, capsys):
    N = np.concatenate([EPOCH.optimal(C)[0] * np.linspace(0.9, 1.1, 5) for C in (1e20, 2e20)])
    D = np.repeat([1e20, 2e20], 5) / (6 * N)
    run(law_file(tmp_path / "narrow.csv", N, D), "--approach=2", "--bootstrap=0", "--out=")
    printed = capsys.readouterr().out
    assert "budgets span only 2x" in printed and "budget 1e+20 (1.22x), 2e+20 (1.22x)" in printed


def test_no_interval_where_runs_fix_the_parabola(tmp_path, capsys):
    N = np.concatenate([EPOCH.optimal(C)[0] * np.array([0.5, 1.1, 2]) for C in (1e20, 1e21)])
    path = law_file(tmp_path / "runs.csv", N, np.repeat([1e20, 1e21], 3) / (6 * N))
    run(path, "--approach=2", f"--out={tmp_path}")
    printed = capsys.readouterr().out
    assert "no intervals: three runs fix a parabola" in printed and "..." not in printed
    assert json.loads((tmp_path / "fit.json").read_text())["intervals"] == {}
    run(path, "--starts=16", "--out=")
    assert "no intervals: without any one of its runs" in capsys.readouterr().out


def test_nothing_is_written_without_out(runs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run(runs, "--columns=loss=c4", "--bootstrap=0", "--starts=16", "--out=")
    assert [p.name for p in tmp_path.iterdir()] == ["runs.csv"]


def test_help_teaches(capsys):
    run("--help")
    printed = capsys.readouterr().out
    assert "--delta" in printed and "python -m scaling.fit --runs=RUNS.csv --approach=2" in printed


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "no column 'loss'"),
        (["--columns=loss"], "write OURS=THEIRS"),
        (["--columns=loss=c5"], "did you mean 'c4'"),
        (["--columns=loss=c4", "--approach=2"], "did you mean 'flop_budget'"),
        (["--columns=loss=c4", "--compute=1e21,lots"], "--compute=lots"),
        (["--columns=loss=c4", "--where=params=1"], "keeps no run"),
        (["--columns=loss=c4", "--bootstrap=1"], "give 0, or 10 or more"),
        (["--columns=loss=c4", "--run=name"], "--run=name"),
        (["--aproach=2"], "approach"),
        (["--approach=4"], "should be one of"),
        (["--columns=loss=c4", "--approach=1"], "no run has two points"),
        (["another.csv"], "give the table of runs as --runs=FILE, not as another.csv"),
        (["--columns=loss=c4", "--law=chinchila"], "did you mean 'chinchilla'"),
        (["--columns=loss=c4", "--law=repeated"], "no column 'unique_tokens'"),
        (["--columns=loss=c4", "--fix=E=low"], "--fix=E=low: write CONSTANT=VALUE"),
        (["--columns=loss=c4", "--fix=F=1"], "has no constant 'F'"),
        (["--columns=loss=c4", "--fix=E=-1"], "E cannot be fixed at -1: give a positive number"),
        (["--columns=loss=c4", "--tie=alpha"], "--tie=alpha: write CONSTANT=OTHER"),
        (["--columns=loss=c4", "--tie=A=alpha"], "A cannot be tied to alpha"),
    ],
)
def test_wrong_input_is_one_line_and_status_2(runs, argv, message, capsys):
    with pytest.raises(SystemExit) as stopped:
        run(runs, *argv)
    assert stopped.value.code == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ") and err.count("\n") == 1 and message in err
