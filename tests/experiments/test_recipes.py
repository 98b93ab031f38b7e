"""Recipes: published configs are sound, and each tiny variant trains."""

import importlib
import itertools
import json
import pkgutil
import re
from pathlib import Path

import numpy as np
import pytest

import experiments.recipes
from experiments.recipes import recipe
from lm.adapt.surgery.surgery import result
from lm.core.component import from_dict
from lm.core.param import count
from lm.objectives.objective import check_needs
from lm.train.config import check, section
from lm.train.data import batches_of, open_data_of
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


def test_cpm_2_grows_from_run_to_run():
    """Each run's model is what its surgery makes of the one before, and the last has the published 198B."""
    models = {}
    for before, run in itertools.pairwise([None, "chinese", "bilingual", "moe"]):
        config = module("cpm2").get_config(run)
        models[run] = build(config.model)
        if before is not None:
            surgery = from_dict(config.train.surgery, "config.train.surgery")
            assert result(surgery, models[before]) == models[run]
    experts = 48 * 31 * 3 * 4096 * 10240 + 48 * 32 * 4096  # more feed-forward parts, and routers
    counts = [count(model.spec()) for model in models.values()]
    assert counts == [11_087_097_856, 11_297_861_632, 11_297_861_632 + experts] and counts[-1] // 10**9 == 198


def test_the_small_texts_of_ernie_mark_phrases_and_entities():
    """A row of each stage hides what that stage is about as a whole."""
    config = module("ernie").get_config(recipe.TINY)
    found = []
    for stage in stages_of(config)[1:3]:
        data = open_data_of(stage.config)
        objective = from_dict(stage.config.objective.to_dict(), "config.objective")
        row, spans = batches_of(stage.config, data, objective).batch(0), set()
        for targets, weights, at in zip(row["mlm/targets"], row["mlm/weights"], row["mlm/predicted"], strict=True):
            targets, at = targets[weights > 0], at[weights > 0]
            for run in np.split(np.arange(len(at)), np.flatnonzero(np.diff(at) > 1) + 1):
                spans.add(data.tokenizer.decode(targets[run]))
        found.append(spans)
    phrases, entities = found
    ernie = module("ernie")
    assert phrases & set(ernie.WORKS) and entities & {*ernie.NAMES, *ernie.PLACES}
    assert not phrases & {*ernie.NAMES, *ernie.PLACES} and not entities & set(ernie.WORKS)


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
    first, last = longest_alike(config)
    assert sum(losses[last - 5 : last]) / 5 < sum(losses[first : first + 5]) / 5 - 0.1


def longest_alike(config):
    """The first step and the end of the most steps under one type of objective: losses of others do not compare."""
    stages = [(stage.first, stage.config.objective.type) for stage in stages_of(config)]
    begins = [at for i, (at, kind) in enumerate(stages) if i == 0 or kind != stages[i - 1][1]]
    return max(itertools.pairwise([*begins, config.train.steps]), key=lambda steps: steps[1] - steps[0])
