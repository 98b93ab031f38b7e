"""Which stored tensor is which parameter: a table of names (`lm.hub.tables.tensor_names`) laid over one model.

    binding = Binding(model, table)
    params = binding.to_params(tensors)      # named tensors -> our parameters
    tensors = binding.to_tensors(params)     # and back, to the bit

Both hold numpy arrays and keep their dtype. A binding is made once for each model that is read or written, and asked
for all that depends on it: what is missing, what else stands in a file, what differs.
"""

import functools
import re
from collections.abc import Container, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from lm.core.errors import UserError
from lm.core.ownership import walk
from lm.core.param import Param, Tree, flatten
from lm.hub.tables.tensor_names import TensorNames
from lm.model.stack import Stack
from lm.model.transformer import Model

LAYER = "/{layer}/"  # below a stack
LEAVES = {"w": "weight", "b": "bias"}
INDEXED = ("expert", "heads")  # axes of ours along which they may keep a tensor each


class Slice(NamedTuple):
    """What one of their tensors holds of one of our parameters: `parameter[at]`, `at` along the batch axes."""

    path: str
    at: tuple[int, ...]


class Link(NamedTuple):
    """One of their tensors: name, what it holds, and how."""

    name: str
    pieces: tuple[Slice, ...]
    shapes: tuple[tuple[int, ...], ...]  # of the pieces
    transpose: bool
    groups: int
    parts: int | None  # their last axis is this many, times the rest
    convolution: bool
    swapped: bool
    merged: bool
    optional: bool

    @property
    def shape(self) -> tuple[int, ...]:
        """Of their tensor."""
        whole = self._matrix
        if self.convolution and len(whole) > 1:
            groups, share, read = whole
            return (groups * share, share, read // share)
        if self.merged:
            return (whole[0] * whole[1], *whole[2:])
        return (*whole[:-1], self.parts, whole[-1] // self.parts) if self.parts else whole

    @property
    def _matrix(self) -> tuple[int, ...]:
        """The shape of their tensor before it is given further axes."""
        *lead, _ = self.shapes[0]
        whole = (*lead, sum(shape[-1] for shape in self.shapes))
        return (*whole[:-2], whole[-1], whole[-2]) if self.transpose and len(whole) > 1 else whole

    def split(self, tensor: np.ndarray) -> list[np.ndarray]:
        """Their tensor -> our pieces."""
        x = self._swapped(self._turned(tensor.reshape(self._matrix)))
        x = x.reshape(*x.shape[:-1], self.groups, -1)
        ends = np.cumsum([shape[-1] // self.groups for shape in self.shapes])
        return [y.reshape(shape) for y, shape in zip(np.split(x, ends[:-1], axis=-1), self.shapes, strict=True)]

    def join(self, pieces: Sequence[np.ndarray]) -> np.ndarray:
        """Our pieces -> their tensor, contiguous as file formats want it."""
        parts = [y.reshape(*y.shape[:-1], self.groups, -1) for y in pieces]
        x = np.concatenate(parts, axis=-1)
        x = self._swapped(x.reshape(*x.shape[:-2], -1))
        return np.ascontiguousarray(self._turned(x)).reshape(self.shape)

    def _turned(self, x: np.ndarray) -> np.ndarray:
        return np.swapaxes(x, -1, -2) if self.transpose and x.ndim > 1 else x

    def _swapped(self, x: np.ndarray) -> np.ndarray:
        return np.roll(x, x.shape[-2] // 2, axis=-2) if self.swapped and x.ndim > 1 else x


class Binding:
    """The tensors of a file for one model. `links`: all that hold something of it, by their names, in the table's
    order; `spec`: the model's parameters, by their paths.

    Raises `UserError` for a parameter that has no name in the table."""

    def __init__(self, model: Model, table: TensorNames) -> None:
        self.model, self.table = model, table
        tree = model.spec()
        self.spec, self._structure = dict(flatten(tree)), jax.tree.structure(tree)
        self.links = {link.name: link for link in _links(model, table, tree, self.spec)}
        # All names of each part of our parameters: tied layers and tied tables have several.
        self._names: dict[tuple[Slice, ...], list[Link]] = {}
        for link in self.links.values():
            self._names.setdefault(link.pieces, []).append(link)
        covered = {piece.path for pieces in self._names for piece in pieces}
        for path in self.spec:
            if path not in covered:
                raise UserError(f"parameter {path!r} has no name in this table: choose knobs that its family has")

    def to_params(self, tensors: Mapping[str, np.ndarray]) -> Tree:
        """The model's parameters from their tensors. Of a tensor that has several names any will do.

        Raises `UserError` for a tensor that is missing, that the model should have had (see `belongs`), of another
        shape than the model's, of another dtype than the same one of another layer, or that differs from one that it is
        tied to."""
        for name in tensors:
            if self.belongs(name):
                raise UserError(
                    f"tensor {name!r} is unknown to this model, whose tensors are called {min(self.links)!r} and so "
                    "on: check family and size"
                )
        for name in self.missing(tensors):  # all of them before any is read, which may take minutes
            raise UserError(f"tensor {name!r} is missing: check that the file is whole, and family, size and ties")
        params: dict[str, np.ndarray] = {}
        for links in self._names.values():
            found = [link for link in links if link.name in tensors] or links[:1]
            parts = _read(found[0], tensors) if found[0].name in tensors else self._initial(found[0])
            for other in found[1:]:
                if not all(map(np.array_equal, _read(other, tensors), parts)):
                    both = f"{found[0].name!r} and {other.name!r}"
                    raise UserError(f"tensors {both} differ, but this model ties them: build it untied")
            for (path, at), part in zip(found[0].pieces, parts, strict=True):
                if path not in params:
                    params[path] = np.empty(self.spec[path].shape, part.dtype)
                if (dtype := params[path].dtype) != part.dtype:
                    raise UserError(
                        f"tensor {found[0].name!r} is {part.dtype}, but the same one of another layer is {dtype}: "
                        "convert all to one dtype"
                    )
                params[path][at] = part
        return jax.tree.unflatten(self._structure, [params[path] for path in self.spec])

    def to_tensors(self, params: Tree) -> dict[str, np.ndarray]:
        """The model's parameters as their tensors, each written once, under the first of its names.

        Raises `UserError` for parameters that are not the model's."""
        return dict(self.each_tensor(params))

    def each_tensor(self, params: Tree) -> Iterator[tuple[str, np.ndarray]]:
        """The names and tensors of `to_tensors`, made one by one."""
        values = dict(flatten(params))
        for path in self.spec.keys() | values.keys():
            if path not in self.spec or path not in values:
                what = "missing" if path in self.spec else "unknown to this model"
                raise UserError(f"parameter {path!r} is {what}: give the parameters of this very model")
            if values[path].shape != self.spec[path].shape:
                raise UserError(_misshapen(f"parameter {path!r}", values[path].shape, self.spec[path].shape))
        arrays = {path: np.asarray(value) for path, value in values.items()}
        for link, *_ in self._names.values():
            yield link.name, link.join([arrays[path][at] for path, at in link.pieces])

    def missing(self, have: Container[str]) -> list[str]:
        """Tensors that the model needs and that are not there under any of their names."""
        return [
            links[0].name
            for links in self._names.values()
            if not any(link.name in have or link.optional for link in links)
        ]

    def differing(self, tensors: Mapping[str, np.ndarray]) -> tuple[str, str] | None:
        """Two tensors that the model ties, but that are not the same."""
        for links in self._names.values():
            found = [link for link in links if link.name in tensors]
            for other in found[1:]:
                if not all(map(np.array_equal, _read(found[0], tensors), _read(other, tensors))):
                    return found[0].name, other.name
        return None

    def belongs(self, name: str) -> bool:
        """Whether an extra tensor, one that is none of the model's own, ought to have been: then file and config.json
        are of two models, and reading on would give outputs that nobody trained.

        What transformers computes depends on no extra tensor: it passes over all that it has no place for. Most are
        harmless: heads of another class, the other tower where a part of a model is read, a vision tower, buffers of
        older releases. But a tensor that is not `dead` and stands

        - beside one of the model's own, in the same module (`q_proj.bias` where the config says that there are none,
          `lm_head.bias`, `q_proj.weight_scale`), or
        - in a layer of a stack that the model has (an adapter, a norm of queries, a layer past the config's number)

        changes what the model was trained to compute."""
        if name in self.links or self.dead(name):
            return False
        return name.rpartition(".")[0] in self._modules or bool(self._layers.match(name))

    def dead(self, name: str) -> bool:
        """Whether a name is that of a tensor that files are known to carry and that no output depends on."""
        return bool(self._listed.fullmatch(name) or DEAD.fullmatch(name))

    @functools.cached_property
    def _listed(self) -> re.Pattern:
        """The names that the table lists as unused."""
        unused = [re.escape(theirs).replace(r"\{layer\}", r"\d+") for ours, theirs, _ in self.table if not ours]
        return re.compile("|".join(pattern.replace(r"\{any\}", ".*") for pattern in unused))

    @functools.cached_property
    def _modules(self) -> set[str]:
        return {name.rpartition(".")[0] for name in self.links} - {""}

    @functools.cached_property
    def _layers(self) -> re.Pattern:
        """What names of tensors in the model's stacks begin with, whatever the layer."""
        stacks = {
            re.escape(theirs.partition("{layer}")[0]) + r"\d+\."
            for ours, theirs, _ in self.table
            if ours
            and "{layer}" in theirs
            and hasattr(self.model, (ours if isinstance(ours, str) else ours[0]).split("/")[0])
        }
        return re.compile("|".join(sorted(stacks)) or "(?!)")

    def _initial(self, link: Link) -> list[np.ndarray]:
        """What a file that lacks an optional tensor is taken to hold."""
        params = [self.spec[piece.path] for piece in link.pieces]
        values = [np.asarray(p.init(jax.random.key(0), p.shape, np.float32)) for p in params]
        return [value[piece.at] for value, piece in zip(values, link.pieces, strict=True)]


# Ends of names of buffers in older files of many model types, which transformers computes anew and does not read.
DEAD = re.compile(
    r"(.*\.)?(position_ids|token_type_ids|masked_bias|causal_mask|version|_float_tensor|(\w+_)?inv_freq|rotary_emb\..+)"
)


def _read(link: Link, tensors: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    tensor = tensors[link.name]
    if tensor.shape != link.shape:
        raise UserError(_misshapen(f"tensor {link.name!r}", tensor.shape, link.shape))
    return link.split(tensor)


def _misshapen(what: str, shape: tuple[int, ...], wanted: tuple[int, ...]) -> str:
    return f"{what} is {list(shape)}, the model's {list(wanted)}: build the model with the shape of the checkpoint"


def _links(model: Model, table: TensorNames, tree: Tree, spec: Mapping[str, Param]) -> Iterator[Link]:
    """All their tensors that hold something of this model, in the table's order."""
    owners = {visit.path: visit.component for visit in walk(model, tree)}
    for ours, theirs, layout in table:
        paths = (ours,) if isinstance(ours, str) else ours
        if not paths or not hasattr(model, paths[0].partition("/")[0]):  # another tower's
            continue
        layers = range(_stack(model, paths[0]).layers) if "{layer}" in theirs else (0,)
        for layer in layers:
            owner = _owner(owners, _slice(model, paths[0], layer).path)
            if layout.only and not layout.only(owner):
                continue
            for leaf in LEAVES if "{leaf}" in theirs else ("",):
                pieces = [_untied(model, _slice(model, path.replace("{leaf}", leaf), layer)) for path in paths]
                if not all(piece.path in spec for piece in pieces):
                    continue
                params = [spec[piece.path] for piece in pieces]
                groups = getattr(owner, layout.groups) if isinstance(layout.groups, str) else layout.groups
                split = getattr(owner, layout.split) if isinstance(layout.split, str) else layout.split
                axis = next((a for a in INDEXED if f"{{{a}}}" in theirs), None)
                many = params[0].shape[params[0].axes.index(axis)] if axis else 1
                for index in range(many):
                    more = (index,) if axis else ()
                    parts = tuple(Slice(path, at + more) for path, at in pieces)
                    shapes = tuple(p.shape[len(part.at) :] for p, part in zip(params, parts, strict=True))
                    name = theirs.format(layer=layer, leaf=LEAVES.get(leaf), **{axis: index} if axis else {})
                    kind = (layout.convolution, layout.swapped, layout.merged, layout.optional)
                    yield Link(name, parts, shapes, layout.transpose, groups, split, *kind)


def _stack(model: Model, path: str) -> Stack:
    """The stack that a path with `{layer}` leads through; of several alike, which have numbers, any."""
    found: Any = model
    for name in path.partition(LAYER)[0].split("/"):
        found = found if name.isdigit() else getattr(found, name)
    return found


def _slice(model: Model, path: str, layer: int) -> Slice:
    """Where the tensor at `path` of that layer is."""
    if LAYER not in path:
        return Slice(path, ())
    stack = _stack(model, path)
    group, repeat, position = stack.locate(layer)
    return Slice(path.replace("{layer}", f"{group}/{position}"), () if stack.segments[group].tied else (repeat,))


def _untied(model: Model, place: Slice) -> Slice:
    """The parameter itself, where `place` is an alias."""
    path = place.path
    for alias, owner in model.ties:
        if f"{path}/".startswith(f"{alias}/"):
            path = owner + path.removeprefix(alias)
    return place._replace(path=path)


def _owner(owners: Mapping[str, Any], path: str) -> Any:
    """The component that the tensor at `path` belongs to."""
    while path not in owners:
        path = path.rpartition("/")[0]
    return owners[path]
