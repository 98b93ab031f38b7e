"""The walk over components goes by the paths of their parameters."""

import jax

from lm.core.ownership import walk
from lm.core.param import get
from tests import toys


def test_a_visit_has_the_parameters_at_its_path():
    model = toys.dense_first()
    spec = model.spec()
    found = {visit.path: visit for visit in walk(model, spec)}
    assert found.pop("").component == model
    for path, visit in found.items():
        assert jax.tree.leaves(visit.spec) == jax.tree.leaves(get(spec, path))
    kinds = {path: type(visit.component).__name__ for path, visit in found.items()}
    assert {
        "body": "Transformer",
        "body/stack": "Stack",
        "body/stack/1": "LayerGroup",
        "body/stack/1/0/attention": "Attention",
        "body/stack/1/0/mlp": "MoE",
        "body/stack/1/0/mlp/router": "TopK",
        "body/stack/1/0/mlp/experts": "GatedMLP",
        "head": "LMHead",
    }.items() <= kinds.items()
