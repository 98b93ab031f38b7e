"""The knobs of a training run. An experiment file's `get_config()` starts from `default()` and changes what it wants;
`--config.a.b=value` changes the rest. Unknown knobs and wrong types are errors that name the nearest right one."""

import dataclasses
from typing import Any

from ml_collections.config_dict import ConfigDict

from lm.core.component import to_dict
from lm.core.errors import UserError
from lm.data.packing import PACKINGS
from lm.objectives.causal import NextToken
from lm.train.schedule import SCHEDULES
from lm.train.watch import ACTIONS, Recovery


def default() -> ConfigDict:
    """Every knob with its default. `config.model` is {"family": .., knobs of the zoo function}, or a component tree."""
    config = ConfigDict()
    config.seed = 0
    config.model = ConfigDict()
    config.objective = ConfigDict(to_dict(NextToken()))
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
            "learning_rate": 1e-3,
            "schedule": "cosine",  # or linear, inverse_sqrt, constant, wsd
            "warmup": 100,  # steps
            "final": 0.1,  # the last learning rate, as a share of the first
            "cooldown": 0.2,  # wsd: share of the steps
            "b1": 0.9,
            "b2": 0.95,
            "eps": 1e-8,
            "weight_decay": 0.1,
            "clip": 1.0,  # global norm of the gradient; 0: off
            # (pattern of the parameter's path, share of weight_decay); the first match counts
            "decay": ((r"norm|/b$|embed/position", 0.0), (r".*", 1.0)),
            # (pattern, share of the learning rate); 0 freezes: neither gradient nor optimizer state
            "rates": ((r".*", 1.0),),
            "embed_gradient": 1.0,  # share of the gradient that reaches the token table from the input (GLM-130B: 0.1)
            "ema": 0.0,  # average of the parameters: share kept at each step, as 0.999; 0: off
        }
    )
    config.train = ConfigDict(
        {
            "steps": 1000,
            # A model to go on from: a run's folder, a Hugging Face folder, a GGUF file. Its model and tokenizer are
            # taken where `model` and `data.tokenizer` are not set.
            "init_from": "",
            "accumulate": 1,  # microbatches per step
            "batch_warmup": (),  # ((first step, rows), ...): smaller batches at first; multiples of a microbatch
            "dtype": "float32",  # of the computation, or bfloat16, float16; parameters are float32
            "remat": "none",  # or dots, full
            "unroll": False,  # walk layers in Python instead of lax.scan
            "noise_scale": False,  # measure the gradient noise scale; needs two microbatches
            "recovery": dataclasses.asdict(Recovery()),  # from a loss that is not finite, or spikes
        }
    )
    config.mesh = ConfigDict({"data": -1, "fsdp": 1, "expert": 1, "tensor": 1})
    config.log = ConfigDict(
        {
            "every": 10,  # steps between metric records
            "eval_every": 250,
            "eval_batches": 0,  # 0: the whole validation split
            "checkpoint_every": 250,
            "keep": 3,  # checkpoints
            "profile_at": 0,  # step at which a trace for TensorBoard or Perfetto begins; 0: when SIGUSR1 comes
            "profile_steps": 3,
            "tensorboard": False,  # event files in <workdir>/tensorboard; needs the extra `board`
        }
    )
    return config.lock()


CHOICES = {
    "optimizer.schedule": tuple(SCHEDULES),
    "train.dtype": ("float32", "bfloat16", "float16"),
    "train.recovery.action": ACTIONS,
    "data.packing": tuple(PACKINGS),
    "data.bos": ("auto", "on", "off"),
    "train.remat": ("none", "dots", "full"),
}
POSITIVE = (
    "train.steps",
    "train.accumulate",
    "train.recovery.window",
    "train.recovery.skip",
    "train.recovery.limit",
    "data.length",
    "data.batch_size",
    "log.every",
    "log.keep",
    "log.profile_steps",
)
NON_NEGATIVE = (
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
)
SHARES = ("optimizer.final", "optimizer.cooldown", "optimizer.embed_gradient", "optimizer.ema")


def check(config: ConfigDict) -> None:
    """Raise `UserError` for values that no run could use."""

    def value(path: str) -> Any:
        node = config
        for name in path.split("."):
            node = node[name]
        return node

    for path, allowed in CHOICES.items():
        if value(path) not in allowed:
            raise UserError(f"config.{path}={value(path)!r} must be one of {', '.join(allowed)}")
    for path in POSITIVE:
        if value(path) < 1:
            raise UserError(f"config.{path}={value(path)} must be at least 1")
    for path in NON_NEGATIVE:
        if value(path) < 0:
            raise UserError(f"config.{path}={value(path)} must not be negative")
    for path in SHARES:
        if not 0 <= value(path) <= 1:
            raise UserError(f"config.{path}={value(path)} must be between 0 and 1")
    if config.data.batch_size % config.train.accumulate:
        raise UserError(
            f"config.data.batch_size={config.data.batch_size} is no multiple of "
            f"config.train.accumulate={config.train.accumulate}: change one of them"
        )
    recovery = config.train.recovery
    if recovery.action == "rewind" and recovery.skip <= recovery.back:
        raise UserError(
            f"config.train.recovery.skip={recovery.skip} does not reach the bad batch from back={recovery.back} steps "
            "before it: raise skip above back"
        )
    if config.train.noise_scale and config.train.accumulate < 2:
        raise UserError("config.train.noise_scale compares microbatches: set config.train.accumulate to 2 or more")
