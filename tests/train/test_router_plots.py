"""Figures of routers, from a model's layers to a picture."""

import functools

import jax
import numpy as np
import pytest

from lm.adapt.surgery.experts import busiest
from lm.core.ctx import Ctx
from lm.core.errors import UserError
from lm.core.metrics import aux_metrics, values
from lm.model.masks import Bidirectional
from lm.model.moe.dispatch import Dropless
from lm.model.moe.hash import Hash
from lm.model.moe.top_k import TopK
from lm.runs.metrics import MetricsLog, read_metrics
from lm.runs.router_plots import layers_of, of_layer, plot_routers, router_loads
from tests import toys


@functools.partial(jax.jit, static_argnums=0)
def measured(model, params) -> dict:
    return aux_metrics(model.hidden(params, {"tokens": toys.tokens(2)}, Ctx())[2])


def figures(model, params) -> dict:
    return values(jax.device_get(measured(model, params)))


def test_layers_of_a_run_are_drawn_in_order(tmp_path):
    """A dense layer, then such with experts in two groups, of two kinds that take turns."""
    a, b, c = (toys.experts(TopK(k=k, init=toys.WIDE), Dropless()) for k in (1, 2, 4))
    one = toys.attention(mask=Bidirectional())
    model = toys.language_model([toys.block(one, part) for part in (toys.gated, a, b, a, b, c, c)])
    log = MetricsLog(tmp_path)
    log.write({"step": 1, "loss": 2.0})
    plot_routers(log.path, tmp_path / "routers.png", "dense")
    assert not (tmp_path / "routers.png").exists(), "nothing to draw"
    for step in (1, 2):
        log.write({"step": step, **figures(model, toys.values(model.spec(), step))})
    plot_routers(log.path, tmp_path / "routers.png", "title")
    assert (tmp_path / "routers.png").stat().st_size > 10_000

    record = read_metrics(log.path)[-1]
    layers = layers_of(record)
    assert [layer.name for layer in layers] == ["1", "2", "3", "4", "5", "6"]
    choices = [1, 2, 1, 2, 4, 4]  # with all four experts chosen loads are even, and so on
    for load, k in zip(of_layer("router_load", record, layers), choices, strict=True):
        assert np.isclose(np.sum(load), 4, atol=1e-3) and max(load) <= 4 / k
    assert of_layer("router_load", record, layers)[4] == [1.0] * 4
    assert of_layer("router_dropped", record, layers) == [0.0] * 6
    loads = router_loads(log.path)
    np.testing.assert_allclose(
        loads[0], np.mean([of_layer("router_load", r, layers)[0] for r in read_metrics(log.path)[1:]], 0)
    )
    assert busiest(loads, 1) == tuple((int(np.argmax(load)),) for load in loads)
    with pytest.raises(UserError, match="has no loads of experts of a tower 'encoder'"):
        router_loads(log.path, tower="encoder")
    entropy, spread = (np.array(of_layer(f"router_{name}", record, layers)) for name in ("entropy", "spread"))
    assert (entropy < spread).all() and (spread <= np.log(4) + 1e-4).all()


def test_towers_are_told_apart():
    record = {f"router_load/{place}": [[1.0]] * n for place, n in (("encoder.1.0.mlp", 2), ("decoder.10.0.mlp", 1))}
    record |= {"router_load/decoder.2.0.mlp": [[1.0]], "router_load/decoder.2.1.mlp": [[1.0]]}
    assert [(layer.place, layer.name) for layer in layers_of(record)] == [
        ("decoder.2.0.mlp", "decoder 1"),
        ("decoder.2.1.mlp", "decoder 2"),
        ("decoder.10.0.mlp", "decoder 3"),
        ("encoder.1.0.mlp", "encoder 1"),
        ("encoder.1.0.mlp", "encoder 2"),
    ]


def test_a_router_without_probabilities_has_figures(tmp_path):
    model = toys.language_model([toys.block(toys.attention(), toys.experts(Hash(), Dropless()))])
    record = figures(model, toys.values(model.spec()))
    (layer,) = layers_of(record)
    assert of_layer("router_entropy", record, [layer]) == [0.0]
    log = MetricsLog(tmp_path)
    log.write({"step": 1, **record})
    plot_routers(log.path, tmp_path / "routers.png", "title")
    assert (tmp_path / "routers.png").exists()
