"""Coordinate checks: under muP activations of every width change alike, and otherwise they do not."""

import numpy as np
import pytest

from lm.core.errors import UserError
from scaling.coordinates import at_size, changes, sizes_of, slopes
from scaling.plots import save
from scaling.plots.coordinates import coordinates
from tests.train import tiny

SIZES = sizes_of("d_model=16,heads=2; d_model=64,heads=8")


@pytest.mark.slow
def test_changes_of_two_widths(tmp_path):
    config = tiny.config(tmp_path)
    config.optimizer.update(learning_rate=2e-2, weight_decay=0.0, eps=1e-10)
    config.train.steps = 3
    found = {
        name: changes([at_size(config, size, base) for size in SIZES], 3)
        for name, base in {"standard": {}, "muP": SIZES[0]}.items()
    }
    assert set(found["muP"]) == {"0/0/attention", "0/0/mlp", "states", "logits"}
    assert found["muP"]["logits"].shape == (2, 3)
    for name in ("0/0/mlp", "logits"):  # of one base
        np.testing.assert_allclose(found["muP"][name][0], found["standard"][name][0], rtol=1e-4)
    powers = {name: slopes([16, 64], of) for name, of in found.items()}
    # At these widths attention is far from its limit.
    assert all(abs(p) < (0.5 if "attention" in name else 0.2) for name, p in powers["muP"].items()), powers
    assert all(powers["standard"][name] > 0.6 for name in ("logits", "0/0/mlp", "0/0/attention")), powers
    save(coordinates([16, 64], found, "d_model"), tmp_path / "coordinates.png")
    assert (tmp_path / "coordinates.png").stat().st_size > 10_000


@pytest.mark.parametrize("text", ["d_model=16", "d_model=16; heads=2", "16; 32", ""])
def test_sizes_that_are_none(text):
    with pytest.raises(UserError, match=r"--sizes=.* must give the same knobs for two sizes or more"):
        sizes_of(text)


def test_a_knob_that_the_model_has_not(tmp_path):
    with pytest.raises(UserError, match=r"--sizes: config\.model has no knob 'd_modl'; did you mean 'd_model'"):
        at_size(tiny.config(tmp_path), {"d_modl": 16}, {})
