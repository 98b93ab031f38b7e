"""How much memory a train step will need on each chip, told without compiling it.

Exact, by shapes and shardings: parameters, optimizer state, batch. Nearly so: gradients, and the activations that the
forward pass saves, which are traced once and then divided over any mesh. Estimated: what is alive beside these in the
worst moment, which is either the head's, or the backward pass through one layer. `tpu.compile` has the compiler's own
figure; tests/tpu compares the two."""

import dataclasses
import math
from collections.abc import Sequence
from functools import cached_property
from typing import Any, NamedTuple

import jax

from lm.core.component import components
from lm.core.mesh import Sharding
from lm.core.param import Param, flatten
from lm.core.walk import Scan, Walk
from lm.model.moe.layer import MoE
from lm.parallel.pipeline import Pipelined
from lm.train.footprint import readable, saved_values
from lm.train.setup import Parts
from lm.train.state import State
from tpu.hbm import here

# Seen in ten programs of libtpu 0.0.42 (tests/tpu/memory_cases.py): of what a layer without rematerialisation saves,
# how much is alive at once while it is computed again, with its gradients; and how much beside it where it was saved.
AGAIN, AT_HAND = 0.7, 0.5
CHUNK = 128  # positions whose logits exist at once (lm.model.heads.protocol)
EXCHANGED = 2.5  # float32 arrays of all tokens that may arrive at a device's experts, in an exchange without a limit


class Need(NamedTuple):
    """Bytes on a chip."""

    parameters: int
    optimizer: int
    batch: int
    gradients: int
    saved: int  # activations
    working: int  # of the layer or head at hand, with the weights that are gathered for it

    @property
    def total(self) -> int:
        return sum(self)

    def __str__(self) -> str:
        shown = sorted(zip(self, self._fields, strict=True), reverse=True)[:3]
        return f"{readable(self.total)} ({', '.join(f'{name} {readable(size)}' for size, name in shown)})"


class Saved(NamedTuple):
    """An array that the forward pass saves: which of its axes grow with the rows of a batch, and its logical axes as
    far as their sizes tell."""

    shape: tuple[int, ...]
    bytes: int  # of an element
    rows: tuple[bool, ...]

    def here(self, rows: int, traced: int, sharding: Sharding | None, names: dict[int, str], repeats: int) -> int:
        """Bytes on a chip where a microbatch has so many `rows` in all; `traced` were traced."""
        axes = [
            "batch" if grows else "layers" if i == 0 and size == repeats else names.get(size)
            for i, (size, grows) in enumerate(zip(self.shape, self.rows, strict=True))
        ]
        elements = math.prod(n * rows // traced if g else n for n, g in zip(self.shape, self.rows, strict=True))
        ways = 1 if sharding is None else _ways(sharding, axes)
        return self.bytes * elements // ways


def _ways(sharding: Sharding, axes: Sequence[str | None]) -> int:
    parts = jax.tree.leaves(tuple(sharding.spec(axes)))
    return math.prod(sharding.mesh.shape[axis] for axis in parts)


@dataclasses.dataclass(frozen=True)
class Model:
    """What is traced once of a config, for all layouts. `parts` are those of one chip."""

    parts: Parts
    # Logical axis of an activation, by its size. Where heads together are as wide as the model, they are
    # taken for the model's width, which tensor does not cut: more is expected than will be needed.
    names: dict[int, str]
    repeats: int  # of the largest layer group
    saved: dict[str, list[Saved]]  # by rematerialisation

    TRACED = 2  # rows

    @classmethod
    def of(cls, parts: Parts, policies: Sequence[str]) -> "Model":
        spec = parts.program.spec()
        sizes: dict[str, dict[int, int]] = {
            name: {} for name in ("embed", "heads", "kv_heads", "mlp", "vocab", "expert", "layers")
        }
        for _, p in flatten(spec):
            for size, name in zip(p.shape, p.axes, strict=True):
                if name in sizes and size > 1:
                    sizes[name][size] = sizes[name].get(size, 0) + math.prod(p.shape)
        names = {size: name for name in reversed(sizes) if name != "layers" for size in sizes[name]}
        names |= {parts.config.data.length: "seq"}  # which a width of the same size is taken for: neither fsdp cuts it
        repeats = max(sizes["layers"], key=sizes["layers"].__getitem__, default=1)
        saved = {remat: _trace(parts, remat) for remat in dict.fromkeys(("none", *policies))}
        return cls(parts, names, repeats, saved)

    def on(self, sharding: Sharding | None) -> "Placed":
        """What is the same for all steps whose weights lie so."""
        trainer = dataclasses.replace(self.parts.trainer, sharding=sharding)
        state = self.abstract_state
        weights = trainer.optimizer.split(state.params)[0]
        if sharding is not None:
            state = _laid_out(state, trainer.state_shardings(state))
            spec = trainer.optimizer.split(sharding.of_gradients.tree(trainer.program.spec()))[0]
            weights = _laid_out(weights, spec)
        sizes = here(state.params), here((state.opt, state.ema)), here(weights)
        return Placed(self, sharding, *sizes, self._gathered(sharding), self._tables(sharding))

    @cached_property
    def abstract_state(self) -> State:
        return self.parts.abstract_state

    def _tables(self, sharding: Sharding | None) -> int:
        """Gradients of the tables of a vocabulary, which each device sums over its own tokens before they are shared
        out."""
        sizes = [math.prod(p.shape) for _, p in self.spec if "vocab" in p.axes and len(p.shape) > 1]
        return 4 * 2 * max(sizes, default=0) // (1 if sharding is None else sharding.ways("vocab"))

    def _gathered(self, sharding: Sharding | None) -> int:
        """Weights of a layer in the precision of the computation, whole but for what other axes than fsdp cut; one
        layer's are multiplied while the next one's arrive."""
        if sharding is None:
            return 0
        whole = dataclasses.replace(sharding, zero=1)
        size = 0
        for _, p in self.spec:
            if p.axes[:1] == ("layers",):
                shape = whole.param(p).shard_shape(p.shape)
                size += math.prod(shape[1:]) * self.parts.dtype.itemsize
        return 2 * size

    @cached_property
    def spec(self) -> list[tuple[str, Param]]:
        return list(flatten(self.parts.program.spec()))

    def size(self, which: Sequence[Saved], rows: int, sharding: Sharding | None, in_layers: bool) -> int:
        """Bytes on a chip of what is saved within the layers, or outside."""
        found = [s for s in which if (s.shape[:1] == (self.repeats,)) == in_layers]
        return sum(s.here(rows, self.TRACED, sharding, self.names, self.repeats) for s in found)


@dataclasses.dataclass(frozen=True)
class Placed:
    """A config whose weights lie in one way."""

    model: Model
    sharding: Sharding | None
    # Bytes on a chip:
    parameters: int
    optimizer: int
    weights: int  # their gradients
    gathered: int  # weights of a layer, to multiply by
    tables: int  # gradients of a vocabulary's

    def need(self, remat: str, rows: int, accumulate: int = 1, walk: Walk = Scan()) -> Need:
        """Of a step on `rows` rows in `accumulate` microbatches, or those of a pipeline's walk."""
        model, sharding, wide = self.model, self.sharding, self.model.parts.dtype.itemsize
        ways = 1 if sharding is None else sharding.ways("batch")
        batch = here(model.parts.abstract_batch) * rows // model.parts.config.data.batch_size
        some, share, apart = rows // accumulate, 1.0, 1.0
        if isinstance(walk, Pipelined) and (order := walk.order(sharding)).stages > 1:
            share, apart = walk.kept(order) / order.items, order.stages / order.items

        def in_layers(policy: str) -> int:
            return model.size(model.saved[policy], some, sharding, True)

        # Outside the layers a step in half precision keeps nothing in float32: that is made again from what it keeps.
        saved = round(share * in_layers(remat))
        saved += model.size([s for s in model.saved[remat] if s.bytes <= wide], some, sharding, False)
        kept, whole = (apart * in_layers(policy) / model.repeats for policy in (remat, "none"))  # of a layer, of a
        layer = round(AGAIN * (whole - kept) + AT_HAND * kept)  # pipeline's microbatch
        layer += self.gathered + self._exchanged(some // ways)
        head = self.tables + self._logits(some // ways)
        sums = self.weights if accumulate > 1 else 0  # of the microbatches before
        # The head's worst moment comes before there are gradients of layers.
        working, gradients = max((layer, sums + self.weights), (head, sums), key=sum)
        return Need(self.parameters, self.optimizer, batch // ways, gradients, saved, working)

    def _logits(self, rows: int) -> int:
        """A chunk of them."""
        vocab = next((size for size, name in self.model.names.items() if name == "vocab"), 0)
        logits = rows * min(CHUNK, self.model.parts.config.data.length) * vocab
        return 4 * logits // (1 if self.sharding is None else self.sharding.ways("vocab"))

    def _exchanged(self, rows: int) -> int:
        """What the exchange of tokens between experts on several devices holds: room for twice as many as are sent."""
        parts = self.model.parts
        moe = next((part for part in components(parts.model) if isinstance(part, MoE)), None)
        if moe is None or self.sharding is None or self.sharding.ways("expert") == 1:
            return 0
        widest = max((size for size, name in self.model.names.items() if name in ("mlp", "embed")), default=0)
        return round(EXCHANGED * 4 * 2 * rows * parts.config.data.length * round(moe.router.k) * widest)


def _laid_out(tree: Any, shardings: Any) -> Any:
    return jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), tree, shardings)


def _trace(parts: Parts, remat: str) -> list[Saved]:
    execution = dataclasses.replace(parts.execution, remat=remat)
    trainer = dataclasses.replace(parts.trainer, execution=execution, accumulate=1, sharding=None)
    state, batch = parts.abstract_state, parts.abstract_batch

    def traced(rows: int) -> list[Any]:
        some = {k: jax.ShapeDtypeStruct((rows, *x.shape[1:]), x.dtype) for k, x in batch.items()}
        return saved_values(trainer, state, some)

    few, more = traced(Model.TRACED), traced(2 * Model.TRACED)
    return [
        Saved(a.shape, a.dtype.itemsize, tuple(m == 2 * n for n, m in zip(a.shape, b.shape, strict=True)))
        for a, b in zip(few, more, strict=True)
        if 2 * a.size == b.size  # the others are weights in another precision, which compilers make again
    ]
