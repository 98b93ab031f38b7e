"""The programs that can be compiled for a pod, lowered with abstract arguments: the train step of a config, and the two
of its model's generator, which read prompts and add a token to each."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from lm.core.errors import UserError
from lm.core.mesh import make_mesh
from lm.core.param import abstract
from lm.infer.generate import steps_of, unrolled
from lm.infer.sampling import Sampler
from lm.inspect.cost import flops, training_flops
from lm.model.cache import CacheShape
from lm.model.transformer import EncoderDecoder, Model
from lm.train.setup import Parts

OF_TOKENS = ("tokens", "segments", "positions")  # of prompts, in a batch


class Step(NamedTuple):
    """A program with its arguments by kind. `tokens`: that one run reads, or decoding writes; `flops`: that the model
    needs for that, on all chips."""

    name: str
    lowered: jax.stages.Lowered
    arguments: dict[str, Any]
    tokens: int
    flops: int
    mesh: Mesh


def train(parts: Parts) -> Step:
    state, batch = parts.abstract_state, parts.abstract_batch
    rows, length = batch["tokens"].shape
    encoder = batch.get("encoder/tokens")
    row = training_flops(parts.model, length, 0 if encoder is None else encoder.shape[1])
    lowered = parts.trainer.jitted(state).lower(state, batch)
    kinds = {"parameters": state.params, "optimizer": (state.opt, state.ema), "batch": batch}
    config = parts.config.data
    return Step("train step", lowered, kinds, config.batch_size * config.length, row * rows, _mesh(parts))


def prefill(parts: Parts, rows: int = 0, length: int = 0) -> Step:
    """Read `rows` prompts of `length` tokens into caches of that length, and sample a token of each; by default as many
    as a batch of the config has."""
    rows, length = rows or parts.config.data.batch_size, length or parts.config.data.length
    served = _Served(parts, rows, length)
    run = functools.partial(served.steps.prefill, shape=served.shape, sampler=Sampler())
    args = served.params, served.batch(rows, length), served.keys
    lowered = served.steps.prefill.lower(*args, shape=served.shape, sampler=Sampler())
    kinds = {"parameters": args[0], "batch": args[1:]}
    return Step("prefill", lowered, kinds, rows * length, flops(run, *args), _mesh(parts))


def decode(parts: Parts, rows: int = 0, length: int = 0) -> Step:
    """Add a token to each of `rows` texts whose caches have room for `length` tokens; by default as many as a batch of
    the config has."""
    rows, length = rows or parts.config.data.batch_size, length or parts.config.data.length
    served = _Served(parts, rows, length)
    one = served.array((rows,), jnp.int32, "batch")
    run = functools.partial(served.steps.decode, sampler=Sampler())
    args = served.params, served.cache, one, one, served.keys
    lowered = served.steps.decode.lower(*args, sampler=Sampler())
    kinds = {"parameters": args[0], "cache": args[1], "batch": args[2:]}
    return Step("decoding step", lowered, kinds, rows, flops(run, *args), _mesh(parts))


STEPS: dict[str, Callable[..., Step]] = {"train": train, "prefill": prefill, "decode": decode}


class _Served:
    """What both programs of a generator take: the model with its layers unrolled, its parameters in the precision of
    the computation, keys, and the shape of the cache. Rows lie as in training; of keys and values also the heads are
    cut, where they divide. An encoder-decoder reads as many tokens with its encoder."""

    def __init__(self, parts: Parts, rows: int, length: int) -> None:
        self.sharding = parts.sharding
        longest = parts.model.max_length
        if longest is not None and length > longest:
            raise UserError(f"--length={length} exceeds the model's {longest} positions: lower it")
        self.model = _unrolled(parts.model)
        self.steps = steps_of(self.model, parts.dtype, self.sharding)
        self.reads = isinstance(parts.model, EncoderDecoder)
        self.shape = CacheShape(rows, length, length if self.reads else 0, parts.dtype)
        spec = self.model.spec()
        self.params = abstract(spec, parts.dtype)
        if self.sharding is not None:
            self.params = jax.tree.map(_laid_out, self.params, self.sharding.tree(spec))
        self.keys = self.array((rows,), jax.random.key(0).dtype, "batch")

    def array(self, shape: tuple[int, ...], dtype: Any, *axes: str | None) -> jax.ShapeDtypeStruct:
        """An abstract array with these logical axes first."""
        x = jax.ShapeDtypeStruct(shape, dtype)
        axes = (*axes, *(None,) * (len(shape) - len(axes)))
        return x if self.sharding is None else _laid_out(x, self.sharding.fitting(shape, axes))

    def batch(self, rows: int, length: int) -> dict[str, jax.ShapeDtypeStruct]:
        names = [f"{part}{name}" for part in ("", "encoder/")[: 1 + self.reads] for name in OF_TOKENS]
        return {name: self.array((rows, length), jnp.int32, "batch") for name in names}

    @property
    def cache(self) -> Any:
        def laid_out(x: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
            return self.array(x.shape, x.dtype, *("batch", "kv_heads")[: 2 if len(x.shape) == 4 else 1])

        return jax.tree.map(laid_out, jax.eval_shape(lambda: self.model.cache(self.shape)))


def _unrolled(model: Model) -> Model:
    found: list[Model] = []

    def trace(params: Any) -> Any:
        unrolled_model, params = unrolled(model, params)
        found.append(unrolled_model)
        return params

    jax.eval_shape(trace, abstract(model.spec()))
    return found[0]


def _laid_out(x: jax.ShapeDtypeStruct, sharding: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)


def _mesh(parts: Parts) -> Mesh:
    return make_mesh({"data": 1}, parts.devices) if parts.sharding is None else parts.sharding.mesh
