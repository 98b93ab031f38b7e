"""The knobs of a training run. An experiment file's `get_config()` starts from `default()` and changes what it wants;
`--config.a.b=value` changes the rest. Unknown knobs and wrong types are errors that name the nearest right one."""

import dataclasses
import difflib
import re
from collections.abc import Collection, Iterator
from typing import Any

from ml_collections.config_dict import ConfigDict

from lm.core.component import checked, in_range, to_dict
from lm.core.errors import UserError, nearest
from lm.core.mesh import PRESETS
from lm.core.ranges import AT_LEAST_1, BELOW_1, NOT_NEGATIVE, POSITIVE, SHARE, Range
from lm.core.walk import REMAT
from lm.data.packing import PACKINGS
from lm.objectives.causal import NextToken
from lm.train.health.monitor import ACTIONS, Recovery
from lm.train.optim.optimizer import TRANSFORMS
from lm.train.optim.schedule import SCHEDULES


def default() -> ConfigDict:
    """Every knob with its default. `config.model` is {"family": .., knobs of the zoo function}, or a component tree."""
    config = ConfigDict()
    config.seed = 0  # of first parameters, order of the data, dropout
    config.model = ConfigDict()
    config.objective = ConfigDict(to_dict(NextToken()))
    config.transforms = ()  # of the parameters, in order, as JSON: [{"type": "Int8"}, {"type": "LoRA", "rank": 8}]
    config.data = ConfigDict(
        {
            "source": "python-stdlib",  # or a text file, a folder, JSON, .csv, .tsv, .parquet; compressed too
            "validation": "",  # a source of its own; "": part of `source`
            "holdout": 0.02,  # that part's size
            "pattern": "*.txt",  # files of a folder
            "field": "text",  # of JSON ("meta.text": in another), column of a table: its name, else its number
            # byte, bpe-2048, unigram-2048 (trained on `source`), a SentencePiece .model file, a tokenizer.json; "" is
            # that of train.init_from, or byte
            "tokenizer": "",
            "reserved": (),  # special tokens besides, of a tokenizer trained here
            "bos": "auto",  # begin-of-text before each document: on, off; auto: as the model of train.init_from reads
            "mixture": (),  # ((source, weight), (source, weight, field), ...) in place of `source`
            "packing": "concat",  # or best-fit: whole documents, padded rows; stream: rows go on in the next batch
            "length": 256,  # tokens per row
            "batch_size": 16,  # rows per step, over all devices
            "cache": "~/.cache/pure-lm",  # folder of token caches and trained tokenizers
        }
    )
    config.optimizer = ConfigDict(
        {
            "name": "adamw",  # or adafactor, lion, muon, sgd
            "learning_rate": 1e-3,  # the peak
            "schedule": "cosine",  # of the learning rate; or linear, inverse_sqrt, constant, wsd
            "warmup": 100,  # steps
            "final": 0.1,  # the last learning rate, as a share of the first
            "cooldown": 0.2,  # wsd: share of the steps
            "b1": 0.9,  # of the running mean of gradients; the momentum of muon and sgd
            "b2": 0.95,  # of their squares
            "eps": 1e-8,  # beside the square root of those
            "weight_decay": 0.1,  # times the learning rate
            "clip": 1.0,  # global norm of the gradient; 0: off
            # (pattern of a parameter's path, share of weight_decay); the first match counts. What none matches goes by
            # its kind: 1 for weights, 0 for gains and biases
            "decay": (("embed/position", 0.0),),
            # (pattern, share of the learning rate); 0 freezes: neither gradient nor optimizer state
            "rates": ((r".*", 1.0),),
            "embed_gradient": 1.0,  # share of the gradient that reaches the token table from the input (GLM-130B: 0.1)
            "ema": 0.0,  # average of the parameters: share kept at each step, as 0.999; 0: off
        }
    )
    config.train = ConfigDict(
        {
            "steps": 1000,  # of the whole run
            # A model to go on from: a run's folder, a Hugging Face folder, a GGUF file. Its model and tokenizer are
            # taken where `model` and `data.tokenizer` are not set.
            "init_from": "",
            "accumulate": 1,  # microbatches per step
            "batch_warmup": (),  # ((first step, rows), ...): smaller batches at first; multiples of a microbatch
            "dtype": "float32",  # of the computation, or bfloat16, float16; parameters are float32
            "remat": "none",  # what is computed anew in the backward pass: or dots (all but matrix products), full
            "unroll": False,  # walk layers in Python instead of lax.scan
            "noise_scale": False,  # measure the gradient noise scale; needs two microbatches
            "recovery": dataclasses.asdict(Recovery()),  # from a loss that is not finite, or spikes
        }
    )
    config.mesh = ConfigDict(  # axes of the mesh and their sizes; axes of one's own need a rule
        {
            "data": -1,  # devices that each take rows of the batch; -1: all that remain
            "fsdp": 1,  # that do so, and share the parameters out between them
            "expert": 1,  # that share experts out
            "context": 1,  # that share out the tokens of a row
            "tensor": 1,  # that share out heads, feed-forward width and vocabulary
        }
    )
    config.parallel = ConfigDict(
        {
            "pipeline": 1,  # stages over which repeated layers are spread: as many times the devices of `mesh`
            "microbatches": 0,  # that go through the stages one after the other; 0: as many as there are stages
            "rules": "default",  # or sequence: between sub-layers the tensor axis shares out the tokens of a row
            "own_rules": (),  # (("batch", ("replica", "data")), ...): logical axis, the mesh axes that cut it
        }
    )
    config.log = ConfigDict(
        {
            "every": 10,  # steps between metric records
            "eval_every": 250,  # steps; 0: at the end only
            "eval_batches": 0,  # of each evaluation; 0: the whole validation split
            "checkpoint_every": 250,  # steps; 0: at the end only
            "keep": 3,  # checkpoints
            "profile_at": 0,  # step at which a trace for TensorBoard or Perfetto begins; 0: when SIGUSR1 comes
            "profile_steps": 3,  # of such a trace
            "tensorboard": False,  # event files in <workdir>/tensorboard; needs the extra `board`
        }
    )
    return config.lock()


CHOICES: dict[str, Collection[str]] = {
    "optimizer.name": TRANSFORMS,  # these two as they stand, to which an experiment file may add its own
    "optimizer.schedule": SCHEDULES,
    "train.dtype": ("float32", "bfloat16", "float16"),
    "train.recovery.action": ACTIONS,
    "data.packing": tuple(PACKINGS),
    "data.bos": ("auto", "on", "off"),
    "train.remat": tuple(REMAT),
    "parallel.rules": tuple(PRESETS),
}
# Of the other numbers: finite ones (`mesh` is judged with the devices at hand).
RANGES: dict[str, Range] = {
    "seed": Range(0, 2**32 - 1),
    "data.holdout": Range(0, 1, above=True, below=True),
    "optimizer.b1": BELOW_1,
    "optimizer.b2": BELOW_1,
    "optimizer.eps": POSITIVE,  # Adam divides 0 by it where a gradient is 0
    "optimizer.ema": BELOW_1,
    **dict.fromkeys(("optimizer.final", "optimizer.cooldown", "optimizer.embed_gradient"), SHARE),
    **dict.fromkeys(
        (
            "train.steps",
            "train.accumulate",
            "train.recovery.window",
            "train.recovery.skip",
            "train.recovery.limit",
            "data.length",
            "data.batch_size",
            "log.every",
            "parallel.pipeline",
            "log.keep",
            "log.profile_steps",
        ),
        AT_LEAST_1,
    ),
    **dict.fromkeys(
        (
            "optimizer.learning_rate",
            "optimizer.warmup",
            "optimizer.weight_decay",
            "optimizer.clip",
            "log.eval_every",
            "log.eval_batches",
            "log.checkpoint_every",
            "log.profile_at",
            "train.recovery.spike",
            "train.recovery.back",
            "parallel.microbatches",
        ),
        NOT_NEGATIVE,
    ),
}
LISTS: dict[str, Any] = {  # all but data.mixture, which is judged with its sources
    "data.reserved": tuple[str, ...],
    "optimizer.decay": tuple[tuple[str, float], ...],
    "optimizer.rates": tuple[tuple[str, float], ...],
    "train.batch_warmup": tuple[tuple[int, int], ...],
    "parallel.own_rules": tuple[tuple[str, Any], ...],
}


def check(config: ConfigDict) -> None:
    """Raise `UserError` for what no run could use: an unknown or missing knob, a wrong type, a value out of range."""
    _check_tree(config, default(), "config")
    recovery = config.train.recovery
    if config.data.batch_size % config.train.accumulate:
        raise UserError(
            f"config.data.batch_size={config.data.batch_size} is no multiple of "
            f"config.train.accumulate={config.train.accumulate}: change one of them"
        )
    if recovery.action == "rewind" and recovery.skip <= recovery.back:
        raise UserError(
            f"config.train.recovery.skip={recovery.skip} does not reach the bad batch from back={recovery.back} steps "
            "before it: raise skip above back"
        )
    if config.train.noise_scale and config.train.accumulate < 2:
        raise UserError("config.train.noise_scale compares microbatches: set config.train.accumulate to 2 or more")


def _check_tree(config: ConfigDict, like: ConfigDict, where: str) -> None:
    """Each knob against the default of that name, and its range."""
    for name in config:
        if where == "config.mesh":  # axes of one's own, which are judged with the rules
            checked(config[name], int, f"{where}.{name}")
        elif name not in like:
            raise UserError(f"{where}.{name} is no knob{nearest_knob(f'{where}.{name}')}")
    for name, default_value in like.items():
        path = f"{where}.{name}"
        if name not in config:
            raise UserError(f"{path} is missing: let get_config() start from lm.train.config.default()")
        value = config[name]
        if path in ("config.model", "config.objective"):  # checked when they are built
            if not isinstance(value, ConfigDict):
                raise UserError(f"{path}={value!r} is a {type(value).__name__}; it must be a ConfigDict: see knobs()")
        elif isinstance(default_value, ConfigDict):
            if not isinstance(value, ConfigDict):
                raise UserError(f"{path}={value!r} must have the knobs {', '.join(default_value)}")
            _check_tree(value, default_value, path)
        else:
            _check_value(path.removeprefix("config."), value, type(default_value))


def _check_value(path: str, value: Any, kind: type) -> None:
    where = f"config.{path}"
    if kind is tuple:
        value = checked(tuples(value), LISTS.get(path, Any), where)
        for i, share in enumerate(value if path in ("optimizer.decay", "optimizer.rates") else ()):
            in_range(share[1], NOT_NEGATIVE, f"{where}[{i}][1]")
        return
    if path in RANGES and isinstance(value, (int, float)) and not isinstance(value, bool):
        in_range(value, RANGES[path], where)  # first: it says which numbers there are
    value = checked(value, kind, where)
    if path in CHOICES and value not in CHOICES[path]:
        if path == "optimizer.name":
            hint = f"{nearest(value, CHOICES[path])} (one of your own: name its file with --import)"
            raise UserError(f"{where}={value!r} is unknown{hint}")
        raise UserError(f"{where}={value!r} must be one of {', '.join(CHOICES[path])}")


def tuples(value: Any) -> Any:
    """Lists in a value, which is what JSON has, as tuples."""
    return tuple(map(tuples, value)) if isinstance(value, (list, tuple)) else value


# What other programs call some knobs.
ELSEWHERE = {
    "lr": "optimizer.learning_rate",
    "wd": "optimizer.weight_decay",
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
    by what other programs call it, then by spelling, first in its own section, then in the others."""
    config = default() if config is None else config
    *section, name = path.removeprefix("config.").split(".")
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
    if near:
        return f"; did you mean config.{near[0]}?"
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
