"""Whether intervals hold what they promise: 90 % ones the truth in 85 to 95 of a hundred data sets."""

import numpy as np
import pytest
from scipy import special

from scaling import engine
from scaling.laws import Chinchilla

LAW = Chinchilla(1.7, 400.0, 2000.0, 0.34, 0.37)
TARGET = 1e24  # FLOPs, a hundred times those of the largest run
REPLICATIONS = 200


def grid():
    """Six sizes times seven lengths."""
    return tuple(v.ravel() for v in np.meshgrid(np.geomspace(1e8, 1e10, 6), np.geomspace(1e9, 1e12, 7)))


def profiles():
    """Four isoFLOP profiles of six sizes: half as many runs, and some that pull the fit hard."""
    C = np.repeat([1e19, 1e20, 1e21, 1e22], 6)
    N = LAW.optimal(C)[0] * np.exp(np.tile(np.linspace(-1.5, 1.5, 6), 4))
    return N, C / (6 * N)


@pytest.mark.slow
@pytest.mark.parametrize(("design", "noise", "delta"), [(grid, 0.005, 1e-3), (profiles, 0.003, np.inf)])
def test_intervals_cover(design, noise, delta):
    """Of the decisions by resamples, of the exponent by its profile, and of a run a hundred times as large."""
    rng = np.random.default_rng(0)
    N, D = design()
    size = [float(v) for v in LAW.optimal(TARGET)]
    truth, held = LAW.decisions(TARGET), []
    for i in range(REPLICATIONS):
        loss = LAW.predict(N, D) * np.exp(noise * rng.standard_normal(len(N)))
        fitted = engine.fit(Chinchilla, (N, D), loss, delta=delta, starts=8, seed=i)
        resampled = engine.bootstrap((N, D), loss, fitted, resamples=100, seed=i)
        known = engine.Estimate(fitted.law, resampled, engine.scatter(fitted, (N, D), loss), {})
        said = known.predict(*size)
        inside = special.ndtr(np.log(np.array([said.run_low, said.run_high]) / LAW.predict(*size)) / noise)
        profile = engine.profile(fitted, (N, D), loss, lambda law: {"a": law.exponents[0]})["a"]
        held.append(
            {name: v.low <= truth[name] <= v.high for name, v in known.decisions(TARGET).items()}
            | {"run": inside[1] - inside[0], "profile": profile.low <= truth["a"] <= profile.high}
        )
    share = {name: np.mean([row[name] for row in held]) for name in held[0]}
    assert all(0.85 <= v <= 0.95 for v in share.values()), share
