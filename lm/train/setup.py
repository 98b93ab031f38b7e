"""The assembly: from a config to the parts of a run. Training, sweeps, TPU compilation and evaluation all get them from
`assemble`, the only reader of the whole config, and pass on just the values needed below."""

import dataclasses
import hashlib
from collections.abc import Sequence
from functools import cached_property
from typing import Any, NamedTuple, TypedDict, Unpack

import jax
import jax.numpy as jnp
from ml_collections.config_dict import ConfigDict

from lm.core.component import components, from_dict
from lm.core.ctx import Execution
from lm.core.errors import UserError
from lm.core.mesh import Sharding
from lm.core.transform import Transform
from lm.data.batches import Batches
from lm.data.cache import TokenCache
from lm.data.eval_batches import EvalBatches
from lm.data.open import Data
from lm.data.stages import StagedBatches, in_stages, numbered
from lm.evaluate.evaluator import Evaluator
from lm.model.kv_sources import CrossKV, SegmentMemory, SelfKV
from lm.model.program import Program
from lm.model.transformer import Model
from lm.objectives.objective import Objective
from lm.text.format import TextFormat
from lm.text.tokenizers import Tokenizer
from lm.train.config import section
from lm.train.data import abstract_batch, batches_of, held_out_of, open_data_of, source_names
from lm.train.layout import check_layout
from lm.train.optim.bound import BoundOptimizer
from lm.train.optim.optimizer import Hyper, Optimizer
from lm.train.optim.schedule import Schedule
from lm.train.parallel import execution_of, sharding_of
from lm.train.parametrization.config import Parametrization
from lm.train.parametrization.growth import reinitialized
from lm.train.stages import StageConfig, stages_of
from lm.train.state import State
from lm.train.step import Trainer
from lm.zoo.registry import build


class Given(TypedDict, total=False):
    """Parts that a caller already has, or wants to differ from the config."""

    model: Model
    objective: Objective
    execution: Execution
    schedule: Schedule
    devices: Sequence[jax.Device]  # of which the mesh is made; all by default
    sharding: Sharding | None
    text: TextFormat | None  # of the model that the run goes on from
    data: Data


def assemble(config: ConfigDict, **given: Unpack[Given]) -> "Parts":
    """The parts of a run as `config` describes them (see `lm.train.config`), except those that are `given`.

        assemble(config).trainer                                            # all by the config
        assemble(config, model=model, sharding=None).trainer                # this model, on one device

    Accessing a part raises `UserError` if config, model, data and devices do not go together."""
    return Parts(config, given)


def model_of(config: ConfigDict) -> Model:
    """The model that `config.model` describes, with the multipliers that `config.parametrization` gives it."""
    return section(config, "parametrization").model(build(config.model), config.model.to_dict())


class Parts:
    """The parts of a run, each created on first access and cached: compiling a step opens no data, and an evaluation
    builds no optimizer."""

    text: TextFormat | None = None

    def __init__(self, config: ConfigDict, given: Given) -> None:
        if unknown := given.keys() - Given.__annotations__.keys():
            raise TypeError(f"a run has no such parts: {', '.join(sorted(unknown))}")
        self.config = config
        vars(self).update(given)  # which is where a cached property looks first

    # The program

    @cached_property
    def model(self) -> Model:
        return model_of(self.config)

    @cached_property
    def parametrization(self) -> Parametrization:
        return section(self.config, "parametrization")

    @cached_property
    def program(self) -> Program:
        """The model with what `config.transforms` does to its parameters."""
        return Program(self.model, transforms_of(self.config))

    @cached_property
    def objective(self) -> Objective:
        return from_dict(self.config.objective.to_dict(), "config.objective")

    @cached_property
    def execution(self) -> Execution:
        return execution_of(self.config, self.model)

    @cached_property
    def dtype(self) -> Any:
        """Of the computation."""
        return jnp.dtype(self.config.train.dtype)

    @cached_property
    def optimizer(self) -> Optimizer:
        return section(self.config, "optimizer")

    @cached_property
    def schedule(self) -> Schedule:
        return section(self.config, "schedule")

    @cached_property
    def devices(self) -> Sequence[jax.Device]:
        return jax.devices()

    @cached_property
    def sharding(self) -> Sharding | None:
        return sharding_of(self.config, self.devices)

    @cached_property
    def memory(self) -> int:
        """How many rows the model remembers from one batch in the next; 0: none."""
        return memory_rows(self.config, self.model, self.objective)

    @cached_property
    def trainer(self) -> Trainer:
        c, knobs = section(self.config, "train"), self.config.model.to_dict()
        self.check_layout()
        return Trainer(
            program=self.program,
            objective=self.objective,
            optimizer=BoundOptimizer.of(
                self.optimizer,
                self.program.spec(),
                self.schedule,
                c.steps,
                self.program.trainable,
                self.parametrization.growth(self.program, knobs),
            ),
            initial=reinitialized(self.model.spec(), self.parametrization.growth(Program(self.model), knobs)),
            seed=self.config.seed,
            accumulate=c.accumulate,
            batch_warmup=bool(c.batch_warmup),
            memory=self.memory,
            recovery=c.recovery,
            noise_scale=c.noise_scale,
            double_buffered=section(self.config, "parallel").double_buffered,
            dtype=self.dtype,
            execution=self.execution,
            sharding=self.sharding,
            reduce_dtype=jnp.dtype(self.config.parallel.reduce_dtype),
            sources=self.sources,
        )

    @property
    def hyper(self) -> Hyper:
        """The traced knobs of the optimizer."""
        return self.optimizer.hyper

    @cached_property
    def evaluator(self) -> Evaluator:
        """In the precision and the layout of the steps."""
        return Evaluator(self.model, self.objective, self.dtype, self.sharding, self.execution, self.memory)

    @property
    def abstract_state(self) -> State:
        """Shapes and layout of the state, of which nothing is allocated."""
        return self.trainer.abstract(self.hyper)

    @property
    def abstract_batch(self) -> dict[str, jax.ShapeDtypeStruct]:
        """Shapes and layout of a batch, for which no data is opened."""
        return abstract_batch(self.config, self.objective, self.sharding, self.sources)

    # The data

    @cached_property
    def data(self) -> Data:
        return open_data_of(self.config, self.text, self.has_encoder)

    @property
    def has_encoder(self) -> bool:
        """By the objective, since data is also opened for models whose shape is not known yet (sweeps)."""
        return "encoder/tokens" in self.objective.needs().rows

    @cached_property
    def batches(self) -> Batches | StagedBatches:
        """For training, by address."""
        if len(self.stage_configs) == 1:
            return batches_of(self.config, self.data, self.objective, self.sources)
        numbers = numbered(
            [(_caches(s.parts), (s.parts.config.data.length, s.parts.config.data.packing)) for s in self.stages]
        )
        return in_stages(
            [
                (
                    stage.first,
                    batches_of(
                        stage.parts.config,
                        stage.parts.data,
                        stage.parts.objective,
                        self.sources,
                        tuple(zip(own, names, strict=True)),
                    ),
                )
                for stage, own, names in zip(self.stages, numbers, self.names_of_stages, strict=True)
            ]
        )

    @cached_property
    def names_of_stages(self) -> list[tuple[str, ...]]:
        """What the sources of each stage are called."""
        return source_names([stage.config for stage in self.stage_configs])

    @cached_property
    def sources(self) -> tuple[str, ...]:
        """The names of all sources whose losses are told apart; () where a run has one."""
        names = tuple(dict.fromkeys(name for of_stage in self.names_of_stages for name in of_stage))
        return names if len(names) > 1 else ()

    @cached_property
    def stage_configs(self) -> tuple[StageConfig, ...]:
        """Those of all stages, the first included; a run without stages has one."""
        return stages_of(self.config)

    @cached_property
    def stages(self) -> tuple["Stage", ...]:
        """The parts of each stage. All have this one's model, tokenizer and way of computing; the first is this one."""
        shared: Given = {"model": self.model, "execution": self.execution, "sharding": self.sharding}
        made = [Stage(0, self)]
        for stage in self.stage_configs[1:]:
            parts = Parts(stage.config, shared)
            parts.text, parts.sources = self.text, self.sources
            try:
                parts.trainer = dataclasses.replace(self.trainer, objective=parts.objective)
                parts.data = open_data_of(stage.config, self.text, parts.has_encoder, self.data.tokenizer)
                parts.check_layout()
                parts.check_fit()
                _ = parts.held_out
            except UserError as e:
                raise UserError(f"config.stages, from step {stage.first} on: {e}") from e
            made.append(Stage(stage.first, parts))
        return tuple(made)

    @property
    def digest(self) -> str:
        """Of the training tokens of all stages."""
        digests = [stage.parts.data.digest for stage in self.stages]
        return digests[0] if len(digests) == 1 else hashlib.blake2b(repr(digests).encode(), digest_size=16).hexdigest()

    @cached_property
    def held_out(self) -> EvalBatches:
        """For validation, in order."""
        return held_out_of(self.config, self.data, self.objective)

    def check_layout(self) -> None:
        """Raise `UserError` where model and rows cannot lie on the mesh."""
        _ = self.execution  # which knows of stages
        check_layout(self.sharding, self.program, self.objective.needs().sides or (self.config.data.length,))

    def check_fit(self) -> None:
        """Raise `UserError` where model and data do not go together."""
        check_fit(self.config, self.model, self.data.tokenizer)


class Stage(NamedTuple):
    """A stage of a run."""

    first: int  # step before which it begins, counted from 0
    parts: Parts


def _caches(parts: Parts) -> list[TokenCache]:
    return [part.train for part in parts.data.parts]


def check_fit(config: ConfigDict, model: Model, tokenizer: Tokenizer) -> None:
    """Raise `UserError` where model and data do not go together."""
    if tokenizer.vocab_size > model.vocab:
        raise UserError(
            f"tokenizer {config.data.tokenizer} has {tokenizer.vocab_size} tokens, more than the model's vocabulary of "
            f"{model.vocab}: " + _more_rows(config, tokenizer.vocab_size)
        )
    if model.max_length is not None and config.data.length > model.max_length:
        raise UserError(
            f"config.data.length={config.data.length} exceeds the model's {model.max_length} positions: "
            "lower it, or raise config.model.context"
        )
    if model.max_length is not None and config.data.packing == "stream":
        raise UserError(
            "config.data.packing='stream' counts positions on through a document, but this model has only "
            f"{model.max_length}: take a model with relative positions, or packing 'concat'"
        )


def _more_rows(config: ConfigDict, tokens: int) -> str:
    """The remedy for a vocabulary that is too small."""
    if config.train.init_from and not config.train.surgery:
        return 'set config.train.surgery=[{"type": "GrowVocabulary"}], which adds rows for them'
    return f"set config.model.vocab={tokens} or more"


def remembers(model: Model) -> bool:
    """Whether a model's cache is a memory of fixed size rather than a cache of everything read so far."""
    sources = {type(part) for part in components(model) if isinstance(part, (SelfKV, CrossKV, SegmentMemory))}
    if SegmentMemory in sources and len(sources) > 1:
        raise UserError("this model remembers in some of its layers only: give all of them a memory, or none")
    return SegmentMemory in sources


def memory_rows(config: ConfigDict, model: Model, objective: Objective) -> int:
    """How many rows carry memory from batch to batch: all of them if rows continue and the model has a memory; else
    0."""
    if config.data.packing != "stream" or not remembers(model):
        return 0
    if not objective.needs().carries:
        raise UserError(
            f"config.objective {type(objective).__name__} begins every row anew, but config.data.packing='stream' lets "
            "this model remember: take NextToken, or packing 'concat'"
        )
    if (stages := config.parallel.pipeline) > 1:
        raise UserError(
            f"config.parallel.pipeline={stages} passes no memory on, but config.data.packing='stream' lets this model "
            "remember: set it to 1, or take packing 'concat'"
        )
    return config.data.batch_size


def transforms_of(config: ConfigDict) -> tuple[Transform, ...]:
    """Those of `config.transforms`. Raises `UserError` for what is none."""
    made = from_dict(config.transforms, "config.transforms")
    for i, transform in enumerate(made):
        if not isinstance(transform, Transform):
            what = getattr(type(transform), "__name__", "")
            raise UserError(f"config.transforms[{i}] is a {what}, which is no transform: give LoRA, Int8, or your own")
    return made
