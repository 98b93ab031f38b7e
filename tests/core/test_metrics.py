"""Metrics add up, and are divided once."""

import math

import jax
import jax.numpy as jnp
import pytest

from lm.core.metrics import Bits, Mean, Sum, added, values


def test_parts_add_up_and_are_divided_once():
    one = {"loss": Mean(3.0, 2.0), "tokens": Sum(2.0)}
    two = {"loss": Mean(9.0, 4.0), "tokens": Sum(4.0), "dropped": Mean(1.0, 2.0)}
    whole = added([one, {}, two])
    assert whole == {"loss": Mean(12.0, 6.0), "tokens": Sum(6.0), "dropped": Mean(1.0, 2.0)}
    assert values(whole | {"rate": 0.1}) == pytest.approx({"loss": 2.0, "tokens": 6.0, "dropped": 0.5, "rate": 0.1})


def test_nats_are_reported_in_bits():
    bits = {"bits": Bits(2 * math.log(2), 1.0)}
    assert values(bits) == {"bits": 2.0} and values(added([bits, bits])) == {"bits": 2.0}
    assert isinstance(jax.jit(lambda m: jax.tree.map(jnp.add, m, m))(bits)["bits"], Bits)


def test_a_mean_of_nothing_is_left_out():
    assert values({"loss": Mean(0.0, 0.0), "tokens": Sum(0.0)}) == {"tokens": 0.0}
