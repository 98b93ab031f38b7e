"""config.json as it was published with well-known weights, fields of its time and gaps included."""

import json
from pathlib import Path

import pytest

from lm.core.param import count
from lm.hub.config import read_config
from lm.zoo.registry import build

PUBLISHED = json.loads((Path(__file__).parent / "published_configs.json").read_text())


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_config_is_read(name):
    """Nothing is refused, and the sizes give the number of parameters that the weights have."""
    published = PUBLISHED[name]
    assert count(build(read_config(published["config"]).knobs).spec()) == published["parameters"]
