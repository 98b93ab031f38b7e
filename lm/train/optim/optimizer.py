"""The protocol of optimizers. The ones that there are stand in the files beside this one; `lm.train.optim.bound` binds
one to the parameters of a model."""

import abc
import dataclasses
import typing

import jax
import jax.numpy as jnp
import optax

from lm.core.param import Param, Tree
from lm.core.ranges import BelowOne, NotNegative, Share
from lm.train.parametrization.growth import Growth

Array = jax.Array
Hyper = dict[str, Array]  # the traced knobs of an optimizer, by name: float32 scalars
Rules = tuple[tuple[str, NotNegative], ...]  # (pattern of a parameter's path, share); the first match counts
Steps = int | tuple[int, ...]  # a step of the run, or one for each layer of a stack


@dataclasses.dataclass(frozen=True)
class Optimizer(abc.ABC):
    """How parameters move: the knobs that every optimizer has, and a direction, which each finds in its own way.

    An optimizer is a component derived from this class:

        @component
        class Sign(Optimizer):
            "The sign of the momentum (paper, arXiv number)."

            momentum: BelowOne = 0.9  # of the running mean of gradients

            def direction(self, spec: Tree) -> optax.GradientTransformation:
                return optax.chain(optax.trace(self.momentum), optax.scale_by_sign())

    Its own knobs have defaults, and types that say their ranges (`lm.core.ranges`). Those that are floats, and
    `learning_rate` and `weight_decay`, are *traced*: while a step is traced, `self.momentum` is a float32 scalar of
    `State.hyper`, so that runs which differ in it alone share one program and can be vmapped. So do arithmetic with
    them, but never an `if`, not in `__post_init__` either. Knobs of other types are constants of the program.

    What is common to all is done outside: clipping before; learning rate, schedule, weight decay and the rules by
    parameter after; freezing (what does not train is None in `spec`), averaging, loss scaling and skipped steps."""

    learning_rate: NotNegative = 1e-3  # the peak
    weight_decay: NotNegative = 0.1  # times the learning rate
    clip: NotNegative = 1.0  # global norm of the gradient; 0: off
    # (pattern of a parameter's path, share of weight_decay); the first match counts. What none matches goes by its
    # kind: 1 for weights, 0 for gains and biases
    decay_rules: Rules = (("embed/position", 0.0),)
    # (pattern, share of the learning rate); 0 freezes: neither gradient nor optimizer state
    lr_multipliers: Rules = ((r".*", 1.0),)
    # (pattern, steps): does not move, decay included, in the first `steps` steps, and begins then without a past:
    # ("encoder", 100000). Of a stack of layers also one number for each: ("body/stack", (300, 200, 100, 0)).
    frozen_until: tuple[tuple[str, Steps], ...] = ()
    embed_gradient: Share = 1.0  # share of the gradient that reaches the token table from the input (GLM-130B: 0.1)
    ema: BelowOne = 0.0  # average of the parameters: share kept at each step, as 0.999; 0: off

    @abc.abstractmethod
    def direction(self, spec: Tree) -> optax.GradientTransformation:
        """From gradients to what is subtracted from the parameters, before learning rate and weight decay.

        spec: a tree of `Param`, None for what does not train; gradients and parameters are trees like it.
        The transform must treat each tensor of a stack of layers or experts as if it stood alone: elementwise ones do;
        others go through `lm.train.optim.per_tensor.stacked`. State that goes with the parameters is kept in trees like
        theirs, each in a field of a named tuple, as optax has it: so it finds its sharding by itself."""

    def scaled(self, param: Param, value: Array, update: Array) -> Array:
        """What is subtracted from a parameter, times the learning rate: its direction with its weight decay, as it is
        unless the optimizer scales both together (LAMB). value, update: as `param` has its shape."""
        return update

    def growth(self, param: Param, growth: Growth) -> float:
        """By which ratio the elements of a tensor's direction are larger than those of a smaller model's, where those
        of its gradient are as large (`lm.train.parametrization.growth`): 1 of what works element by element."""
        return 1.0

    @property
    def hyper(self) -> Hyper:
        """The traced knobs, as they are now."""
        shared = {f.name for f in dataclasses.fields(Optimizer)} - {"learning_rate", "weight_decay"}
        hints = typing.get_type_hints(type(self))
        names = [f.name for f in dataclasses.fields(self) if hints[f.name] is float and f.name not in shared]
        return {name: jnp.float32(getattr(self, name)) for name in names}

    def traced(self, hyper: Hyper) -> typing.Self:
        """This optimizer with other values of its traced knobs, which may be tracers."""
        knobs: dict[str, typing.Any] = dict(hyper)
        return dataclasses.replace(self, **knobs)
