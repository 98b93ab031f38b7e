"""Recipes: published configs are sound, and each tiny variant trains."""

import importlib
import itertools
import json
import pkgutil
import re
from pathlib import Path

import pytest

import experiments.recipes
from experiments.recipes import recipe
from lm.core.component import from_dict
from lm.core.param import count
from lm.objectives.objective import check_needs
from lm.train.config import check, section
from lm.train.loop import train
from lm.train.stages import stages_of
from lm.zoo.registry import FAMILIES, build

NAMES = [m.name for m in pkgutil.iter_modules(experiments.recipes.__path__) if m.name != "recipe"]


def module(name):
    return importlib.import_module(f"experiments.recipes.{name}")


def sizes(name):
    """The variants of a recipe: those that its table lists, or else the sizes of its family."""
    table = next((v for k, v in vars(module(name)).items() if k in ("SIZES", "RATES")), ())
    return list(table) or [*FAMILIES[module(name).get_config().model.family].sizes, recipe.TINY]


@pytest.mark.parametrize("name", NAMES)
def test_published_configs(name):
    for config in [module(name).get_config(), *map(module(name).get_config, sizes(name))]:
        check(config)
        model, objective = build(config.model), from_dict(config.objective.to_dict(), "config.objective")
        check_needs(objective, model)
        lengths = [config.data.length, *(stage.config.data.length for stage in stages_of(config))]
        assert max(lengths) <= (model.max_length or max(lengths))
        assert section(config, "schedule") and section(config, "optimizer")
    assert "arXiv" in module(name).__doc__, "a recipe names its source"


def test_a_ramp_reads_as_many_tokens_as_it_says():
    config = module("gpt3").get_config("175b")
    stairs = config.train.batch_warmup
    read = sum(rows * (end - at) for (at, rows), (end, _) in itertools.pairwise(stairs)) * config.data.length
    assert abs(read / 12e9 - 1) < 1e-3 and stairs[-1][1] == config.data.batch_size
    assert count(build(config.model).spec()) == 174_604_259_328 and "gpt3" in FAMILIES


def test_every_recipe_is_in_the_table():
    table = (Path(experiments.recipes.__path__[0]).parent / "README.md").read_text()
    assert re.findall(r"^\| \[(\w+)\]\(recipes/", table, flags=re.M) == sorted(NAMES)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_tiny_variants_train(name, tmp_path):
    config = module(name).get_config(recipe.TINY)
    train(config, tmp_path)
    seen = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    losses = [m["objective"] for m in seen if "objective" in m and "grad_norm" in m]
    assert len(losses) == config.train.steps
    assert sum(losses[-5:]) / 5 < sum(losses[:5]) / 5 - 0.1
