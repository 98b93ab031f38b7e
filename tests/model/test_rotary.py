"""Rotary positions and the ways to stretch them against their formulas, written with loops and complex numbers."""

import cmath
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lm.core.errors import UserError
from lm.core.rows import Tokens
from lm.model.rotary import (
    DynamicScaling,
    FrequencyScaling,
    LinearScaling,
    LongScaling,
    NTKScaling,
    PowerScaling,
    Rotary,
    Rotary2D,
    YarnScaling,
)

SIZE, LENGTH, THETA = 12, 7, 50.0


@pytest.fixture(scope="module")
def x() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((1, 2, LENGTH, SIZE)).astype(np.float32)


def tokens(positions: np.ndarray) -> Tokens:
    return Tokens(jnp.asarray(positions)[None])


COUNT = np.arange(LENGTH)


def turned(x: np.ndarray, position: float, frequencies: list[float], interleaved: bool = False) -> np.ndarray:
    """x [size], whose first elements make up as many pairs as there are frequencies."""
    y, half = x.astype(np.float64), len(frequencies)
    for i, frequency in enumerate(frequencies):
        a, b = (2 * i, 2 * i + 1) if interleaved else (i, i + half)
        z = complex(x[a], x[b]) * cmath.exp(1j * position * frequency)
        y[a], y[b] = z.real, z.imag
    return y


def plain(r: int, theta: float = THETA) -> list[float]:
    return [theta ** (-2 * i / r) for i in range(r // 2)]


@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize("r", [12, 6, 4])
def test_rotary(x, r, interleaved):
    found = Rotary(THETA, r / SIZE, interleaved)(x, tokens(COUNT * 3))
    expected = [[turned(x[0, h, t], 3 * t, plain(r), interleaved) for t in range(LENGTH)] for h in range(2)]
    np.testing.assert_allclose(found[0], expected, atol=1e-5)


def basis(i: int) -> float:
    """xPos' base of the i-th pair (equation 14 with its gamma of 0.4)."""
    return (i / (SIZE // 2) + 0.4) / 1.4


def test_xpos(x):
    """Queries grow by zeta^(n / scale), keys shrink, so that scores depend on the distance alone and fall with it."""
    rotary = Rotary(THETA, decay=5.0)
    q, k = rotary(x, tokens(COUNT), False), rotary(x, tokens(COUNT), True)
    for sign, found in ((1, q), (-1, k)):
        for t in range(LENGTH):
            grown = [basis(i % (SIZE // 2)) ** (sign * t / 5.0) for i in range(SIZE)]
            expected = turned(x[0, 1, t], t, plain(SIZE)) * grown
            np.testing.assert_allclose(found[0, 1, t], expected, rtol=1e-4, atol=1e-5)
    same = jnp.broadcast_to(jnp.asarray(x[:, :, :1]), x.shape)
    scores = jnp.einsum("bhsk,bhtk->bhst", rotary(same, tokens(COUNT), False), rotary(same, tokens(COUNT), True))
    for distance in range(LENGTH):
        diagonal = np.diagonal(scores[0, 0], -distance)
        angles = [distance * f for f in plain(SIZE)]
        value = x[0, 0, 0].astype(np.float64)
        expected = sum(
            basis(i) ** (distance / 5.0) * math.cos(angle) * (value[i] ** 2 + value[i + SIZE // 2] ** 2)
            for i, angle in enumerate(angles)
        )
        np.testing.assert_allclose(diagonal, expected, rtol=2e-3, atol=1e-4)


def by_interpolation() -> list[float]:
    return [f / 3 for f in plain(SIZE)]


def by_base() -> list[float]:
    return plain(SIZE, THETA * 3 ** (SIZE / (SIZE - 2)))


def by_growing_base() -> list[float]:
    """Text of 7 tokens, 4 of them usual."""
    growth = 3 * LENGTH / 4 - 2
    return plain(SIZE, THETA * growth ** (SIZE / (SIZE - 2)))


def by_power() -> list[float]:
    return [f * (1 - 2 * i / SIZE) ** 0.7 for i, f in enumerate(plain(SIZE))]


def by_parts() -> list[float]:
    """YaRN's: pairs by how often they turn within 40 tokens."""

    def dimension(turns: float) -> float:
        return SIZE * math.log(40 / (turns * 2 * math.pi)) / (2 * math.log(THETA))

    low, high = math.floor(dimension(3)), math.ceil(dimension(0.5))
    found = []
    for i, f in enumerate(plain(SIZE)):
        ramp = min(max((i - low) / (high - low), 0), 1)
        found.append(f / 3 * ramp + f * (1 - ramp))
    return found


def by_wavelength() -> list[float]:
    """Llama 3.1's, with 40 tokens usual."""
    found = []
    for f in plain(SIZE):
        wavelength = 2 * math.pi / f
        if wavelength < 40 / 3:
            found.append(f)
        elif wavelength > 40 / 0.5:
            found.append(f / 4)
        else:
            smooth = (40 / wavelength - 0.5) / (3 - 0.5)
            found.append((1 - smooth) * f / 4 + smooth * f)
    return found


def by_divisors() -> list[float]:
    return [f / (2 + i) for i, f in enumerate(plain(SIZE))]


SCALED = {
    LinearScaling(3.0): (by_interpolation(), 1.0),
    NTKScaling(3.0): (by_base(), 1.0),
    DynamicScaling(3.0, 4): (by_growing_base(), 1.0),
    DynamicScaling(3.0, LENGTH): (plain(SIZE), 1.0),
    PowerScaling(0.7): (by_power(), 1.0),
    YarnScaling(3.0, 40, 3.0, 0.5): (by_parts(), 0.1 * math.log(3) + 1),
    FrequencyScaling(4.0, 0.5, 3.0, 40): (by_wavelength(), 1.0),
    LongScaling((1.0,) * 6, (2.0, 3.0, 4.0, 5.0, 6.0, 7.0), 6, 1.3): (by_divisors(), 1.3),
    LongScaling((1.0,) * 6, (2.0, 3.0, 4.0, 5.0, 6.0, 7.0), 6, 1.1, long_magnitude=1.3): (by_divisors(), 1.3),
    LongScaling((2.0, 3.0, 4.0, 5.0, 6.0, 7.0), (1.0,) * 6, 7, 1.3): (by_divisors(), 1.3),
}


@pytest.mark.parametrize("scaling", SCALED, ids=str)
def test_scalings(x, scaling):
    frequencies, magnitude = SCALED[scaling]
    found = Rotary(THETA, scaling=scaling)(x, tokens(COUNT))
    expected = [[magnitude * turned(x[0, h, t], t, frequencies) for t in range(LENGTH)] for h in range(2)]
    np.testing.assert_allclose(found[0], expected, atol=1e-4)


def test_yarn_keeps_mixes_and_stretches():
    """The case above is worth its name."""
    ratio = np.array(by_parts()) / plain(SIZE)
    assert ratio[0] == 1 and np.isclose(ratio[-1], 1 / 3) and (np.abs(ratio - 2 / 3) < 0.3).any()


def test_two_kinds_of_positions(x):
    at = Tokens(jnp.asarray(COUNT)[None], text_position=jnp.asarray(COUNT * 2)[None], span=jnp.asarray(COUNT % 3)[None])
    found = Rotary2D(Rotary(THETA, interleaved=True))(x, at)
    for t in range(LENGTH):
        first, second = np.split(x[0, 1, t], 2)
        expected = [turned(h, n, plain(6), True) for h, n in ((first, 2 * t), (second, t % 3))]
        np.testing.assert_allclose(found[0, 1, t], np.concatenate(expected), atol=1e-5)


def test_only_the_distance_matters(x):
    """Scores of queries and keys moved together, for all kinds that promise it."""
    kinds = ({}, {"fraction": 0.5, "interleaved": True}, {"decay": 9.0}, {"scaling": PowerScaling(2.0)})
    for rotary in (Rotary(THETA, **kind) for kind in kinds):
        scores = [
            jnp.einsum("bhsk,bhtk->bhst", rotary(x, tokens(COUNT + start)), rotary(x, tokens(COUNT + start), True))
            for start in (0, 11)
        ]
        np.testing.assert_allclose(*scores, atol=1e-3)


def test_odd_parts_are_refused(x):
    with pytest.raises(UserError, match="in pairs"):
        jax.eval_shape(lambda: Rotary2D()(x[..., :6], tokens(COUNT)))
