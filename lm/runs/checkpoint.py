"""Checkpoints (orbax): parameters, optimizer state, and what is needed to rebuild the model and its tokenizer.

A run's folder has `checkpoints/<step>/` with the items `params`, `opt`, `ema` where the parameters are averaged,
`previous` where gradients are taken at those of the step before, and `meta` (JSON: format, config, model tree, tokenizer, skipped batches, other events, changes of the config), and a
manifest of their files (`lm.runs.manifest`). A checkpoint that does not match its manifest, or has none because the
process was killed first, is reported and skipped in favour of the one before it. `docs/formats.md` lists every key."""

import contextlib
import logging
import shutil
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils
from ml_collections.config_dict import ConfigDict

from lm.core.component import canonical, to_dict
from lm.core.errors import UserError
from lm.core.formats import CHECKPOINT, KEY
from lm.core.param import Tree, abstract, combine
from lm.data.streams import VERSIONS
from lm.core.transform import Transform
from lm.text.tokenizers import Tokenizer, from_saved
from lm.text.format import TextFormat
from lm.model.program import Program
from lm.model.transformer import EncoderDecoder, Model
from lm.runs import manifest
from lm.runs.components import Definitions, definitions, restored
from lm.runs.config_json import plain
from lm.runs.upgrade import upgraded

ITEMS = ("params", "opt", "ema", "previous", "meta")
FOREIGN = (ValueError, KeyError, OSError, TypeError, EOFError)  # what orbax raises for files of another structure
log = logging.getLogger(__name__)


class OpenedModel(NamedTuple):
    model: Model
    params: Tree  # of the program
    text: TextFormat
    config: ConfigDict
    step: int | None  # None: not from a run
    defined: Definitions = MappingProxyType({})  # where the user's own components are defined
    transforms: tuple[Transform, ...] = ()

    @property
    def program(self) -> Program:
        return Program(self.model, self.transforms)

    @property
    def tokenizer(self) -> Tokenizer:
        return self.text.tokenizer


def meta_of(
    config: ConfigDict,
    model: Model,
    tokenizer: Tokenizer,
    text: str,
    wording: dict[str, Any] | None = None,
    transforms: tuple[Transform, ...] = (),
) -> dict:
    """A checkpoint's description of itself: enough to rebuild program and tokenizer.

    text: digest of the training tokens, to recognise the same data;
    wording: the text format of an imported model (`lm.text.format.TextFormat.saved`)."""
    tree, changes, knobs = to_dict(model), to_dict(transforms), canonical(plain(config))
    return {
        KEY: CHECKPOINT.number,
        "config": knobs,
        "model": tree,
        "transforms": changes,
        "components": definitions(tree, changes, knobs),
        "tokenizer": tokenizer.saved(),
        "wording": wording,
        "text": text,
        "versions": VERSIONS,
        "skips": [],
        "events": [],
        "changes": [],
    }


class Checkpoints:
    """The checkpoints of one run. Saves run in the background; `close` waits for them."""

    def __init__(self, workdir: str | Path, keep: int = 3, read_only: bool = False) -> None:
        """Raises `UserError` if there are finished checkpoints but all of them are damaged."""
        # orbax logs every file it touches and every part of a failed save; `wait` reports a failure in one line.
        for name in ("absl", "asyncio"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
        self.path = Path(workdir).expanduser().resolve() / "checkpoints"
        self._damage: dict[int, str | None] = {}
        if not read_only and jax.process_index() == 0:
            self._set_damaged_aside()
        if not read_only:
            _quiet_echoes()
        options = ocp.CheckpointManagerOptions(
            max_to_keep=None if read_only else keep,
            read_only=read_only,
            create=not read_only,
            cleanup_tmp_directories=not read_only,
        )
        if jax.process_count() > 1:  # all must see the same folder
            multihost_utils.sync_global_devices("checkpoints")
        self._background = ThreadPoolExecutor(1)
        self._sealed: Future | None = None  # of the current save, or the last one
        self._manager = ocp.CheckpointManager(self.path, options=options, item_names=ITEMS)

    def _seal(self, step: int) -> None:
        """Write the manifest in the background, once all files of the save are complete."""
        self._manager.wait_until_finished()
        if jax.process_index() == 0:
            manifest.write(self.path / str(step))

    def damage(self, step: int) -> str | None:
        """What is wrong with the files of a checkpoint, or None. Files are hashed only once."""
        if step not in self._damage:
            self._damage[step] = manifest.damage(self.path / str(step))
        return self._damage[step]

    def _newest_sound(self, steps: list[int]) -> int | None:
        """The newest of these steps whose files are undamaged; newer, damaged ones are logged."""
        found = next((s for s in reversed(steps) if self.damage(s) is None), None)
        newer = [s for s in steps if found is None or s > found]
        finished = [s for s in newer if manifest.is_sealed(self.path / str(s))]
        if found is None and finished:
            raise UserError(
                f"every checkpoint in {self.path} is damaged (of step {finished[-1]}, {self.damage(finished[-1])}): "
                "restore one from a copy, or choose another --workdir"
            )
        for step in newer:
            instead = "no earlier one" if found is None else f"that of step {found} is used"
            log.warning("checkpoint %s is damaged (%s); %s", self.path / str(step), self.damage(step), instead)
        return found

    def _set_damaged_aside(self) -> None:
        """Rename damaged checkpoints so that their steps can be saved again."""
        steps = sorted(int(p.name) for p in self.path.glob("*") if p.name.isdecimal())
        sound = self._newest_sound(steps)
        for step in steps:
            if sound is None or step > sound:
                aside = self.path / f"{step}.damaged"
                shutil.rmtree(aside, ignore_errors=True)  # left by an earlier rename
                (self.path / str(step)).rename(aside)
                del self._damage[step]

    @property
    def latest(self) -> int | None:
        """The newest step with an undamaged checkpoint."""
        return self._newest_sound(self.steps)

    def newest(self, upto: int) -> int | None:
        """The newest undamaged checkpoint up to step `upto`, after waiting for the current save."""
        self.wait()
        return self._newest_sound([step for step in self.steps if step <= upto])

    @property
    def steps(self) -> list[int]:
        return sorted(self._manager.all_steps())

    def write(self, step: int, items: dict[str, Tree], meta: dict) -> None:
        """Start saving these items; `params` must be one of them."""
        self.wait()
        with self._writing():
            self._manager.save(
                step,
                args=ocp.args.Composite(
                    **{name: ocp.args.StandardSave(tree) for name, tree in items.items()},
                    meta=ocp.args.JsonSave(meta),
                ),
            )
        self._sealed = self._background.submit(self._seal, step)

    def meta(self, step: int) -> dict:
        """The checkpoint's description of itself (see `meta_of`). Read it first: it raises `UserError` if the
        checkpoint's format is newer than this version."""
        return upgraded(self.restore(step, meta=ocp.args.JsonRestore())["meta"], self.path / str(step))

    def has(self, step: int, item: str) -> bool:
        return (self.path / str(step) / item).is_dir()

    def params(self, step: int, like: Tree, average: bool = False) -> Tree:
        """Only the parameters, or their average, laid out as `like` (arrays or ShapeDtypeStructs with shardings)."""
        item = "ema" if average else "params"
        return self.restore(step, **{item: ocp.args.StandardRestore(like)})[item]

    def params_of(self, step: int, program: Program, like: Tree) -> Tree:
        """The parameters of a program, laid out as `like`; the averaged ones if the run keeps an average."""
        if not self.has(step, "ema"):
            return self.params(step, like)
        free, frozen = program.split(like)
        average = self.params(step, free, average=True)
        if not jax.tree.leaves(frozen):
            return average
        return combine(average, program.split(self.params(step, like))[1])

    def forget(self, after: int) -> None:
        """Delete checkpoints after step `after`: a rewind abandons them."""
        self.wait()
        for step in self.steps:
            if step > after:
                self._manager.delete(step)
                self._damage.pop(step, None)

    def restore(self, step: int, **items: Any) -> Any:
        """Restore items, each given as orbax's restore arguments. Raises `UserError` for a damaged checkpoint."""
        if (wrong := self.damage(step)) is not None:
            raise UserError(
                f"checkpoint {self.path / str(step)} is damaged ({wrong}): use another of the steps "
                f"{', '.join(map(str, self.steps))}"
            )
        try:
            return self._manager.restore(step, args=ocp.args.Composite(**items))
        except FOREIGN as e:
            reason = " ".join(str(e.__cause__ or e).split())[:200]
            raise UserError(
                f"checkpoint {self.path / str(step)} cannot be read ({reason}): was it saved by another version?"
            ) from e

    def wait(self) -> None:
        """Wait for the current save, manifest included. Raises `UserError` if it could not be written."""
        if self._sealed is not None:
            sealed, self._sealed = self._sealed, None
            with self._writing():
                sealed.result()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError) as e:  # ValueError comes from the array store
            reason = " ".join(str(e).split()).rsplit('": ', 1)[-1]
            raise UserError(
                f"a checkpoint could not be written to {self.path} ({reason}); the earlier ones are kept: make room, "
                "then run the same command to go on"
            ) from e

    def close(self) -> None:
        try:
            self.wait()
        finally:
            self._background.shutdown()
            with self._writing():  # it raises again for a save that failed
                self._manager.close()


def _quiet_echoes() -> None:
    """Suppress what the array store prints after a failed save: a traceback for every write still pending when its
    event loop is gone. `Checkpoints.wait` reports the failure itself."""
    shown = sys.unraisablehook
    if getattr(shown, "quiet", False):
        return

    def hook(e: Any) -> None:
        if not (e.exc_type is RuntimeError and str(e.exc_value) == "Event loop is closed"):
            shown(e)

    hook.quiet = True  # type: ignore[attr-defined]
    sys.unraisablehook = hook


def open_model(path: str | Path, step: int | None = None) -> OpenedModel:
    """The model of a run's folder, rebuilt from a checkpoint alone (that of `step`, by default the latest), on one
    device. Its parameters are the averaged ones if the run keeps an average."""
    folder = Path(path).expanduser()
    if not (folder / "checkpoints").is_dir():
        raise UserError(f"{folder} holds no checkpoints: give the --workdir of a training run")
    checkpoints = Checkpoints(folder, read_only=True)
    at = checkpoints.latest if step is None else step
    if at is None or at not in checkpoints.steps:
        have = ", ".join(map(str, checkpoints.steps)) or "none yet"
        raise UserError(f"{folder} has no checkpoint{'' if at is None else f' of step {at}'}; there are: {have}")
    meta = checkpoints.meta(at)
    defined = meta["components"]
    program = program_of(meta, folder)
    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=device), abstract(program.spec()))
    params = checkpoints.params_of(at, program, like)
    checkpoints.close()
    text, config = text_of(meta, program.model), ConfigDict(meta["config"])
    return OpenedModel(program.model, params, text, config, at, defined, program.transforms)


def program_of(meta: dict, source: str | Path) -> Program:
    """The program that a checkpoint's `meta` describes; `source` is named in errors."""
    defined = meta["components"]
    model = restored(meta["model"], defined, "model", source)
    return Program(model, restored(meta["transforms"], defined, "transforms", source))


def text_of(meta: dict, model: Model) -> TextFormat:
    """The text format that a checkpoint's `meta` describes. Unless it records a context, that is the length of a
    training row."""
    text = TextFormat.of(from_saved(meta["tokenizer"]), meta["wording"], isinstance(model, EncoderDecoder))
    return text if text.context else text._replace(context=meta["config"]["data"]["length"])
