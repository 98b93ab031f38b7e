"""Pictures have what they are for: they draw without a window, and their data are the fit's."""

import io

import numpy as np
import pytest

from scaling import plots
from scaling.engine import Profile


def drawn(figure):
    """The size in bytes of the figure as PNG."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=40)
    return len(file.getvalue())


def grid(cells):
    rate, batch = (v.ravel() for v in np.meshgrid(np.geomspace(1e-4, 1e-2, 5), [64, 128, 256, 512]))
    off = np.log(rate / 2e-3) ** 2 + np.log(batch / 128) ** 2
    parts = [(np.full(20, n), np.full(20, d), 3 + 0.01 * off) for n, d in cells]
    params, tokens, loss = (np.concatenate(v) for v in zip(*parts, strict=True))
    count = len(cells)
    return {
        "params": params,
        "tokens": tokens,
        "loss": loss,
        "learning_rate": np.tile(rate, count),
        "batch_size": np.tile(batch, count).astype(float),
    }


@pytest.mark.parametrize("cells", [[(1e8, 1e9)], [(1e8, 1e9), (1e8, 4e9), (2e8, 1e9), (4e8, 1e9)]])
def test_a_map_of_rates_has_a_panel_for_each_pair_of_sizes(cells):
    figure = plots.rates(grid(cells))
    assert sum(axes.get_visible() for axes in figure.axes) == len(cells)
    assert drawn(figure) > 1000
    star = figure.axes[0].collections[-1].get_offsets()[0]
    assert np.exp(np.asarray(star)) == pytest.approx([10**-2.5, 128])


def test_no_map_without_a_grid():
    runs = grid([(1e8, 1e9)])
    runs["batch_size"][:] = 64
    assert plots.rates(runs) is None


def test_exponents_of_approaches_stand_beside_one_another():
    nowhere = float("nan")
    each = {"3": {"a": (0.5, 0.45, 0.55), "b": (0.5, 0.45, 0.55)}, "1": {"a": (0.6, nowhere, nowhere), "b": (0.4,) * 3}}
    figure = plots.agreement(each)
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["3", "1"]
    assert drawn(figure) > 1000


def test_profiles_without_ends_or_values_are_drawn_as_what_they_are():
    x = np.linspace(-2, 2, 9)
    whole, flat = Profile(3 + x, x**2, 2.0, 4.0), Profile(np.exp(3 * x), 0.1 * x**2, np.nan, np.nan)
    none = Profile(np.full(3, np.inf), np.array([np.nan, 0.0, np.nan]), np.nan, np.nan)
    figure = plots.profiles({"E": whole, "A": flat, "B": none})
    titles = [axes.get_title() for axes in figure.axes]
    assert titles[:3] == ["E: 2 ... 4", "A: ? ... ?", "B: not determined"]
    assert drawn(figure) > 1000
