"""What each family is made of, in one vocabulary: a golden tree of its first size, and trees that survive being
written as JSON and as configs."""

import json

import pytest
from ml_collections.config_dict import ConfigDict

from lm.core.component import from_dict, to_dict
from lm.zoo.registry import FAMILIES, build, knobs
from tests.zoo.render import FOLDER, first_size, rendered

AGAIN = "python -m tests.zoo.render"
SIZES = [(family, size) for family in FAMILIES for size in FAMILIES[family].sizes]


@pytest.mark.parametrize("family", FAMILIES)
def test_the_tree_of_a_family(family):
    path = FOLDER / f"{family}.txt"
    assert path.is_file(), f"no golden of {family}: run `{AGAIN} {family}` and read what it writes"
    assert rendered(family) == path.read_text(encoding="utf-8"), f"if this is meant: {AGAIN} {family}"


def test_every_golden_belongs_to_a_family():
    stale = {path.stem for path in FOLDER.glob("*.txt")} - FAMILIES.keys()
    assert not stale, f"no families: {sorted(stale)}; run {AGAIN}"


@pytest.mark.parametrize(("family", "size"), SIZES)
def test_trees_survive_json_and_configs(family, size):
    model = build({"family": family, "size": size})
    written = to_dict(model)
    assert from_dict(json.loads(json.dumps(written))) == model
    assert build(ConfigDict(written)) == model
    assert build(knobs(family, size=size)) == model, "the knobs that a config shows stand in the way of the size's"
    assert hash(from_dict(written)) == hash(model)


@pytest.mark.parametrize("family", FAMILIES)
def test_all_knobs_at_once_survive_configs(family):
    """Each knob of a size given on its own, without the size."""
    _, given = first_size(family)
    model = FAMILIES[family].make(**given)
    assert build(knobs(family, **{k: to_dict(v) for k, v in given.items()})) == model
