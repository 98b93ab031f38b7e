"""Format numbers and stored names: what an older or newer file, or a class of another name, comes to."""

import json
import re
from pathlib import Path

import pytest

from lm.adapt.lora import LoRA
from lm.core import component as core
from lm.core.component import canonical, component, from_dict, renamed, stored_names, to_dict
from lm.core.errors import UserError
from lm.core.formats import CHECKPOINT, KEY, RUN, SWEEP, TOKEN_CACHE
from lm.core.formats import RECORD as RUN_RECORD
from lm.data.cache import TokenCache
from lm.objectives.causal import NextToken
from lm.objectives.token_loss import TokenLoss
from lm.runs import components, upgrade
from lm.runs.checkpoint import Checkpoints, meta_of, open_model
from lm.text.tokenizers import ByteTokenizer
from lm.train import record
from lm.train.config import check
from lm.train.config_file import read_config
from lm.train.data import open_data_of
from lm.zoo.registry import build
from scaling import cells
from scaling.folder import claim, records
from scaling.records import RECORD, append_run, read_runs
from tests.train import tiny

NAMES = Path(__file__).with_name("names.txt")
NEWER = 99


@pytest.fixture
def registry(monkeypatch):
    """Components that a test declares are forgotten after it."""
    monkeypatch.setattr(core, "_registry", dict(core._registry))


def _newer(file: Path) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | {KEY: NEWER}))


def _told(error: pytest.ExceptionInfo, *parts: str) -> None:
    said = str(error.value)
    assert "\n" not in said and all(part in said for part in (*parts, f"format {NEWER}", "update")), said


# Stored names


def test_every_name_that_was_ever_stored_is_read():
    known = {name for name, cls in core._registry.items() if cls.__module__.partition(".")[0] == "lm"}
    written = set(NAMES.read_text().split())
    if gone := sorted(written - known):
        pytest.fail(
            f"checkpoints hold the component {gone[0]!r}, and none is stored or was stored under that name: declare "
            f"@component(was=({gone[0]!r},)) on the class that takes its place (docs/formats.md)"
        )
    if new := sorted(known - written):
        pytest.fail(f"{new[0]!r} is a new stored name, which stays readable from now on: add it to {NAMES.name}")


def test_a_name_is_declared_and_old_ones_are_read(registry):
    @component(name="tests.Ladder", was=("Rungs", "Steps"))
    class Ladder:
        rungs: int
        wide: bool = False
        next: object = None

    tree = Ladder(3, next=Ladder(2))
    saved = to_dict(tree)
    assert saved["type"] == saved["next"]["type"] == "tests.Ladder"
    old = json.loads(json.dumps(saved).replace("tests.Ladder", "Rungs"))
    del old["wide"]
    assert from_dict(saved) == from_dict(old) == tree
    assert from_dict({"type": "Steps", "rungs": 3}) == Ladder(3)
    assert stored_names(Ladder) == ("tests.Ladder", "Rungs", "Steps")
    with pytest.raises(UserError, match=r"^model\.type='Ladder' is no component"):  # the class's own name is not stored
        from_dict({"type": "Ladder", "rungs": 3})
    config = {"model": {"family": "gpt2", "part": old}, "list": [1, {"type": "unknown", "x": 1}]}
    assert canonical(config) == {
        "model": {"family": "gpt2", "part": saved},
        "list": [1, {"type": "unknown", "x": 1}],
    }


def test_the_weights_of_routers_were_knobs_of_the_loss():
    stored = {"type": "NextToken", "loss": {"type": "TokenLoss", "balance": 0.5, "router_z": 0.1, "chunk": 7}}
    assert from_dict(stored) == NextToken(TokenLoss(aux=(("balance", 0.5), ("router_z", 0.1)), chunk=7))
    plain = {"type": "NextToken", "loss": {"type": "TokenLoss", "balance": 0.01, "router_z": 0.0}}
    assert canonical(plain) == canonical({"type": "NextToken"}) == to_dict(NextToken())


def test_knobs_that_were_renamed_or_regrouped(registry):
    @component
    class Lid:
        size: int = 1

    def grouped(stored):
        found = stored.pop("lid_size", None)
        return stored if found is None else stored | {"lid": {"type": "Lid", "size": found}}

    @component(was=("Jar",), upgrade=renamed(tall="height", label="name"))
    class Pot:
        height: int
        name: str = ""

    @component(upgrade=grouped)
    class Kettle(Pot):  # which inherits its knobs, and what these were called
        lid: Lid = Lid()
        next: object = None

    def as_kettle(stored):
        return {"type": "Kettle", "tall": 0, "next": stored} if stored.pop("boils", False) else stored

    @component(upgrade=as_kettle)
    class Pan:
        flat: bool = True

    old = {"type": "Kettle", "tall": 3, "lid_size": 2, "next": {"type": "Jar", "tall": 1, "label": "tea"}}
    now = Kettle(3, lid=Lid(2), next=Pot(1, "tea"))
    assert from_dict(old) == now and from_dict(to_dict(now)) == now
    assert canonical([old, {"type": "Pan"}]) == [to_dict(now), to_dict(Pan())]
    assert from_dict({"type": "Pan", "flat": False, "boils": True}) == Kettle(0, next=Pan(False))
    assert old["next"]["type"] == "Jar" and "lid_size" in old  # what is read is left as it was
    with pytest.raises(
        UserError, match=r"^model\.tall is no knob of Pot; known: height, name"
    ):  # both names: one too many
        from_dict({"type": "Pot", "tall": 3, "height": 4})
    with pytest.raises(UserError, match=r"^model\.height='3' is a str; it must be int$"):
        from_dict({"type": "Pot", "tall": "3"})


def test_attention_opens_as_it_was_stored_before_its_knobs_were_grouped():
    """knobs.json: pairs of what was stored then, and the same in knobs of a later time. A pair is never changed."""
    for before, later in json.loads(NAMES.with_name("knobs.json").read_text()):
        assert before != later
        assert from_dict(before) == from_dict(later)
        assert canonical(before) == canonical(later)


def test_bare_and_called_are_the_same(registry):
    @component()
    class Called:
        x: int = 1

    @component
    class Bare:
        x: int = 1

    assert [to_dict(c())["type"] for c in (Called, Bare)] == ["Called", "Bare"]


@pytest.mark.parametrize("claim", [{"name": "Causal"}, {"was": ("Causal",)}, {"name": "Mine", "was": ("Mast",)}])
def test_two_claims_on_a_name_are_an_error(registry, claim):
    @component(was=("Mast",))
    class Sail:
        x: int = 1

    class Keel:
        x: int = 1

    name = "Causal" if "Causal" in str(claim) else "Mast"
    before = dict(core._registry)
    with pytest.raises(
        UserError, match=rf"two components claim the stored name {name}, \w+ in \S+\.py and Keel in \S+"
    ):
        component(**claim)(Keel)
    assert core._registry == before  # nothing half declared


def test_a_file_that_is_loaded_again_declares_again(registry):
    def load():
        @component(name="Stored", was=("Before",))
        class Again:
            x: int = 1

        return Again

    load()
    again = load()
    assert from_dict({"type": "Before"}) == again()


def test_a_checkpoint_of_a_renamed_component_of_ones_own(registry, tmp_path):
    @component
    class Mute(NextToken):
        share: float = 0.5

    config = tiny.config(tmp_path)
    with config.unlocked():
        config.objective = to_dict(Mute())
    saved = meta_of(config, build(config.model), ByteTokenizer(), "")
    assert saved["components"].keys() == {"Mute"}
    del core._registry["Mute"]

    @component(was=("Mute",))
    class Quiet(NextToken):
        share: float = 0.5
        more: int = 3

    objective = saved["config"]["objective"]
    assert components.restored(objective, saved["components"], "objective", "run") == Quiet()
    assert record.completed(saved["config"])["objective"] == to_dict(Quiet())


def test_the_example_of_the_page_runs(registry):
    page = (Path(__file__).parents[2] / "docs" / "formats.md").read_text()
    (example,) = re.findall(r"^```python\n(.*?)^```$", page, flags=re.MULTILINE | re.DOTALL)
    exec(example, {"__name__": __name__})


# Format numbers


def test_an_upgrade_leads_from_each_format_to_the_next():
    assert len(upgrade.UPGRADES) == CHECKPOINT.number


@pytest.mark.parametrize("number", [True, "1", -1, 1.0, None])
def test_a_number_that_is_none(number):
    with pytest.raises(UserError, match=rf"^here: format={number!r} of this checkpoint must be a number from 0 to"):
        upgrade.upgraded({KEY: number}, "here")


def _save(folder: Path, **changes) -> None:
    config = tiny.config(folder)
    model = build(config.model)
    saved = meta_of(config, model, ByteTokenizer(), "")
    assert saved[KEY] == CHECKPOINT.number
    assert meta_of(config, model, ByteTokenizer(), "", transforms=(LoRA(),))[KEY] == CHECKPOINT.number
    checkpoints = Checkpoints(folder / "run")
    checkpoints.write(0, {"params": tiny.trainer(model)[0].init(tiny.trainer(model)[1]).params}, saved | changes)
    checkpoints.close()


def test_a_newer_checkpoint(tmp_path):
    _save(tmp_path, **{KEY: NEWER})
    with pytest.raises(UserError) as error:
        open_model(tmp_path / "run")
    _told(error, f"{tmp_path}/run/checkpoints/0 is a checkpoint of", f"up to {CHECKPOINT.number}")
    assert (tmp_path / "run" / "checkpoints" / "0").is_dir()


def test_config_json_of_a_run(tmp_path):
    config = tiny.config(tmp_path)
    file = tmp_path / "config.json"
    record.keep(tmp_path, record.plain(config), begins=True)
    saved = json.loads(file.read_text())
    assert saved[KEY] == RUN.number
    assert read_config(file).to_dict() == config.to_dict()
    file.write_text(json.dumps({k: v for k, v in saved.items() if k != KEY}))  # as it was before
    assert read_config(file).to_dict() == config.to_dict()
    _newer(file)
    with pytest.raises(UserError) as error:
        read_config(tmp_path)
    _told(error, f"config file {file} is a config.json of a run of", f"up to {RUN.number}")


@pytest.mark.parametrize(
    ("then", "optimizer", "schedule"),
    [
        ({"b2": 0.5, "warmup": 7}, {"type": "AdamW", "b2": 0.5, "b1": 0.9}, {"type": "Cosine", "warmup": 7}),
        ({"name": "sgd", "b1": 0.5, "clip": 2.0}, {"type": "SGD", "momentum": 0.5, "clip": 2.0}, {"type": "Cosine"}),
        ({"name": "muon", "b1": 0.5, "eps": 1e-3}, {"type": "Muon", "beta": 0.5, "b1": 0.5, "eps": 1e-3}, {}),
        (
            {"schedule": "wsd", "cooldown": 0.5, "final": 0.3, "rates": [["norm", 0.0], [".*", 1.0]]},
            {"lr_multipliers": (("norm", 0.0), (".*", 1.0))},
            {"type": "WSD", "cooldown_fraction": 0.5, "final_lr_ratio": 0.3, "warmup": 100},
        ),
    ],
)
def test_optimizers_that_were_one_flat_section(then, optimizer, schedule, tmp_path):
    """Of a config.json before format 2, here with a few knobs only; in the present one they are none."""
    file = tmp_path / "config.json"
    file.write_text(json.dumps({KEY: 1, "optimizer": then}))
    config = read_config(file)
    check(config)
    for section, knobs in ((config.optimizer, optimizer), (config.schedule, schedule)):
        assert {name: section[name] for name in knobs} == knobs
    file.write_text(json.dumps({KEY: RUN.number, "optimizer": then}))
    if {"name", "rates", "warmup"} & then.keys():
        with pytest.raises(UserError, match=r"config\.optimizer\.\w+ is no knob; it is config\.\w+\.\w+ now$"):
            read_config(file)


def test_sweeps_and_their_records(tmp_path):
    runs, run = tmp_path / "runs.jsonl", {**dict.fromkeys(RECORD, 1.0), "loss_unit": "nats/byte", "seed": 3}
    append_run(runs, run)
    with runs.open("a") as file:
        file.write(json.dumps(run | {"params": 2.0}) + "\n")  # as it was before
    assert [json.loads(line).get(KEY) for line in runs.read_text().splitlines()] == [RUN_RECORD.number, None]
    assert read_runs(runs).keys() == run.keys()
    _newer_line = json.dumps({KEY: NEWER, **run, "params": 3.0}) + "\n"
    with runs.open("a") as file:
        file.write(_newer_line)
    for read in (read_runs, lambda path: records(path)):
        with pytest.raises(UserError) as error:
            read(runs)
        _told(error, f"{runs} line 3 is a run record of", f"up to {RUN_RECORD.number}")


def test_a_table_may_have_a_column_of_that_name(tmp_path):
    table = tmp_path / "runs.jsonl"
    table.write_text("".join(json.dumps({"params": n, "tokens": 9, "loss": 2, KEY: 16}) + "\n" for n in (1, 2)))
    assert list(read_runs(table)[KEY]) == [16, 16]


def test_config_json_of_a_sweep(tmp_path):
    config = cells.default()
    with config.unlocked():
        config.model = tiny.config(tmp_path).model
    config.data.update(tiny.config(tmp_path).data)
    data, file = open_data_of(config), tmp_path / "config.json"
    claim(tmp_path, config, data)
    saved = json.loads(file.read_text())
    assert saved[KEY] == SWEEP.number
    before = {k: v for k, v in json.loads(json.dumps(saved)).items() if k != KEY}  # and knobs that came later
    del before["config"]["data"]["bos"], before["config"]["sweep"]["evaluation_tokens"]
    before["config"]["data"]["tokenizer"] = "byte"
    before["config"]["optimizer"] |= {"name": "adamw", "final": 0.0, "cooldown": 0.2}  # as it was up to format 1
    before["config"]["optimizer"]["decay"] = before["config"]["optimizer"].pop("decay_rules")
    del before["config"]["schedule"], before["config"]["optimizer"]["type"]
    before["config"]["model"] = {k: v for k, v in before["config"]["model"].items() if k != "dropout"}
    file.write_text(json.dumps(before))
    claim(tmp_path, config, data)
    assert json.loads(file.read_text()) == saved
    before["config"]["model"]["context"] = 99
    file.write_text(json.dumps(before))
    with pytest.raises(UserError, match=r"holds a sweep with config\.model\.context=99, not 16: its runs"):
        claim(tmp_path, config, data)
    file.write_text(json.dumps(saved))
    _newer(file)
    for read in (lambda: claim(tmp_path, config, data), lambda: read_config(file, cells.default)):
        with pytest.raises(UserError) as error:
            read()
        _told(error, f"{file} is a config.json of a sweep of", f"up to {SWEEP.number}")


def test_token_caches(tmp_path):
    open_data_of(tiny.config(tmp_path))
    file = next((tmp_path / "cache").rglob("meta.json"))
    saved = json.loads(file.read_text())
    assert saved.pop(KEY) == TOKEN_CACHE.number
    file.write_text(json.dumps(saved))  # as it was before
    assert TokenCache.open(file.parent).size == saved["tokens"]
    _newer(file)
    with pytest.raises(UserError) as error:
        TokenCache.open(file.parent)
    _told(error, f"{file.parent} is a token cache of", f"up to {TOKEN_CACHE.number}")
