"""The knobs of a training run. An experiment file's `get_config()` starts from `default()` and changes what it wants;
`--config.a.b=value` changes the rest.

A config is a `ConfigDict`, and each section of it is the image of a typed one: a dataclass below, or a component that
is chosen by its `type` (objective, optimizer, schedule; the model is a family or a component). The types say what a
knob may be: `check` reads every section as its type, and an unknown knob or a wrong value is one line that names the
nearest right one."""

import dataclasses
import difflib
import importlib
import pkgutil
import re
import typing
from collections.abc import Collection, Iterator, Mapping
from typing import Annotated, Any, Literal

from ml_collections.config_dict import ConfigDict

import lm.data.records
import lm.data.transforms
import lm.train.optim
from lm.core.component import checked, names_of, registered, stored_names, to_dict, upgraded
from lm.core.errors import UserError, nearest
from lm.core.ranges import Count, CountOrNone, Range
from lm.core.remat import check_names
from lm.data.rates import Rates
from lm.data.records.documents import Documents
from lm.data.records.records import Records
from lm.kernels.attention.select import KERNELS as ATTENTIONS
from lm.kernels.cross_entropy.select import KERNELS as CROSS_ENTROPIES
from lm.kernels.grouped_matmul.select import KERNELS as GROUPED_MATMULS
from lm.objectives.causal import NextToken
from lm.runs.upgrade import MOVED
from lm.train.health.monitor import Recovery
from lm.train.optim.adamw import AdamW
from lm.train.optim.optimizer import Optimizer
from lm.train.optim.schedule import Cosine, Schedule
from lm.train.parametrization.config import Parametrization

for _package in (lm.train.optim, lm.data.records, lm.data.transforms):
    for _module in pkgutil.iter_modules(_package.__path__, f"{_package.__name__}."):
        importlib.import_module(
            _module.name
        )  # each optimizer, and each kind of record, is known by its file being there


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """config.data: the text, and the rows that are cut from it."""

    source: str = "python-stdlib"  # or a text file, a folder, JSON, .csv, .tsv, .parquet; compressed too
    validation: str = ""  # a source of its own; "": part of `source`
    holdout: Annotated[float, Range(0, 1, above=True, below=True)] = 0.02  # that part's size
    pattern: str = "*.txt"  # files of a folder
    field: str = "text"  # of JSON ("meta.text": in another), column of a table: its name, else its number
    records: Records = Documents()  # what a record is, and how it is written
    # of documents before they become tokens, in order, as JSON: [{"type": "QualityRules"}, {"type": "ExactDuplicates"}]
    transforms: tuple = ()
    # byte, bpe-2048, unigram-2048 (trained on `source`), a SentencePiece .model file, a tokenizer.json; "" is that of
    # train.init_from, or byte
    tokenizer: str = ""
    reserved: tuple[str, ...] = ()  # special tokens besides, which are added to a tokenizer that lacks them
    # begin-of-text before each document; auto: as the model of train.init_from reads
    bos: Literal["auto", "on", "off"] = "auto"
    # ((source, weight), (source, weight, field), (source, weight, {"type": "Pairs", ...}), ...) in place of `source`;
    # the fourth item of one is the part of a Mixed objective that its rows go to: (source, weight, "", "prefix")
    mixture: tuple = ()
    rates: Rates = Rates()  # of the mixture's sources, by their weights or by their sizes
    # or best-fit: whole documents, padded rows; one: a document to a row; stream: rows go on in the next batch
    packing: Literal["concat", "best-fit", "stream", "one"] = "concat"
    long: Literal["error", "drop", "cut"] = "error"  # what becomes of a pair or chat that is longer than a row
    length: Count = 256  # tokens per row
    batch_size: Count = 16  # rows per step, over all devices
    # processes that build examples, where those are slow to build: see `waiting` in metrics.jsonl; 0: a thread does
    workers: CountOrNone = 0
    cache: str = "~/.cache/pure-lm"  # folder of token caches and trained tokenizers


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """config.train: how long, from what, and how a step is computed."""

    steps: Count = 1000  # of the whole run
    # A model to go on from: a run's folder, a Hugging Face folder, a GGUF file. Its model and tokenizer are taken where
    # `model` and `data.tokenizer` are not set.
    init_from: str = ""
    # What is done to that model at step 0, in order, as JSON: [{"type": "NonCausal"}, {"type": "GrowVocabulary"}]
    surgery: tuple = ()
    accumulate: Count = 1  # microbatches per step
    # ((first step, rows), ...): smaller batches at first; multiples of a microbatch
    batch_warmup: tuple[tuple[int, int], ...] = ()
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"  # of the computation; parameters are float32
    # what is computed anew in the backward pass: or dots (all but products with weights), full, and all but what
    # remat_names says, which is kept (names) or waits in the host's memory (offload): lm.core.remat
    remat: Literal["none", "dots", "full", "names", "offload"] = "none"
    remat_names: tuple[
        str, ...
    ] = ()  # of lm.core.remat.NAMES: ("queries", "keys", "values", "hidden"), ("layer_input",)
    unroll: bool = False  # walk layers in Python instead of lax.scan
    attention: str = ""  # a kernel by its name in lm.kernels.attention.select.KERNELS; "": the best one for each layer
    grouped_matmul: str = ""  # likewise of experts, by its name in lm.kernels.grouped_matmul.select.KERNELS
    cross_entropy: str = ""  # likewise of the loss, by its name in lm.kernels.cross_entropy.select.KERNELS
    noise_scale: bool = False  # measure the gradient noise scale; needs two microbatches
    recovery: Recovery = Recovery()  # from a loss that is not finite, or spikes

    def __post_init__(self) -> None:
        tables: dict[str, Collection[str]] = {
            "attention": ATTENTIONS,
            "grouped_matmul": GROUPED_MATMULS,
            "cross_entropy": CROSS_ENTROPIES,
        }
        for knob, table in tables.items():
            if (name := getattr(self, knob)) and name not in table:
                raise UserError(f"config.train.{knob}={name!r} is no kernel{nearest(name, table)}")
        check_names(self.remat, self.remat_names, "config.train.remat_names")
        if self.noise_scale and self.accumulate < 2:
            raise UserError("config.train.noise_scale compares microbatches: set config.train.accumulate to 2 or more")


@dataclasses.dataclass(frozen=True)
class ParallelConfig:
    """config.parallel: how a step is spread over the devices of config.mesh."""

    pipeline: Count = 1  # stages over which repeated layers are spread, each with all the devices of `mesh`
    microbatches: CountOrNone = 0  # that go through the stages one after the other; 0: as many as there are stages
    chunks: Count = 1  # of layers on each stage, which microbatches come to in turn: less time is idle, more is sent
    # when stages do backward passes: gpipe: after all forward passes; 1f1b: in turn with them, which takes less memory
    schedule: Literal["gpipe", "1f1b"] = "gpipe"
    # gradients are taken at the weights of the step before, so that no pipeline need run empty (PipeDream-2BW)
    double_buffered: bool = False
    # how tokens attend that lie on several devices (config.mesh.context): by a ring, by heads for tokens (ulysses), or
    # among keys that each device gathers; auto: the best way for each layer
    context: Literal["auto", "ring", "ulysses", "gather"] = "auto"
    zigzag: bool = True  # a ring balances causal attention by the order in which tokens lie, where the model allows it
    # what the axis fsdp shares out: the optimizer's state (1), gradients too (2), parameters too (3), as ZeRO 1 to 3
    zero: Annotated[int, Range(1, 3)] = 3
    # in which devices add up gradients of weights that they share out, and of what these read; bfloat16 halves what is
    # sent, and is coarser
    reduce_dtype: Literal["float32", "bfloat16"] = "float32"
    # a preset of lm.core.rules: or sequence: between sub-layers the tensor axis shares out the tokens of a row; 2d,
    # 2.5d and 3d: the axes row, column and depth, in place of tensor, cut weights in two directions
    rules: Literal["default", "sequence", "2d", "2.5d", "3d"] = "default"
    # (("batch", ("replica", "data")), ...): logical axis, the mesh axes that cut it
    own_rules: tuple[tuple[str, Any], ...] = ()


@dataclasses.dataclass(frozen=True)
class LogConfig:
    """config.log: what a run leaves behind, and how often."""

    every: Count = 10  # steps between metric records
    eval_every: CountOrNone = 250  # steps; 0: at the end only
    eval_batches: CountOrNone = 0  # of each evaluation; 0: the whole validation split
    checkpoint_every: CountOrNone = 250  # steps; 0: at the end only
    keep: Count = 3  # checkpoints
    # steps between copies on each machine's own disk, from which a run goes on where all of them are found; 0: none
    local_checkpoint_every: CountOrNone = 0
    local_dir: str = ""  # folder of such copies; "": in the system's folder for temporary files
    profile_at: CountOrNone = 0  # step at which a trace for TensorBoard or Perfetto begins; 0: when SIGUSR1 comes
    profile_steps: Count = 3  # of such a trace
    tensorboard: bool = False  # event files in <workdir>/tensorboard; needs the extra `board`


SEED = Annotated[int, Range(0, 2**32 - 1)]
SECTIONS: dict[str, type] = {
    "parametrization": Parametrization,
    "data": DataConfig,
    "train": TrainConfig,
    "parallel": ParallelConfig,
    "log": LogConfig,
}
CHOSEN: dict[str, type] = {"optimizer": Optimizer, "schedule": Schedule}  # components of these kinds, by their `type`
WITHIN: dict[str, type] = {"data.records": Records}  # such components within a section


def default() -> ConfigDict:
    """Every knob with its default. `config.model` is {"family": .., knobs of the zoo function}, or a component tree."""
    config = ConfigDict()
    config.seed = 0  # of first parameters, order of the data, dropout
    config.model = ConfigDict()
    config.objective = ConfigDict(to_dict(NextToken()))
    config.transforms = ()  # of the parameters, in order, as JSON: [{"type": "Int8"}, {"type": "LoRA", "rank": 8}]
    config.data = as_config(DataConfig())
    config.optimizer = as_config(AdamW())  # a component of lm.train.optim, or one of your own
    config.parametrization = as_config(Parametrization())
    config.schedule = as_config(Cosine())  # of the learning rate: one of lm.train.optim.schedule
    config.train = as_config(TrainConfig())
    config.mesh = ConfigDict(  # axes of the mesh and their sizes; axes of one's own need a rule
        {
            "slice": 1,  # TPU slices, or other groups that a slower network connects, that each take rows of the batch
            "data": -1,  # devices that each take rows of the batch; -1: all that remain
            "fsdp": 1,  # that do so, and share the parameters out between them
            "expert": 1,  # that share experts out
            "context": 1,  # that share out the tokens of a row
            "depth": 1,  # with row and column, in place of tensor: of config.parallel.rules 2.5d and 3d
            "row": 1,  # of 2d, 2.5d and 3d
            "column": 1,  # of 2d, 2.5d and 3d
            "tensor": 1,  # that share out heads, feed-forward width and vocabulary
        }
    )
    config.parallel = as_config(ParallelConfig())
    # ((first step, {"data.mixture": .., "objective": .., "data.length": ..}), ...): what else holds from each step on
    config.stages = ()
    config.log = as_config(LogConfig())
    return config.lock()


def as_config(part: Any) -> ConfigDict:
    """A section, or the component that is chosen for one, as knobs to be changed: as_config(Muon(beta=0.95))."""
    cls = type(part)
    name = stored_names(cls)[0]
    knobs = {"type": name} if registered(name) is cls else {}
    for f in dataclasses.fields(part):
        value = getattr(part, f.name)
        knobs[f.name] = as_config(value) if dataclasses.is_dataclass(value) else value
    return ConfigDict(knobs)


def check(config: ConfigDict) -> None:
    """Raise `UserError` for what no run could use: an unknown or missing knob, a wrong type, a value out of range."""
    like = default()
    _check_names(config, like, "config")
    checked(config.seed, SEED, "config.seed")
    for name in ("model", "objective"):  # whose knobs are checked when they are built
        if not isinstance(value := config[name], ConfigDict):
            kind = type(value).__name__
            raise UserError(f"config.{name}={value!r} is a {kind}; it must be a ConfigDict: see knobs()")
    for name in (*SECTIONS, *CHOSEN):
        section(config, name)
    for axis, size in _knobs(config.mesh, "config.mesh", like.mesh).items():
        checked(size, int, f"config.mesh.{axis}")  # axes and sizes are judged with the rules and the devices at hand
    _check_missing(config.mesh, like.mesh, "config.mesh")
    if config.train.recovery.action == "reshuffle" and config.data.packing == "stream":
        raise UserError(
            "config.train.recovery.action='reshuffle' would break rows that go on in the next batch: take rewind or "
            "lower, or config.data.packing='concat'"
        )
    if config.data.batch_size % config.train.accumulate:
        raise UserError(
            f"config.data.batch_size={config.data.batch_size} is no multiple of "
            f"config.train.accumulate={config.train.accumulate}: change one of them"
        )


def section(config: ConfigDict, name: str) -> Any:
    """A section as its type has it (`SECTIONS`, `CHOSEN`). Raises `UserError` for knobs that this does not allow."""
    if name in CHOSEN:
        return chosen(name, config[name])
    return _read(SECTIONS[name], config[name], f"config.{name}")


def chosen(name: str, knobs: Any) -> Any:
    """The component that these knobs of config.optimizer, config.schedule or config.data.records describe; what they
    leave out has its default. Raises `UserError`."""
    kind, where = {**CHOSEN, **WITHIN}[name], f"config.{name}"
    given = upgraded(_knobs(knobs, where, ("type",)))
    cls: Any = registered(given.get("type"))
    if cls is None or not issubclass(cls, kind):
        raise UserError(f"{where}.{wrong_type(name, given.get('type'))}")
    defaults = {f.name: f.default for f in dataclasses.fields(cls) if f.default is not dataclasses.MISSING}
    return _read(cls, defaults | {k: v for k, v in given.items() if k != "type"}, where)


def wrong_type(name: str, given: Any) -> str:
    """What to say of a `type` which is that of no component that may stand in this section."""
    hint = nearest(str(given), names_of({**CHOSEN, **WITHIN}[name]))
    return f"type={given!r} is no {name.rpartition('.')[2]}{hint} (one of your own: name its file with --import)"


def _knobs(value: Any, where: str, names: Any) -> dict[str, Any]:
    if isinstance(value, ConfigDict):
        return value.to_dict()
    if not isinstance(value, Mapping):
        raise UserError(f"{where}={value!r} must have the knobs {', '.join(names)}")
    return dict(value)


def _check_names(given: Any, names: Any, where: str, kind: type | None = None) -> None:
    for name in given:
        if name not in names:
            if where.removeprefix("config.") in WITHIN and kind is not None:
                raise UserError(f"{where}.{name} is no knob of {kind.__name__}{nearest(name, names)}")
            like = default()
            if where.removeprefix("config.") in CHOSEN and kind is not None:
                with like.unlocked():
                    like[where.removeprefix("config.")] = as_config(kind())
            raise UserError(f"{where}.{name} is no knob{nearest_knob(f'{where}.{name}', like)}")
    _check_missing(given, names, where)


def _check_missing(given: Any, names: Any, where: str) -> None:
    for name in names:
        if name not in given:
            raise UserError(f"{where}.{name} is missing: let get_config() start from lm.train.config.default()")


def _read(kind: type, knobs: Any, where: str) -> Any:
    """The dataclass with these knobs, each of the type and in the range that its field says."""
    hints = typing.get_type_hints(kind, include_extras=True)
    names = [f.name for f in dataclasses.fields(kind)]
    knobs = _knobs(knobs, where, names)
    _check_names(knobs, names, where, kind)
    return kind(**{name: _read_knob(hints[name], knobs[name], f"{where}.{name}") for name in names})


def _read_knob(hint: Any, value: Any, where: str) -> Any:
    if (path := where.removeprefix("config.")) in WITHIN:
        return chosen(path, value)
    if dataclasses.is_dataclass(hint):
        return _read(typing.cast(type, hint), value, where)
    return checked(tuples(value), hint, where)


def tuples(value: Any) -> Any:
    """Lists in a value, which is what JSON has, as tuples."""
    return tuple(map(tuples, value)) if isinstance(value, (list, tuple)) else value


# What other programs call some knobs.
ELSEWHERE = {
    "lr": "optimizer.learning_rate",
    "wd": "optimizer.weight_decay",
    "warmup_steps": "schedule.warmup",
    "num_warmup_steps": "schedule.warmup",
    "beta1": "optimizer.b1",
    "beta2": "optimizer.b2",
    "grad_clip": "optimizer.clip",
    "max_grad_norm": "optimizer.clip",
    "max_steps": "train.steps",
    "max_iters": "train.steps",
    "num_train_steps": "train.steps",
    "gradient_accumulation_steps": "train.accumulate",
    "seq_len": "data.length",
    "sequence_length": "data.length",
    "max_length": "data.length",
    "block_size": "data.length",
    "per_device_train_batch_size": "data.batch_size",
    "dataset": "data.source",
}


def nearest_knob(path: str, config: ConfigDict | None = None) -> str:
    """`; did you mean config.a.b?` for a path `config.x.y` that is no knob (of `config`, or else of a training run's):
    by what it was called before, what other programs call it, then by spelling, first in its own section, then in the
    others. In a section that is a component, also the knobs that this one has."""
    config = default() if config is None else config
    path = path.removeprefix("config.")
    if path in MOVED:
        return f"; it is config.{MOVED[path]} now"
    *section, name = path.split(".")
    paths = [p for p in knobs_of(config) if not p.startswith(("model.", "objective."))]
    here = [p for p in paths if p.split(".")[:-1] == section]
    elsewhere = [path for path in (ELSEWHERE.get(n) for n in _close(name, list(ELSEWHERE), 0.8)) if path in paths]
    near = elsewhere or _close(name, here) or _close(name, paths)
    sections = [name for name, value in config.items() if isinstance(value, ConfigDict)]
    if section and section[0] not in config:
        meant = _close(section[0], sections)
        near = [p for p in paths if meant and re.fullmatch(rf"{meant[0]}\.(.*\.)?{name}", p)] or meant or near
    elif not section:
        near = near or _close(name, sections)
    own = ""
    if section and section[0] in CHOSEN and isinstance(parts := config.get(section[0]), ConfigDict):
        own = f"{parts.get('type')} has {', '.join(k for k in parts if k != 'type')}"
    if near:
        return f"; did you mean config.{near[0]}?" + (f" ({own})" if own else "")
    if own:
        return f"; {own}"
    return "; python -m lm.train --print_config lists them all"


def _close(name: str, paths: list[str], cutoff: float = 0.6) -> list[str]:
    """The path whose last word is nearest, if one is near."""
    by_name = {p.rpartition(".")[2]: p for p in reversed(paths)}
    return [by_name[n] for n in difflib.get_close_matches(name, by_name, n=1, cutoff=cutoff)]


def knobs_of(config: ConfigDict, where: str = "") -> Iterator[str]:
    """The path of every knob, as "data.length"."""
    for name in config:
        if isinstance(config[name], ConfigDict):
            yield from knobs_of(config[name], f"{where}{name}.")
        else:
            yield f"{where}{name}"
