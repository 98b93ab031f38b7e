"""Each process makes the rows its devices hold; the loop is told how long it waited."""

import time

import jax
import numpy as np
import pytest

from lm.core.mesh import Sharding, make_mesh
from lm.train.prefetch import DevicePrefetcher, evaluation_batches, own_rows, put
from lm.train.setup import assemble
from tests.train import tiny


@pytest.fixture(scope="module")
def batches(tmp_path_factory):
    config = tiny.config(tmp_path_factory.mktemp("feed"))
    parts = assemble(config)
    return parts.batches, parts.held_out


@pytest.mark.parametrize("sizes", [None, {"data": 8}, {"data": 2, "tensor": 4}, {"tensor": 8}, {"fsdp": 4, "data": 2}])
def test_the_feed_gives_the_batches_in_order(batches, sizes):
    train, _ = batches
    sharding = Sharding(make_mesh(sizes)) if sizes else None
    feed = DevicePrefetcher(train, sharding, start=3)
    for k in range(3, 6):
        batch, want = next(feed), train.batch(k)
        for name, values in want.items():
            np.testing.assert_array_equal(batch[name], values)
            if sharding is not None:
                assert batch[name].sharding.is_equivalent_to(
                    sharding.named(("batch",) + (None,) * (values.ndim - 1)), values.ndim
                )
    feed.close()


def test_a_process_needs_only_the_rows_of_its_devices(monkeypatch):
    """As it would be with two hosts: devices 0 to 3 are this process's."""
    sharding = Sharding(make_mesh({"data": 4, "tensor": 2}))
    named = jax.sharding.NamedSharding
    all_places = named.addressable_devices_indices_map
    mine = set(jax.devices()[:4])
    monkeypatch.setattr(
        named,
        "addressable_devices_indices_map",
        lambda self, shape: {d: i for d, i in all_places(self, shape).items() if d in mine},
    )
    assert own_rows(16, sharding).tolist() == list(range(8))
    assert own_rows(16, None).tolist() == list(range(16))


def test_waiting_is_measured(batches):
    train, _ = batches

    class Slow:
        batch_size = train.batch_size

        def iterate(self, start, rows, workers):
            for k in range(start, start + 4):
                time.sleep(0.2 if k else 0)
                yield train.batch(k, rows)

    feed = DevicePrefetcher(Slow(), None)
    assert feed.waited == 0
    next(feed), next(feed)
    assert feed.waited >= 0.4
    busy = iter([True, False])
    feed = DevicePrefetcher(Slow(), None, busy=lambda: next(busy))
    next(feed)
    assert feed.waited == 0  # the devices still had work when the batch came
    next(feed)
    assert 0.2 <= feed.waited < 0.4


def test_evaluation_batches_come_from_every_row(batches):
    _, held_out = batches
    sharding = Sharding(make_mesh({"data": 8}))
    for k, batch in enumerate(evaluation_batches(held_out, range(2), sharding)):
        np.testing.assert_array_equal(batch["tokens"], held_out.batch(k)["tokens"])
    want = held_out.batch(0)
    np.testing.assert_array_equal(put(want, np.arange(8), 8, None)["tokens"], want["tokens"])
