"""Configs from experiment files, from runs' config.json, and the knobs that the command line lays over them."""

import ast
import json
import re
from typing import Any

import pytest
from absl import flags
from ml_collections.config_dict import ConfigDict

from experiments import quickstart, switch_toy, ul2_toy
from experiments import sweep as sweep_file
from experiments.recipes import gpt2
from lm.adapt.lora import LoRA
from lm.commands import cli
from lm.compress.int8 import Int8
from lm.core.component import from_dict, names_of, registered, to_dict
from lm.core.errors import UserError
from lm.train.config import CHOSEN, WITHIN, default
from lm.train.config_file import read_config
from lm.train.override import override
from lm.train.show_config import shown, size_notes
from lm.zoo.registry import build, departures, knobs
from lm.zoo.switch import switch_decoder
from scaling import cells

QUICKSTART = quickstart.__file__


def given(*words: str) -> tuple[ConfigDict, list[str]]:
    """The config of `python -m lm.train --config=experiments/quickstart.py WORDS`, and what is told of it."""
    known = flags.FlagValues()
    flag = cli.ConfigFlag("", flag_values=known)
    assert cli.parse(["train", f"--config={QUICKSTART}", *words], known) == ["train"]
    config = read_config(flag.file)
    return config, override(config, flag.knobs)


def wrong(*words: str) -> str:
    with pytest.raises(UserError) as e:
        given(*words)
    assert "\n" not in str(e.value)
    return str(e.value)


# Values


@pytest.mark.parametrize(
    ("word", "path", "value"),
    [
        ("--config.train.steps=7", "train.steps", 7),
        ("--config.optimizer.learning_rate=1", "optimizer.learning_rate", 1.0),
        ("--config.optimizer.learning_rate=3e-4", "optimizer.learning_rate", 3e-4),
        ("--config.train.unroll=false", "train.unroll", False),
        ("--noconfig.train.unroll", "train.unroll", False),
        ("--config.train.noise_scale", "train.noise_scale", True),
        ("--config.data.source=123", "data.source", "123"),
        ("--config.data.validation=None", "data.validation", "None"),
        ("--config.data.reserved=<a>,<b>", "data.reserved", ("<a>", "<b>")),
        ("--config.data.reserved=", "data.reserved", ()),
        ("--config.train.batch_warmup=((0, 4), [10, 8])", "train.batch_warmup", ((0, 4), (10, 8))),
        ("--config.model.d_ff=32", "model.d_ff", 32),
        ("--config.model.layers=None", "model.layers", None),
        ("--config.objective.loss.z_loss=1e-4", "objective.loss.z_loss", 1e-4),
    ],
)
def test_a_value_takes_the_type_of_its_knob(word, path, value):
    config, notes = given(word)
    for name in path.split("."):
        config = config[name]
    assert config == value and type(config) is type(value) and not notes


def test_a_value_may_stand_by_itself_and_the_last_counts():
    config, _ = given("--config.train.steps", "7", "--config.optimizer.clip", "-1.5", "--config.train.steps=8")
    assert (config.train.steps, config.optimizer.clip) == (8, -1.5)  # the latter is refused by `check`


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("--config.train.steps=many", "--config.train.steps=many must be an int"),
        ("--config.data.batch_size=1.5", "--config.data.batch_size=1.5 must be an int"),
        ("--config.train.steps=true", "--config.train.steps=true must be an int"),
        ("--config.train.unroll=3", "--config.train.unroll=3 must be true or false"),
        ("--config.optimizer.clip=big", "--config.optimizer.clip=big must be a number"),
        (
            "--config.optimizer.lr_multipliers=(('a', 1",
            "--config.optimizer.lr_multipliers=(('a', 1 must be a tuple of numbers",
        ),
        ("--config.train.steps", "--config.train.steps has no value: write --config.train.steps=VALUE"),
        ("--config.train=3", "--config.train=3: name one of its knobs accumulate, "),
        ("--config.train.steps.x=3", "config.train.steps.x is no knob of this config: 540 has no 'x'"),
        ("--config.lr=3", "config.lr is no knob of this config; did you mean config.optimizer.learning_rate?"),
        ("--config.max_steps=3", "did you mean config.train.steps?"),
        ("--config.optimizer.lr=3", "did you mean config.optimizer.learning_rate?"),
        ("--config.optimizer.betta1=3", "did you mean config.optimizer.b1? (AdamW has b1, b2, clip, decay_rules, em"),
        ("--config.optimizer.warmup=3", "is no knob of this config; it is config.schedule.warmup now"),
        ("--config.optimizer.name=muon", "is no knob of this config; it is config.optimizer.type now"),
        ("--config.optimizer.type=adam", "config.optimizer.type='adam' is no optimizer; did you mean 'AdamW'?"),
        ("--config.trian.steps=3", "config.trian.steps is no knob of this config; did you mean config.train.steps?"),
        ("--config.train.recovery.windw=3", "did you mean config.train.recovery.window?"),
        ("--config.qqq=3", "config.qqq is no knob of this config; python -m lm.train --print_config lists them all"),
        ("--config.model.d_modell=32", "config.model.d_modell is no knob of gpt2; did you mean 'd_model'?"),
        ("--config.model.family=lama", "config.model.family='lama' is unknown; did you mean 'llama'?"),
        ("--config.model=nowhere.json", "--config.model=nowhere.json: No such file or directory; give a JSON file"),
        ("--config.model=small", "--config.model=small is neither JSON nor the path of a .json file"),
        ("--config.model=[1]", 'config.model must be a JSON object with a "type", or for a model with a "family"'),
        ("--config.objective.type=NextTokn", "config.objective.type='NextTokn' is no component"),
        ("--config.objective.los.chunk=3", "config.objective.los.chunk is no knob of NextToken; did you mean 'loss'?"),
        ("--config.objective.loss.balance=3", "is no knob of TokenLoss; it is config.objective.loss.aux[0][1] now"),
        ("--config.transforms=LoRA", "--config.transforms=LoRA is neither JSON nor the path of a .json file"),
        ("--config.transforms=[3]", 'config.transforms[0]=3 must be a JSON object with a "type": {"type": "LoRA"'),
        ("--config.transforms[0].rank=3", "config.transforms[0].rank: there are 0 items, from [0] on"),
        ("--conifg.data.length=8", "nknown command line flag 'conifg.data.length'"),
    ],
)
def test_what_is_wrong_is_one_line(word, message):
    assert message in wrong(word)


def test_the_weight_of_an_auxiliary_loss():
    """In a config as it is now, and in one of the old spelling."""
    old = '--config.objective={"type": "NextToken", "loss": {"type": "TokenLoss", "balance": 0.02}}'
    for words, balance in (((), 0.01), ((old,), 0.02)):
        config, _ = given(*words, "--config.objective.loss.aux[1][1]=0.5")
        loss = from_dict(config.objective.to_dict()).loss
        assert loss.aux == (("balance", balance), ("router_z", 0.5))


# Parts that are chosen whole


def test_another_family_begins_a_new_model():
    words = ("--config.model.kv_heads=2", "--config.model.family=llama", "--config.model.size=3.2-1b")
    config, notes = given(*words)  # in any order
    assert build(config.model) == build({"family": "llama", "size": "3.2-1b", "kv_heads": 2})
    assert re.fullmatch(r"config\.model: llama in place of gpt2, whose knobs are dropped: .*d_model.*vocab", notes[0])
    same, nothing = given("--config.model.family=gpt2")
    assert same.model == quickstart.get_config().model and not nothing


def test_a_model_from_the_json_of_the_zoo(tmp_path):
    whole = build({"family": "gemma3", "size": "1b"})
    file = tmp_path / "model.json"
    file.write_text(json.dumps(to_dict(whole)))
    config, _ = given(f"--config.model={file}")
    assert build(config.model) == whole
    config, _ = given('--config.model={"family": "gpt2", "size": "medium"}', "--config.model.vocab=512")
    assert build(config.model) == build({"family": "gpt2", "size": "medium", "vocab": 512})


def test_a_knob_within_a_tree_of_components(tmp_path):
    file = tmp_path / "model.json"
    tree = to_dict(switch_decoder(layers=2, d_model=8, heads=2, d_ff=8, experts=2, vocab=384))
    file.write_text(json.dumps(tree))
    within = "--config.model.body.stack.segments[0].pattern[0].residual.dropout=0.25"
    config, notes = given(f"--config.model={file}", within, "--config.model.head.scale=2")
    model = build(config.model)
    assert model.head.scale == 2.0 and not notes
    assert [block.residual.dropout for block in model.body.stack.segments[0].pattern] == [0.25, 0.0]


def test_another_objective_has_its_own_knobs():
    config, notes = given("--config.objective.share=0.5", "--config.objective.type=MultiToken")
    assert config.objective.share == 0.5 and config.objective.loss.type == "TokenLoss"
    assert notes == ["config.objective: MultiToken in place of NextToken, whose knobs are dropped"]


def test_another_optimizer_has_its_own_knobs_and_keeps_those_of_all():
    words = ("--config.optimizer.beta=0.95", "--config.optimizer.type=Muon", "--config.optimizer.clip=2")
    config, notes = given(*words)
    assert (config.optimizer.beta, config.optimizer.clip, config.optimizer.learning_rate) == (0.95, 2.0, 4e-3)
    assert notes == ["config.optimizer: Muon in place of AdamW, whose own knobs are dropped: b1, b2, eps"]
    with pytest.raises(UserError, match=r"config\.optimizer\.b1 is no knob.*SGD has .*momentum"):
        given("--config.optimizer.type=SGD", "--config.optimizer.b1=0.5")


def test_transforms_are_a_list_of_components():
    words = ("--config.transforms[1].rank=4", '--config.transforms=[{"type": "Int8"}, {"type": "LoRA"}]')
    config, _ = given(*words)  # in any order
    assert from_dict(config.transforms) == (Int8(), LoRA(4))
    assert from_dict(given('--config.transforms={"type": "Int8"}')[0].transforms) == (Int8(),)


def test_a_component_that_the_family_leaves_out():
    text = json.dumps({"type": "LinearScaling", "factor": 2.0})
    config, _ = given("--config.model.family=llama", "--config.model.size=3.2-1b", f"--config.model.scaling={text}")
    assert build(config.model) != build({"family": "llama", "size": "3.2-1b"})


def test_knobs_that_depart_from_a_published_size_are_told():
    config, _ = given("--config.model.size=medium")
    assert set(departures(config.model)) == {"layers", "d_model", "heads", "vocab", "context"}
    (line,) = size_notes(config)
    assert line.startswith("config.model: gpt2 medium, but with ") and "layers=4 (published: 24)" in line
    assert line in shown(config)
    assert not departures(knobs("gpt2", size="medium", layers=24)) and not size_notes(quickstart.get_config())


# A run's config.json


CONFIGS: dict[str, Any] = {
    module.__name__.rpartition(".")[2]: (module.get_config, default)
    for module in (gpt2, quickstart, switch_toy, ul2_toy)
} | {"sweep": (sweep_file.get_config, cells.default)}


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("how", ["file", "folder", "wrapped"])
def test_a_run_is_repeated_from_its_folder(name, how, tmp_path):
    make, plain = CONFIGS[name]
    config = make()
    saved = {"config": config.to_dict(), "data": {}} if how == "wrapped" else config.to_dict()
    (tmp_path / "config.json").write_text(json.dumps(saved, indent=2))
    again = read_config(tmp_path if how == "folder" else tmp_path / "config.json", plain)
    assert json.dumps(again.to_dict(), sort_keys=True) == json.dumps(config.to_dict(), sort_keys=True)
    for section in ("data", "optimizer", "schedule", "train", "log", "sweep"):
        assert again.get(section) == config.get(section), "tuples are tuples again"
    if "family" in config.model:
        assert {k: again.model.get_type(k) for k in again.model} == {k: config.model.get_type(k) for k in config.model}
    if name != "sweep":  # which lacks the shape
        assert build(again.model) == build(config.model)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", r"config\.json, line 1 is not JSON: "),
        ('{"train": {"stepz": 3}}', r"config\.train\.stepz is no knob; did you mean config\.train\.steps\?"),
        ('{"train": {"steps": "x"}}', r"config\.train\.steps='x' is a str; it must be int"),
        ('{"train": {"steps": true}}', r"config\.train\.steps=True is a bool; it must be int"),
        ('{"optimizer": {"clip": true}}', r"config\.optimizer\.clip=True is a bool; it must be float"),
        ('{"train": 3}', r"config\.train=3 must have the knobs accumulate, "),
        ('{"model": 3}', r'config\.model must be a JSON object with a "type", or for a model with a "family"'),
        ('{"model": {"family": "gpt2", "layer": 3}}', r"config\.json: model\.layer is no knob of gpt2; did you mean "),
    ],
)
def test_a_wrong_config_json(text, message, tmp_path):
    file = tmp_path / "config.json"
    file.write_text(text)
    with pytest.raises(UserError, match=message) as e:
        read_config(file)
    assert "\n" not in str(e.value) and "config.json" in str(e.value)


# Experiment files

HEAD = (
    "from lm.train.config import default\nfrom lm.zoo.registry import knobs\n\n\ndef get_config():\n    c = default()\n"
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def get_config(:\n", r"config file \S+bad\.py, line 1 is not Python: "),
        ("\0", r"config file \S+bad\.py is not Python"),
        ("x = 1\n", r"config file \S+bad\.py has no function get_config\(\): define one that returns the config"),
        ("def get_confg():\n    pass\n", r"has no function get_config\(\); did you mean 'get_confg'\?"),
        ("def get_config():\n    pass\n", r"get_config\(\) returns None, not a ConfigDict: add `return config`"),
        ("import nowhere\n", r"bad\.py, line 1: ModuleNotFoundError: No module named 'nowhere'"),
        ("from lm.train.config import defalt\n", r"bad\.py, line 1: ImportError: cannot import name 'defalt'"),
        (
            HEAD + "    c.optimizer.rates = ()\n",
            r"rates is no knob; it is config\.optimizer\.lr_m",
        ),
        (
            HEAD + "    c.objective.loss.router_z = 1.0\n",
            r"loss\.router_z is no knob; it is config\.objective\.loss\.aux\[1\]\[1\] now",
        ),
        (HEAD + "    c.optimizer.lr = 3\n", r"bad\.py, line 7: config\.optimizer\.lr is no knob; did you"),
        (HEAD + "    c.max_steps = 3\n", r"bad\.py, line 7: config\.max_steps is no knob; did you mean config\.tr"),
        (HEAD + "    c.trian.steps = 3\n", r"bad\.py, line 7: config\.trian is no knob; did you mean config\.train\?"),
        (HEAD + "    c.optimizer.update(lr=3)\n", r"bad\.py, line 7: config\.optimizer\.lr is no knob; did you mean"),
        (HEAD + '    c.train.steps = "many"\n', r"bad\.py, line 7: config\.train\.steps is a str; it must be int"),
        (HEAD + '    knobs("lama")\n', r"bad\.py, line 7: model\.family='lama' is unknown; did you mean 'llama'\?"),
        (HEAD + '    knobs("gpt2", size="smal")\n', r"bad\.py, line 7: model\.size='smal' is no size of gpt2; "),
        (HEAD + '    knobs("gpt2", layer=1)\n', r"bad\.py, line 7: model\.layer is no knob of gpt2; did you mean "),
        (HEAD + "    1 / 0\n", r"bad\.py, line 7: ZeroDivisionError: division by zero"),
    ],
)
def test_a_wrong_experiment_file(text, message, tmp_path):
    (tmp_path / "bad.py").write_text(text)
    with pytest.raises(UserError, match=message) as e:
        read_config(tmp_path / "bad.py")
    assert "\n" not in str(e.value)


def test_files_that_are_not_there(tmp_path):
    with pytest.raises(UserError, match=r"config file \S+/none\.py does not exist: give --config=experiments/<na"):
        read_config(tmp_path / "none.py")
    with pytest.raises(UserError, match=r"the folder has no config\.json; give an experiment file or a run's folder"):
        read_config(tmp_path)


def test_an_experiment_file_may_take_a_word_and_import_its_neighbours(tmp_path):
    (tmp_path / "beside_it.py").write_text("STEPS = 5\n")
    (tmp_path / "file.py").write_text(
        "from beside_it import STEPS\nfrom lm.train.config import default\n\n\ndef get_config(name):\n"
        "    c = default()\n    c.train.steps = STEPS\n    c.data.source = name\n    return c\n"
    )
    config = read_config(f"{tmp_path}/file.py:book.txt")
    assert (config.train.steps, config.data.source) == (5, "book.txt")


# What is printed


@pytest.mark.parametrize("make", [quickstart.get_config, switch_toy.get_config, ul2_toy.get_config])
def test_what_is_shown_is_what_the_command_line_takes(make):
    config = make()
    lines = [line[2:] for line in shown(config).splitlines() if not line.startswith("#")]
    pairs = [line.removeprefix("config.").split(" = ", 1) for line in lines]
    # Comments stand behind: take as much as is a value.
    values = [(path, ast.literal_eval(tail)) for path, tail in pairs]
    assert not override(config, [(path, str(value)) for path, value in values])
    assert config.to_dict() == make().to_dict()


def test_every_knob_is_shown_with_its_comment_and_what_changed_is_marked():
    text = shown(quickstart.get_config())
    lines = {line[2:].split(" = ")[0]: line for line in text.splitlines() if not line.startswith("#")}
    assert re.fullmatch(r"  config\.data\.length = 256 +# tokens per row", lines["config.data.length"])
    steps = lines["config.train.steps"]
    assert re.fullmatch(r"\* config\.train\.steps = 540 +# of the whole run; default: 1000", steps)
    ours = {path: line for path, line in lines.items() if not re.match(r"config\.(model|objective)", path)}
    bare = [path for path, line in ours.items() if "#" not in line]
    assert not bare, f"lm/train/config.py says nothing of {bare}"
    assert "Reference" not in text
    in_size = shown(gpt2.get_config())
    assert "# 12, from size small" in in_size and "* config.model.vocab = 50304" in in_size
    assert "config.sweep.budgets" in shown(sweep_file.get_config(), cells.default)


def test_every_component_that_is_chosen_says_what_its_knobs_are():
    for section, kind in (CHOSEN | WITHIN).items():
        for name in names_of(kind):
            if registered(name).__module__.startswith("lm."):
                config = default()
                override(config, [(f"{section}.type", name)])
                lines = [line for line in shown(config).splitlines() if f" config.{section}." in line]
                assert len(lines) > 1 and not [line for line in lines if "#" not in line], name
                if section in CHOSEN:
                    assert [line for line in lines if line.startswith("*")] in ([], lines[:1]), "only the type differs"
