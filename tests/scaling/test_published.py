"""Published fits, from the runs that they were fitted to: to the digits that were published, or found to be right."""

from dataclasses import astuple, replace
from pathlib import Path

import numpy as np
import pytest

from lm.core.errors import UserError
from scaling import approach2, engine, published, tuning
from scaling.laws import (
    LAWS,
    MUENNIGHOFF,
    BatchOfData,
    Chinchilla,
    Compute,
    OverTraining,
    RateOfSizeAndData,
    Repeated,
    Routed,
    SizePower,
)
from scaling.published import DATASETS
from scaling.records import read_runs

DATA = Path(__file__).parents[3] / "shared" / "data" / "scaling"
FILES = {  # as this machine has them, by the first word of a set's name
    "epoch": "epoch_chinchilla.csv",
    "llama3": "llama3_isoflop.csv",
    "marin": "marin_isoflop.csv",
    "gadre": "gadre_overtrain.csv",
    "clark": "clark_routed_final.csv",
    "datablations": "datablations_c4.csv",
    "misfitting": "misfitting_runs.csv",
    "steplaw": "steplaw_dense.csv",
}


def path_of(name):
    path = DATA / FILES[name.split("-")[0]]
    if not path.exists():
        pytest.skip(f"{path.name} is not part of the project")
    return path


def runs_of(name, **how):
    return DATASETS[name].read(path_of(name), **how)


def inputs_of(law, runs):
    return [runs[column] for column in law.reads]


@pytest.mark.parametrize(
    ("name", "rows", "whole"),
    [
        ("epoch-chinchilla", 240, 240),
        ("epoch-isoflop", 129, 129),
        ("llama3", 133, 133),
        ("marin-comma", 85, None),
        ("gadre-c4", 5, None),
        ("clark-dense", 8, 8),
        ("clark-s-base", 61, 61),
        ("clark-hash", 59, 59),
        ("datablations", 182, 182),
        ("misfitting", 81, 81),
        ("steplaw", 1911, 1911),
    ],
)
def test_the_rows_of_a_published_fit(name, rows, whole):
    runs = runs_of(name)
    assert len(runs["loss"]) == rows
    if whole:
        assert len(runs_of(name, whole=True)["loss"]) == whole
    else:
        assert len(runs_of(name, whole=True)["loss"]) > rows


def test_every_set_says_how_to_fit_it(tmp_path, capsys):
    published.main(["scaling.published"])
    listed = capsys.readouterr().out
    for name, data in DATASETS.items():
        assert name in listed and data.origin.licence and data.fit
        if "--law=" in data.fit:
            assert data.fit.split("--law=")[1].split()[0] in LAWS
        published.main(["scaling.published", name])
        assert data.origin.file in capsys.readouterr().out
    out = tmp_path / "runs.csv"
    published.main(["scaling.published", "gadre-c4", f"--file={path_of('gadre-c4')}", f"--out={out}"])
    assert f"wrote 5 runs; next: python -m scaling.fit --runs={out} --law=over-training" in capsys.readouterr().out
    assert len(read_runs(out)["loss"]) == 5
    for wrong in (["gadre-c5"], ["gadre-c4", "--file=x.csv"], ["gadre-c4", "llama3"]):
        with pytest.raises(SystemExit):
            published.main(["scaling.published", *wrong])


# ---------------------------------------------------------------------------------------------------------------------
# Gadre et al. 2024: five runs, four constants, and what they say of runs of 300 times the compute.


@pytest.mark.parametrize(
    ("name", "constants", "multiple", "errors"),
    [
        ("gadre-c4", (1.508, 141.3, 189.5, 0.1212), 4, (0.0150, 0.0430)),
        ("gadre-redpajama", (1.837, 212.2, 366.7, 0.1364), 32, (0.007103, 0.007320)),
        ("gadre-refinedweb", (1.734, 157.1, 246.2, 0.1272), 16, (0.00005, 0.0162)),
    ],
)
def test_over_training(name, constants, multiple, errors):
    runs, whole = runs_of(name), runs_of(name, whole=True)
    found = engine.fit(OverTraining, inputs_of(OverTraining, runs), runs["loss"])
    assert astuple(found.law) == pytest.approx(constants, rel=5e-4)
    far = np.abs(found.law.predict(whole["params"], whole["tokens"]) / whole["loss"] - 1)
    billion = (whole["params"] > 1e9) & (whole["params"] < 2e9) & (whole["chinchilla_multiplier"] == multiple)
    seven = (whole["params"] > 6e9) & (whole["chinchilla_multiplier"] == 1)
    assert (far[billion].item(), far[seven].item()) == pytest.approx(errors, abs=5e-5)


# ---------------------------------------------------------------------------------------------------------------------
# Clark et al. 2022


@pytest.mark.parametrize(
    ("name", "constants", "rmse"),
    [
        ("clark-s-base", (-0.0838, -0.1234, 0.0104, 1.1216), 0.00320),
        ("clark-hash", (-0.0887, -0.1464, 0.0134, 1.1730), 0.00298),
    ],
)
def test_routed_models(name, constants, rmse):
    runs = runs_of(name)
    inputs = inputs_of(Routed, runs)
    law = engine.fit(Routed, inputs, runs["loss"]).law
    a, b, c, d = constants
    assert (law.a, law.c) == pytest.approx((a, c), abs=0.003)
    assert (law.b, law.d) == pytest.approx((b, d), abs=0.02)
    error = engine.errors(law, inputs, runs["loss"]) / np.log(10)
    assert np.sqrt(np.mean(error**2)) == pytest.approx(rmse, abs=0.0002)


def test_dense_models_beside_routed_ones():
    runs = runs_of("clark-dense")
    law = engine.fit(SizePower, inputs_of(SizePower, runs), runs["loss"], delta=np.inf).law
    assert law.exponent == pytest.approx(0.0788, abs=0.0005)
    assert law.scale == pytest.approx(3.42e13, rel=0.01)


# ---------------------------------------------------------------------------------------------------------------------
# Muennighoff et al. 2023


def test_repeated_data():
    runs = runs_of("datablations")
    inputs = inputs_of(Repeated, runs)
    assert engine.objective(MUENNIGHOFF, inputs, runs["loss"]) == pytest.approx(0.01582594, abs=1e-8)
    held = {name: getattr(MUENNIGHOFF, name) for name in ("E", "A", "B", "alpha", "beta")}
    found = engine.fit(Repeated, inputs, runs["loss"], fixed=held, starts=32)
    assert found.objective == pytest.approx(0.01580466, abs=1e-8)
    assert pytest.approx((95.4, 1.706), rel=0.01) == (found.law.RD, found.law.RN)
    # No decay, as though data could be repeated for ever: worse by far.
    explained = [_explained(law, inputs, runs["loss"]) for law in (MUENNIGHOFF, replace(MUENNIGHOFF, RD=1e9, RN=1e9))]
    assert explained == pytest.approx([0.772, 0.445], abs=0.001)
    # The published pair lies inside both profiles. Alone, no RD is too large: data might be repeated for ever.
    profiles = engine.profile(found, inputs, runs["loss"], lambda law: {"RD": law.RD, "RN": law.RN})
    RD, RN = profiles["RD"], profiles["RN"]
    assert RD.low < MUENNIGHOFF.RD and np.isnan(RD.high) and "rises by 0.4 of what rejects" in RD.why[1]
    assert RN.low < MUENNIGHOFF.RN < RN.high and RN.why == ("", "")
    assert (RD.low, RN.low, RN.high) == pytest.approx((5.6, 0.40, 18), rel=0.05)


def _explained(law, inputs, loss):
    return 1 - np.sum((law.predict(*inputs) - loss) ** 2) / np.sum((loss - loss.mean()) ** 2)


# ---------------------------------------------------------------------------------------------------------------------
# Step Law


def test_batches_and_rates_by_three_estimators():
    """The exponent of the batch is stable, those of the rate depend on what is called the best."""
    runs = runs_of("steplaw")
    seen = {
        "surface": (-0.633, 0.213, 0.588),
        "lowest": (-0.823, 0.288, 0.498),
        "near": (-0.766, 0.197, 0.613),
    }
    for how, said in seen.items():
        best = tuning.ESTIMATORS[how](runs)
        rate = engine.fit(RateOfSizeAndData, inputs_of(RateOfSizeAndData, best), best["learning_rate"], starts=8).law
        batch = engine.fit(BatchOfData, inputs_of(BatchOfData, best), best["batch_tokens"], starts=8).law
        assert (rate.a, rate.b, batch.a) == pytest.approx(said, abs=0.001), how
        assert -0.83 <= rate.a <= -0.63 and 0.19 < rate.b < 0.29 and 0.495 < batch.a < 0.67
        if how == "surface":
            assert batch.k == pytest.approx(0.339, abs=0.001)


# ---------------------------------------------------------------------------------------------------------------------
# What the authors did, and what became of it


def test_how_chinchilla_s_constants_came_out_wrong():
    """With all 245 points, and beside the constants that were printed."""
    path = path_of("epoch-chinchilla")
    runs = read_runs(path)
    found = engine.fit(Chinchilla, inputs_of(Chinchilla, runs), runs["loss"])
    assert astuple(found.law)[0] == pytest.approx(1.8913, abs=0.002)
    assert (found.law.alpha, found.law.beta) == pytest.approx((0.3493, 0.4530), abs=0.001)
    assert found.objective == pytest.approx(1.82601e-3, abs=1e-8)
    best = runs_of("epoch-chinchilla")
    found = engine.fit(Chinchilla, inputs_of(Chinchilla, best), best["loss"], delta=1e-4)
    assert found.objective == pytest.approx(1.1177875e-4, abs=1e-11)
    assert (found.law.alpha, found.law.beta) == pytest.approx((0.34741, 0.36538), abs=2e-4)


def test_a_floor_extrapolates_better_than_a_power():
    """Loss against compute of the best run of each of Chinchilla's budgets: fitted up to 6e20, asked at 3e21."""
    runs = runs_of("epoch-isoflop")
    curves = approach2.fit(*(runs[key] for key in ("params", "tokens", "loss", "budget")), keep_edges=True).curves
    C, loss = (np.array([getattr(c, key) for c in curves]) for key in ("budget", "loss_opt"))
    errors = [
        abs(engine.fit(LAWS[name], [C[:-2]], loss[:-2], delta=np.inf).law.predict(C[-1]) / loss[-1] - 1)
        for name in ("compute", "compute-power")
    ]
    assert errors[0] < 0.01 and errors[0] < errors[1]


def test_the_lowest_of_several_rates_is_taken_first():
    """Without that the other learning rates pass for noise, and the law for a better one."""
    runs, every = runs_of("misfitting"), read_runs(path_of("misfitting"))
    assert len(every["loss"]) == 261 and len(runs["loss"]) == 81
    spread = []
    for some in (runs, every):
        found = engine.fit(Chinchilla, inputs_of(Chinchilla, some), some["loss"])
        spread.append(np.median(np.abs(engine.errors(found.law, inputs_of(Chinchilla, some), some["loss"]))))
    assert spread[0] < spread[1]


# ---------------------------------------------------------------------------------------------------------------------
# At other scales than those of the published runs


def test_grids_of_a_laptop():
    """Bytes, thousands of parameters, bits per byte."""
    rng = np.random.default_rng(0)
    cells = [(n, d) for n in (1e4, 3e4, 1e5, 3e5) for d in (1e6, 4e6, 1.6e7)]
    rows = []
    for n, d in cells:
        rate, batch = 30.0 * n**-0.6 * d**0.2, 0.5 * d**0.55
        for i in range(-3, 4):
            for j in range(-3, 4):
                x, y = 0.4 * i + 0.1, 0.5 * j - 0.2
                loss = 0.7 + 40 * n**-0.4 + 200 * d**-0.5
                rows.append((n, d, rate * np.exp(x), batch * np.exp(y), loss * (1 + 0.01 * (x**2 + x * y + y**2))))
    names = ("params", "tokens", "learning_rate", "batch_tokens", "loss")
    runs = dict(zip(names, np.array(rows).T, strict=True))
    best = tuning.surface(runs)
    assert len(best["loss"]) == 12
    law = engine.fit(RateOfSizeAndData, inputs_of(RateOfSizeAndData, best), best["learning_rate"], starts=8).law
    assert astuple(law) == pytest.approx((30.0, -0.6, 0.2), rel=1e-4)
    law = engine.fit(BatchOfData, inputs_of(BatchOfData, best), best["batch_tokens"], starts=8).law
    assert astuple(law) == pytest.approx((0.5, 0.55), rel=1e-4)
    order = rng.permutation(len(rows))
    lowest = tuning.lowest({name: values[order] for name, values in runs.items()})
    assert lowest["loss"] == pytest.approx(tuning.lowest(runs)["loss"]) and len(lowest["loss"]) == 12
    one = {name: values for name, values in runs.items() if name != "batch_tokens"}
    assert set(tuning.surface(one)) == {"params", "tokens", "learning_rate", "loss"}
    with pytest.raises(UserError, match="no cell has a best learning rate and batch inside its grid"):
        tuning.surface(runs | {"loss": 100 - runs["loss"]})
    with pytest.raises(UserError, match="no knob takes three values"):
        tuning.surface({name: runs[name] for name in ("params", "tokens", "loss")})


def test_tuning_as_a_command(tmp_path, capsys):
    best = tmp_path / "best.csv"
    columns = "--columns=learning_rate=lr,loss=smooth_loss"
    tuning.main(["scaling.tuning", f"--runs={path_of('steplaw')}", columns, "--best=lowest", f"--out={best}"])
    assert "wrote 17 rows, of 17 cells" in capsys.readouterr().out
    assert len(read_runs(best)["learning_rate"]) == 17
    with pytest.raises(SystemExit):
        tuning.main(["scaling.tuning", f"--runs={best}"])


LAPTOP = {
    "compute": (Compute(E=0.7, k=900.0, gamma=0.25), [np.geomspace(1e10, 1e14, 9)]),
    "over-training": (
        OverTraining(E=0.7, A=30.0, B=60.0, eta=0.15),
        [v.ravel() for v in np.meshgrid([1e4, 4e4, 1.6e5], [1e6, 4e6, 1.6e7])],
    ),
}


@pytest.mark.parametrize("name", LAPTOP)
def test_laws_of_a_laptop(name):
    law, inputs = LAPTOP[name]
    found = engine.fit(type(law), inputs, law.predict(*inputs), starts=32)
    assert astuple(found.law) == pytest.approx(astuple(law), rel=1e-3)
    assert found.reached >= 16
