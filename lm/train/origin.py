"""The model that a run starts from (`train.init_from`): the run takes over its architecture, tokenizer, text format and
context unless the config says otherwise."""

import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from ml_collections.config_dict import ConfigDict

from lm.adapt.surgery.surgery import Surgery, report, result
from lm.core.component import from_dict, to_dict
from lm.core.errors import UserError
from lm.data.open import Data
from lm.hub.open import FoundModel, ModelFiles, Opened, context_of
from lm.model.transformer import EncoderDecoder, Model
from lm.runs.checkpoint import Checkpoints, text_of
from lm.runs.components import restored
from lm.runs.config_json import difference
from lm.text.format import TextFormat
from lm.train.config import default
from lm.zoo.registry import build, knobs


class Origin(NamedTuple):
    """What is known about a model before its parameters are read.

    knobs: the `config.model` that `build` makes it from;
    unknown: why model or text format could not be read, if the config sets its own instead;
    begun: whether it is the run itself, which goes on;
    surgery: what was done to the model, in a line, if anything was."""

    path: str
    model: Model | None
    knobs: ConfigDict | None
    text: TextFormat | None
    unknown: tuple[str, ...] = ()
    begun: bool = False
    surgery: str = ""


def origin_of(config: ConfigDict, workdir: Path) -> Origin | None:
    """The origin named by `train.init_from`; None for a run from scratch. A run with checkpoints knows its origin from
    them, even if the original folder is gone.

    Raises `UserError` if model or text format cannot be read and the config does not set them."""
    path = config.train.init_from
    if not path:
        return None
    begun = _of_run(workdir)
    if begun is not None:
        return begun._replace(begun=True)
    if (Path(path).expanduser() / "checkpoints").is_dir():
        found = _of_run(Path(path).expanduser())
        if found is None:
            raise UserError(f"{path} has no finished checkpoint yet: wait for its first, or give another folder")
        return found
    model, knobs, text, context, unknown = None, None, None, None, []
    with ModelFiles(path) as files:
        try:
            there = files.find()
            model, knobs = there.model, config_of(there, "").model
            context = context_of(model, there.config)
        except UserError as e:
            if not config.model:
                raise
            unknown.append(f"{e}; the model is that of config.model")
        try:
            text = files.text()._replace(context=context)
        except UserError as e:
            if not config.data.tokenizer:
                raise UserError(f"{e}; or set config.data.tokenizer") from e
            unknown.append(f"{e}; text is written as config.data.tokenizer={config.data.tokenizer} does")
    return Origin(path, model, knobs, text, tuple(unknown))


def _of_run(folder: Path) -> Origin | None:
    if not (folder / "checkpoints").is_dir():
        return None
    with contextlib.closing(Checkpoints(folder, read_only=True)) as checkpoints:
        if (step := checkpoints.latest) is None:
            return None
        meta = checkpoints.meta(step)
    model, config = restored(meta["model"], meta["components"], "model", folder), meta["config"]
    # Knobs of a family do not say multipliers, which the tree does.
    knobs = to_dict(model) if config.get("parametrization", {}).get("base") else config["model"]
    return Origin(str(folder), model, ConfigDict(knobs), text_of(meta, model))


def model_at(path: str | Path) -> Model:
    """The model of a run's folder, a Hugging Face folder or a GGUF file. Raises `UserError`."""
    folder = Path(path).expanduser()
    if (folder / "checkpoints").is_dir():
        found = _of_run(folder)
        if found is None or found.model is None:
            raise UserError(f"{path} has no finished checkpoint yet: wait for its first, or give another folder")
        return found.model
    with ModelFiles(folder) as files:
        return files.find().model


def surgery_of(config: ConfigDict) -> tuple[Surgery, ...]:
    """That of `config.train.surgery`. Raises `UserError` for what is none."""
    made = from_dict(config.train.surgery, "config.train.surgery")
    for i, one in enumerate(made):
        if not isinstance(one, Surgery):
            what = getattr(type(one), "__name__", "")
            raise UserError(
                f"config.train.surgery[{i}] is a {what}, which is no surgery: give NewHead, GrowVocabulary, or your own"
            )
    return made


def operated(config: ConfigDict, origin: Origin | None, tokens: Callable[[], int]) -> tuple[ConfigDict, Origin | None]:
    """The config with `train.surgery` fitted to a tokenizer of so many `tokens`, and the origin with the model that is
    the result of it: of a run that goes on it was done long ago.

    Raises `UserError` for surgery of nothing, or for what it does not find in the model."""
    surgery = surgery_of(config)
    if not surgery:
        return config, origin
    if origin is None:
        raise UserError(
            "config.train.surgery works on the model that a run starts from: set config.train.init_from as well"
        )
    surgery = tuple(s.for_tokenizer(tokens()) if hasattr(s, "for_tokenizer") else s for s in surgery)
    config = ConfigDict(config)
    config.train.surgery = tuple(map(to_dict, surgery))
    if origin.begun:
        return config, origin
    if origin.model is None or origin.knobs is None:
        raise UserError(f"config.train.surgery: the model of {origin.path} is unknown ({origin.unknown[0]})")
    model = result(surgery, origin.model)
    done = f"surgery ({', '.join(type(s).__name__ for s in surgery)}): {_told(surgery, origin.model)}"
    return config, origin._replace(model=model, knobs=_described(origin.knobs, model), surgery=done)


def _told(surgery: Sequence[Surgery], model: Model) -> str:
    found, told = report(surgery, model), []
    for what, paths in (("new, with initial values", found.fresh), ("of no use any more", found.unused)):
        more = f" and {len(paths) - 4} more" if paths[4:] else ""
        told += [f"{what}: {', '.join(paths[:4])}{more}"] if paths else []
    return "; ".join(told) or "every parameter goes on"


def _described(knobs: ConfigDict, model: Model) -> ConfigDict:
    """`config.model` of a model that was made of the one with these knobs: the same knobs, if vocabulary, head or
    number of layers is all that differs, so that it can be exported as that family; else its tree of components."""
    if "family" in knobs:
        tree = to_dict(model)
        for changes in ({}, {"vocab": model.vocab}, {"layers": model.tower.stack.layers}):
            for head in ({}, {"head": tree["head"]}):
                with contextlib.suppress(UserError):
                    made = ConfigDict({**knobs.to_dict(), **changes, **head})
                    if build(made) == model:
                        return made
    return ConfigDict(to_dict(model))


def completed(config: ConfigDict, origin: Origin | None) -> ConfigDict:
    """The config with the origin's model if it sets none. An empty `data.tokenizer` is left as it is and means the
    origin's tokenizer, whose file may be gone."""
    config = ConfigDict(config)
    if origin is None:
        config.data.tokenizer = config.data.tokenizer or "byte"
    elif not config.model:
        with config.unlocked():
            config.model = origin.knobs
    return config


def text_for(
    config: ConfigDict, origin: Origin | None, model: Model, data: Data
) -> tuple[TextFormat | None, list[str]]:
    """The text format of a run's model (None for the format of runs from scratch), and notes on where the config
    differs from the origin."""
    own = TextFormat.of(data.tokenizer, None, isinstance(model, EncoderDecoder))._replace(before=data.before)
    if origin is None:
        return own if data.before else None, []
    notes = [f"{origin.path}: {reason}" for reason in (*origin.unknown, *filter(None, [origin.surgery]))]
    if origin.model is not None and (where := difference(to_dict(model), to_dict(origin.model), "model")) is not None:
        notes.append(f"{where[0]} is {where[1]!r} in this config, {where[2]!r} in {origin.path}: the former is used")
    text, context = own, config.data.length
    if origin.text is not None:
        context = max(origin.text.context or 0, context)
        if data.tokenizer.fingerprint == origin.text.tokenizer.with_special(config.data.reserved).fingerprint:
            text = origin.text._replace(tokenizer=data.tokenizer, before=data.before)
            if isinstance(model, EncoderDecoder) and text.start is None:  # made of a model of one tower
                text = text._replace(start=own.start)
        else:
            named = config.data.tokenizer
            notes.append(f"config.data.tokenizer={named} is not that of {origin.path}: text is written in its own way")
    return text._replace(context=context), notes


def config_of(opened: FoundModel | Opened, tokenizer: str | Path) -> ConfigDict:
    """The config of a run of an opened model: its context, one row per batch, and no data source."""
    length = context_of(opened.model, opened.config)
    config = default()
    with config.unlocked():
        config.model = knobs(**{name: to_dict(value) for name, value in opened.knobs.items() if value is not None})
    config.data.update(source="", tokenizer=str(tokenizer), length=int(length or config.data.length), batch_size=1)
    return config
