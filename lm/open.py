"""Models from elsewhere as models of ours: opened for generation and evaluation, or made a run's folder."""

import contextlib
import logging
from pathlib import Path

import jax
from ml_collections.config_dict import ConfigDict

from lm.core.component import to_dict
from lm.core.errors import UserError, nearest
from lm.hub.folder import is_hf_folder
from lm.hub.open import ModelFiles, Opened, context_of, is_gguf
from lm.hub.save_text import write_text
from lm.hub.tensors import ProgressCallback, quiet, reason
from lm.hub.text import size_note
from lm.model.transformer import Group
from lm.objectives.causal import NextToken
from lm.runs.checkpoint import Checkpoints, OpenedModel, meta_of, open_model
from lm.text.format import TextFormat
from lm.train.origin import config_of

log = logging.getLogger(__name__)


def open_any(path: str | Path, step: int | None = None) -> OpenedModel:
    """The model of a run's folder (the latest checkpoint, or that of `step`), of a Hugging Face folder or a GGUF file,
    on one device."""
    path = Path(path).expanduser()
    if (path / "checkpoints").is_dir():
        return open_model(path, step)
    if not (is_gguf(path) or is_hf_folder(path)):
        what = "holds neither checkpoints/ nor config.json" if path.is_dir() else "is no folder"
        raise UserError(f"{path} {what}: give the --workdir of a training run, a Hugging Face folder, or a .gguf file")
    if step is not None:
        raise UserError(f"{path} has no steps: leave out --step={step}")
    with ModelFiles(path) as files:
        text, opened = files.text(), files.read(files.find())
    text = _fitted(text, opened, path)
    params = jax.device_put(opened.params)  # as they are: `jnp.asarray` compiles a program for each shape
    return OpenedModel(opened.model, params, text, config_of(opened, path), None)


def import_run(
    source: str | Path, out: str | Path, architecture: str | None = None, progress: ProgressCallback = quiet
) -> Opened:
    """Make `out` a run's folder whose checkpoint of step 0 is the model of a Hugging Face folder or a GGUF file, its
    tokenizer beside it. Raises `UserError` where there is a run already."""
    out = Path(out).expanduser()
    if (out / "checkpoints").exists():
        raise UserError(f"{out} holds a run already: choose another folder")
    with ModelFiles(source) as files:
        text, opened = files.text(), files.read(files.find(architecture), progress)
    text = _fitted(text, opened, source)
    try:
        out.mkdir(parents=True, exist_ok=True)
        write_text(out, text, opened.config)
    except OSError as e:
        raise UserError(f"cannot write {out} ({reason(e)}): choose a folder with room to write to") from e
    candidates = (out / name for name in ("tokenizer.model", "tokenizer.json"))
    config = config_of(opened, next(file for file in candidates if file.is_file()))
    with contextlib.closing(Checkpoints(out)) as checkpoints:
        meta = meta_of(config, opened.model, text.tokenizer, "", text.saved())
        checkpoints.write(0, {"params": opened.params}, meta)
    return opened


def part_run(run: str | Path, name: str, out: str | Path, step: int | None = None) -> OpenedModel:
    """Make `out` a run's folder whose checkpoint of step 0 is one model of a group that trained together, averaged if
    the run kept an average. Raises `UserError` where there is a run already, or no such model."""
    out = Path(out).expanduser()
    if (out / "checkpoints").exists():
        raise UserError(f"{out} holds a run already: choose another folder")
    opened = open_model(run, step)
    if not isinstance(opened.model, Group):
        raise UserError(f"{run} has one model, no group of several: give the run as it is")
    parts = dict(opened.model.parts)
    if name not in parts:
        raise UserError(f"{run} has no model {name!r}{nearest(name, parts)}")
    params = opened.model.resolve(opened.program.merge(opened.params))[name]
    config = opened.config.copy_and_resolve_references()
    with config.unlocked():
        config.model = ConfigDict(to_dict(parts[name]))
        config.objective, config.transforms = ConfigDict(to_dict(NextToken())), ()
    with contextlib.closing(Checkpoints(out)) as checkpoints:
        checkpoints.write(
            0, {"params": params}, meta_of(config, parts[name], opened.tokenizer, "", opened.text.saved())
        )
    return opened._replace(model=parts[name], params=params, config=config, step=0, transforms=())


def _fitted(text: TextFormat, opened: Opened, path: str | Path) -> TextFormat:
    """With the model's context, after telling where tokenizer and model are of different size."""
    if (note := size_note(text.tokenizer, opened.model.vocab)) is not None:
        log.warning("%s: %s", path, note)
    return text._replace(context=context_of(opened.model, opened.config))
