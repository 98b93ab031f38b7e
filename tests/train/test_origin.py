"""Fine-tuning: `train.init_from` alone gives model, tokenizer, text format and context; they stay through export."""

import io
from pathlib import Path
from typing import Any

import pytest
from ml_collections.config_dict import ConfigDict
from rich.console import Console

from lm.adapt.surgery.vocabulary import GrowVocabulary
from lm.core.component import to_dict
from lm.core.errors import UserError
from lm.hub.open import open_folder
from lm.hub.save import save_folder
from lm.hub.text import read_text
from lm.open import import_run
from lm.runs.checkpoint import open_model
from lm.text.format import TextFormat
from lm.text.tokenizers import ByteTokenizer
from lm.train.config import default
from lm.train.data import open_data_of
from lm.train.loop import train
from lm.train.origin import completed, origin_of, text_for
from lm.zoo.registry import build, knobs
from tests import toys
from tests.train import tiny

pytest.importorskip("safetensors", reason="the package safetensors is not installed")
pytest.importorskip("tokenizers", reason="the package tokenizers is not installed")
from tests.hub.chat_model import KNOBS, TEMPLATE, text


@pytest.fixture(scope="module")
def hf(tmp_path_factory) -> Path:
    """A chat model of a context of 64, with two ends."""
    path = tmp_path_factory.mktemp("hf")
    save_folder(path, KNOBS, toys.values(build(KNOBS).spec()), text(), length=64)
    return path


def config_of(folder: Path, init_from: Path, **changes: Any) -> ConfigDict:
    """Rows of 16 tokens; neither model nor tokenizer, unless `changes` gives them."""
    c = tiny.config(folder)
    with c.unlocked():
        c.model = changes.get("model", ConfigDict())
    c.data.update(tokenizer=changes.get("tokenizer", ""))
    c.train.update(init_from=str(init_from), steps=2)
    return c


def run(config: ConfigDict, workdir: Path) -> str:
    """What a run says."""
    said = Console(file=io.StringIO(), width=1000)
    train(config, workdir, said)
    return said.file.getvalue()


@pytest.mark.parametrize("kind", ["folder", "imported run"])
def test_the_text_format_and_context_stay_with_the_model(hf, tmp_path, kind):
    origin = hf
    if kind == "imported run":
        origin = tmp_path / "imported"
        import_run(hf, origin)
    assert "note" not in run(config_of(tmp_path, origin), tmp_path / "tuned")
    opened, there = open_model(tmp_path / "tuned"), read_text(hf)
    assert opened.step == 2 and opened.model == open_folder(hf).model and opened.config.data.length == 16
    assert opened.text.template == TEMPLATE and opened.text.ends == (0, 1)
    assert opened.text.context == 64 and opened.tokenizer.fingerprint == there.tokenizer.fingerprint
    out = tmp_path / "out"
    config = save_folder(out, opened.config.model.to_dict(), opened.params, opened.text)
    assert config["max_position_embeddings"] == 64 and config["eos_token_id"] == [0, 1]
    again = read_text(out)
    assert again == there._replace(tokenizer=again.tokenizer)
    assert again.tokenizer.fingerprint == there.tokenizer.fingerprint


@pytest.mark.slow
def test_a_run_goes_on_without_the_folder_that_it_began_with(hf, tmp_path):
    import shutil

    shutil.copytree(hf, tmp_path / "hf")
    c = config_of(tmp_path, tmp_path / "hf")
    run(c, tmp_path / "tuned")
    shutil.rmtree(tmp_path / "hf")
    c.train.steps = 3
    assert "resumed at step 2" in run(c, tmp_path / "tuned")
    assert open_model(tmp_path / "tuned").text.template == TEMPLATE


def test_special_tokens_are_added_to_tokenizer_and_model(hf, tmp_path):
    """They stay with the text format, through the run's folder and an export."""
    c = config_of(tmp_path, hf)
    sentinels = tuple(f"<extra_id_{i}>" for i in range(50))
    c.data.reserved = (*sentinels, "[R]")
    with pytest.raises(UserError, match=r"has \d+ tokens, more than .*: set config.train.surgery=\[{\"type\": \"GrowV"):
        run(c, tmp_path / "tuned")
    c.train.surgery = (to_dict(GrowVocabulary()),)
    said = run(c, tmp_path / "tuned")
    assert "surgery (GrowVocabulary): every parameter goes on" in said and "is not that of" not in said
    opened, before = open_model(tmp_path / "tuned"), read_text(hf).tokenizer
    assert opened.model.vocab == opened.tokenizer.vocab_size == before.vocab_size + 51
    assert opened.text.template == TEMPLATE and opened.text.ends == (0, 1)
    save_folder(tmp_path / "out", opened.config.model.to_dict(), opened.params, opened.text)
    assert open_folder(tmp_path / "out").model == opened.model
    for tokenizer in (opened.tokenizer, read_text(tmp_path / "out").tokenizer):
        assert tokenizer.sentinel(49) == before.vocab_size + 49 and tokenizer.piece_id("[R]") == before.vocab_size + 50
        assert tokenizer.encode("a <extra_id_0>").tolist() == before.encode("a <extra_id_0>").tolist()


def settled(config: ConfigDict, workdir: Path) -> tuple[TextFormat | None, list[str], ConfigDict]:
    """Text format, notes and whole config of a run that is about to start."""
    origin = origin_of(config, workdir)
    config = completed(config, origin)
    return *text_for(config, origin, build(config.model), open_data_of(config, origin and origin.text)), config


def test_settings_that_differ_are_told(hf, tmp_path):
    c = config_of(tmp_path, hf, model=knobs("llama", **{k: v for k, v in KNOBS.items() if k != "family"}))
    c.data.tokenizer = str(hf / "tokenizer.json")
    text, notes, _ = settled(c, tmp_path)
    assert text is not None and text.template == TEMPLATE and not notes
    c.model.theta = 500.0
    text, notes, _ = settled(c, tmp_path)
    assert text is not None and text.template == TEMPLATE
    assert len(notes) == 1 and "theta is 500.0 in this config, 10000.0 in" in notes[0]
    c.model.theta = 10000.0
    c.data.tokenizer = "byte"
    text, notes, _ = settled(c, tmp_path)
    assert len(notes) == 1 and "config.data.tokenizer=byte is not that of" in notes[0]
    assert text == TextFormat(ByteTokenizer(), (1,), context=64)


def test_longer_rows_than_the_context_make_it_longer(hf, tmp_path):
    c = config_of(tmp_path, hf)
    c.data.length = 80
    text, notes, c = settled(c, tmp_path)
    assert text is not None and text.context == 80 and not notes and c.model.layers == 2


def test_what_is_missing_is_told(hf, tmp_path):
    (tmp_path / "bare").mkdir()
    for name in ("config.json", "model.safetensors"):
        (tmp_path / "bare" / name).write_bytes((hf / name).read_bytes())
    with pytest.raises(UserError, match=r"has no tokenizer\.json.*; or set config.data.tokenizer"):
        settled(config_of(tmp_path, tmp_path / "bare"), tmp_path)
    _, notes, _ = settled(config_of(tmp_path, tmp_path / "bare", tokenizer="byte"), tmp_path)
    assert len(notes) == 1 and "text is written as config.data.tokenizer=byte does" in notes[0]
    with pytest.raises(UserError, match="gone does not exist"):
        settled(config_of(tmp_path, tmp_path / "gone"), tmp_path)


def test_an_imported_model_has_no_data_of_its_own(hf, tmp_path):
    import_run(hf, tmp_path / "imported")
    config = open_model(tmp_path / "imported").config
    assert config.data.source == "" and config.data.length == 64
    with pytest.raises(UserError, match=r"data\.source is empty: name a file"):
        config.data.batch_size = 8
        run(config, tmp_path / "run")


@pytest.mark.slow
def test_our_own_runs_context_is_their_row(tmp_path):
    c = tiny.config(tmp_path)
    c.train.steps = 1
    run(c, tmp_path / "run")
    opened = open_model(tmp_path / "run")
    assert opened.text == TextFormat(ByteTokenizer(), (1,), context=16) and opened.config.data.tokenizer == "byte"
    assert default().data.tokenizer == ""
