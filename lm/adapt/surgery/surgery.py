"""The protocol of surgery: what is done once to a model before another run goes on from it (`config.train.surgery`).

A `lm.core.transform.Transform` stays: a program is a model and its transforms for as long as it lives. Surgery is done
at step 0 and then forgotten: the run's model is the result, and checkpoints, resuming and export know of no other."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import jax

from lm.core.errors import UserError
from lm.core.param import Tree, abstract, combine, flatten, initialize, map_paths
from lm.model.transformer import EncoderDecoder, Group, LanguageModel, Model, Transformer


@runtime_checkable
class Surgery(Protocol):
    """A change of a model and of its parameters that another model grows from.

    Surgery is a component: it holds hyperparameters only, and a config contains it by its stored name. Several are done
    in order, each to the result of the one before.

    One that depends on the tokenizer also has `for_tokenizer(tokens) -> Surgery`, which is called first, with the
    number of the tokenizer's tokens, and whose result the run records."""

    def model(self, model: Model) -> Model:
        """The new model.

        A function of its argument alone. Raises `UserError` if there is nothing in the model to work on."""
        ...

    def params(self, old: Model, new: Model, params: Tree, key: jax.Array) -> Tree:
        """Parameters of `new`, which is `self.model(old)`, given those of `old`.

        Shaped as `new.spec()`, except that a tensor may be None or absent: it begins with the initial values of its
        `Param`. Traced by `jax.jit`, over arrays that may be sharded. `key` is that of the run's initial values:
        `lm.core.param.initialize` derives one for each tensor from its path."""
        ...


class Report(NamedTuple):
    """Which parameters surgery made and lost.

    fresh: tensors that begin with initial values of their own;
    unused: tensors of the model before, of which nothing went on."""

    fresh: tuple[str, ...]
    unused: tuple[str, ...]


def result(surgery: Sequence[Surgery], model: Model) -> Model:
    """The model after all of them."""
    for one in surgery:
        model = one.model(model)
    return model


def operate(surgery: Sequence[Surgery], model: Model, params: Tree, key: jax.Array) -> Tree:
    """The parameters of `result(surgery, model)`, given those of `model`. Traceable."""
    for one in surgery:
        new = one.model(model)
        params, model = _whole(one.params(model, new, params, key), new, key), new
    return params


def report(surgery: Sequence[Surgery], model: Model) -> Report:
    """What `operate` would do; nothing is computed."""
    fresh: list[str] = []
    before = abstract(model.spec())

    def traced(params: Tree, key: jax.Array) -> Tree:
        at = model
        for one in surgery:
            new = one.model(at)
            found = one.params(at, new, params, key)
            fresh.extend(path for path, x in flatten(_missing(found, new)))
            params, at = _whole(found, new, key), new
        return params

    jaxpr = jax.make_jaxpr(traced)(before, jax.random.key(0)).jaxpr
    used = {id(v) for equation in jaxpr.eqns for v in equation.invars} | {id(v) for v in jaxpr.outvars}
    unused = [path for (path, _), v in zip(flatten(before), jaxpr.invars, strict=False) if id(v) not in used]
    left = {path for path, _ in flatten(result(surgery, model).spec())}
    return Report(tuple(path for path in dict.fromkeys(fresh) if path in left), tuple(unused))


def _missing(found: Tree, new: Model) -> Tree:
    """The `Param`s of which `found` has no values; None elsewhere."""
    there = dict(flatten(found))
    return map_paths(lambda path, p: None if path in there else p, new.spec())


def _whole(found: Tree, new: Model, key: jax.Array) -> Tree:
    """`found`, with initial values where it has none. Raises `ValueError` for what does not fit the model's spec."""
    there, spec = dict(flatten(found)), new.spec()
    for path, p in flatten(spec):
        if path in there and there[path].shape != p.shape:
            raise ValueError(f"surgery made {path} {there[path].shape}, the new model has {p.shape}")
    if unknown := there.keys() - dict(flatten(spec)).keys():
        raise ValueError(f"surgery made {sorted(unknown)[0]}, which the new model has not")
    taken = map_paths(lambda path, p: there.get(path), spec)
    return combine(taken, initialize(_missing(found, new), key))


# ---------------------------------------------------------------------------------------------------------------------
# What several kinds of surgery need.


def inherited(old: Tree, new: Model, *, but: str | None = None) -> Tree:
    """The tensors of `old` whose path and shape are those of a tensor of the new model; without those under `but`."""
    there = {path: x for path, x in flatten(old) if but is None or not path.startswith(but)}

    def one(path: str, p: jax.Array) -> jax.Array | None:
        x = there.get(path)
        return x if x is not None and x.shape == p.shape else None

    return map_paths(one, new.spec())


_OF_ONE = "surgery is of one model, and this is a group of {}: make one of them a run of its own (lm.hub part)"


def towers(model: Model, only: str = "") -> dict[str, Transformer]:
    """The towers of a model by the name of their field, or that one. Raises `UserError` for a name that it has not."""
    if isinstance(model, Group):
        raise UserError(_OF_ONE.format(", ".join(name for name, _ in model.parts)))
    names = ("body",) if isinstance(model, LanguageModel) else ("encoder", "decoder")
    if only and only not in names:
        raise UserError(f"tower={only!r} is none of this model, which has {' and '.join(names)}")
    found = {name: getattr(model, name) for name in names if only in ("", name)}
    for name, tower in found.items():
        if not isinstance(tower, Transformer):
            raise UserError(f"the {name} is a {type(tower).__name__}, of which surgery knows nothing")
    return found


def language_model_of(model: Model, name: str) -> LanguageModel:
    """The model, if it has one tower; `name` is that of the surgery that asks."""
    if isinstance(model, EncoderDecoder):
        raise UserError(f"{name} takes a model of one tower, and this is an encoder-decoder")
    if isinstance(model, Group):
        raise UserError(_OF_ONE.format(", ".join(part for part, _ in model.parts)))
    return model
