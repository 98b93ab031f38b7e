"""From a config to its data: sources, training and validation batches, and what is known of these without any."""

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import jax
import numpy as np
from ml_collections.config_dict import ConfigDict

from lm.core.errors import UserError
from lm.core.mesh import Sharding
from lm.core.rows import weights_of
from lm.data.batches import Batches
from lm.data.eval_batches import EvalBatches
from lm.data.open import CorpusPart, Data, open_data, sources_of, transforms_of
from lm.data.packing import padding
from lm.data.partners import with_partners
from lm.data.progress import tell
from lm.data.stages import StagedBatches
from lm.data.streams import addressed
from lm.hub.text import read_tokenizer
from lm.objectives.examples.builder import Covered, ExampleBuilder, FromSource
from lm.objectives.mixed import Mixed
from lm.objectives.objective import Objective, check_channels, check_packing
from lm.text.format import TextFormat
from lm.text.tokenizers import Tokenizer
from lm.train.config import chosen, section
from lm.train.prefetch import by_rows

LOOK_STEPS, LOOK_ROWS, LOOK_MOST = 8, 256, 10_000  # how far it is looked for a row that predicts something


def open_data_of(
    config: ConfigDict, text: TextFormat | None = None, encoder: bool = False, known: Tokenizer | None = None
) -> Data:
    """The data of a config. `text`: the format of the model that the run goes on from, which decides what the config
    leaves open, its tokenizer and the begin-of-text; `encoder`: the model has one beside its decoder; `known`: the
    tokenizer, where the run has one."""
    c = config.data
    tokenizer = known or c.tokenizer or (text.tokenizer if text is not None else "byte")
    if isinstance(tokenizer, str) and (folder := Path(tokenizer).expanduser()).is_dir():
        tokenizer = read_tokenizer(folder)
    data = open_data(
        c.source,
        tokenizer,
        mixture=c.mixture,
        validation=c.validation or None,
        pattern=c.pattern,
        field=c.field,
        holdout=c.holdout,
        cache=c.cache,
        reserved=c.reserved,
        bos=c.bos == "on" or (c.bos == "auto" and text is not None and bool(text.before)),
        records=chosen("data.records", c.records),
        text=text,
        encoder=encoder,
        transforms=transforms_of(c.transforms),
    )
    rates = section(config, "data").rates
    sizes = [part.train.size if rates.by == "tokens" else part.train.documents for part in data.parts]
    sampled = rates.of(sizes, [part.weight for part in data.parts])
    return data._replace(parts=tuple(p._replace(weight=w) for p, w in zip(data.parts, sampled, strict=True)))


def batches_of(
    config: ConfigDict,
    data: Data,
    objective: Objective,
    names: tuple[str, ...] = (),
    known: tuple[tuple[int, str], ...] = (),
) -> Batches:
    """Training batches by address. `names`: of sources whose losses are told apart; `known`: of a run in stages the
    number of each source of this one, and its name."""
    c = config.data
    for part in data.parts:
        for drawn in drawn_by(part, objective):
            check_channels(drawn, part.name, part.train)
            check_packing(drawn, c.packing)
    numbers = tuple(number for number, _ in known) or tuple(range(len(data.parts)))
    build: ExampleBuilder = example_of(data, objective, numbers)
    if names:
        called = [name for _, name in known] or names
        build = FromSource(build, _at(numbers, [names.index(name) for name in called]))
    batches = Batches(
        data.training,
        c.length,
        c.batch_size,
        config.seed,
        build,
        packing=c.packing,
        batch_warmup=tuple(map(tuple, config.train.batch_warmup)),
        accumulate=config.train.accumulate,
        long=c.long,
        sides=objective.needs().sides,
        numbers=numbers if known else (),
        copies=objective.needs().copies,
        partners=objective.needs().partners,
    )
    _report(data, batches.left_out)
    return batches


def held_out_of(config: ConfigDict, data: Data, objective: Objective) -> EvalBatches:
    """Validation batches, in order."""
    c = config.data
    for part in data.parts:
        for drawn in drawn_by(part, objective):
            check_channels(drawn, part.name, part.validation)
            check_packing(drawn, c.packing)
    held_out = EvalBatches(
        data.validation,
        c.length,
        c.batch_size,
        example_of(data, objective),
        packing=c.packing,
        long=c.long,
        sides=objective.needs().sides,
        partners=objective.needs().partners,
    )
    _report(data, held_out.left_out)
    return held_out


def _report(data: Data, left_out: tuple[Mapping[str, int], ...]) -> None:
    """Tell what is not in the rows of each source."""
    for part, counts in zip(data.parts, left_out, strict=True):
        for reason, count in counts.items():
            tell(f"{part.name}: {count:,} {reason}")


def example_of(data: Data, objective: Objective, numbers: Sequence[int] | None = None) -> Covered:
    """An objective's examples, with the number of bytes of text that each predicts. `numbers`: of the sources, where
    not in order."""
    build: ExampleBuilder
    if isinstance(objective, Mixed):
        own = [objective.number_of(part.objective, part.name) for part in data.parts]
        tied = _at(numbers or range(len(own)), own) if max(own) >= 0 else ()
        build = dataclasses.replace(objective.examples(data.tokenizer), tied=tied)
    else:
        build = objective.examples(data.tokenizer)
    return Covered(build, np.append(data.tokenizer.token_bytes(), 0))


def _at(numbers: Sequence[int], values: Sequence[int]) -> tuple[int, ...]:
    """Each value at its number, and -1 where there is none."""
    by_number = dict(zip(numbers, values, strict=True))
    return tuple(by_number.get(number, -1) for number in range(max(numbers) + 1))


def drawn_by(part: CorpusPart, objective: Objective) -> tuple[Objective, ...]:
    """The objectives that rows of a source may go to. Raises `UserError` for one that it names and there is not."""
    if isinstance(objective, Mixed):
        own = objective.number_of(part.objective, part.name)
        drawn = tuple(made for rate, _, made in objective.parts if rate > 0)
        return drawn if own < 0 else objective.objectives[own : own + 1]
    if part.objective:
        raise UserError(
            f"data.mixture: {part.name} names the objective {part.objective!r}, but config.objective is "
            f"{type(objective).__name__}: take Mixed, or leave the name out"
        )
    return (objective,)


def source_names(configs: Sequence[ConfigDict]) -> list[tuple[str, ...]]:
    """What the sources of each stage are called where their losses are told apart: by their last name, if that tells
    which, and never as a part of an objective."""
    paths = [
        [str(source.where) for source in sources_of(c.data.source or " ", c.data.mixture, c.data.field)]
        for c in configs
    ]
    short = {path: Path(path).name or path for of_stage in paths for path in of_stage}
    counts = Counter(short.values())
    taken = {part[1] for c in configs if c.objective.get("type") == "Mixed" for part in c.objective.parts}
    names = {path: name if counts[name] == 1 else path for path, name in short.items()}
    return [tuple(f"source {names[p]}" if names[p] in taken else names[p] for p in of_stage) for of_stage in paths]


def check_predicts(batches: Batches | StagedBatches, objective: Objective, step: int) -> None:
    """Raise `UserError` if the batches from step `step` (counted from 0) on predict no token at all, as far as a look
    ahead tells: nothing would be learned."""
    steps = range(step, step + max(LOOK_STEPS, -(-LOOK_ROWS // batches.batch_size)))
    looked = 0
    for k, row in ((k, row) for k in steps for row in range(batches.batch_size)):
        if any(np.any(weights > 0) for weights in weights_of(batches.batch(k, [row])).values()):
            return
        looked += 1
        if looked == LOOK_MOST:
            break
    raise UserError(
        f"objective {type(objective).__name__} predicts no token in the next {looked:,} rows (from step {step + 1} "
        "on): its examples have no weight above 0; change config.objective, or lengthen config.data.length"
    )


def shapes_of(batches: Batches | StagedBatches, step: int = 0) -> dict[str, jax.ShapeDtypeStruct]:
    """Of the training batch of a step, all of its rows."""
    row = batches.batch(step, [0])
    return {k: jax.ShapeDtypeStruct((batches.batch_size, *x.shape[1:]), x.dtype) for k, x in row.items()}


def lengths_of(batches: Batches | StagedBatches, step: int = 0) -> tuple[int, int]:
    """Tokens per row of the model's input at a step, and of its encoder's (0 without one)."""
    batch = batches.batch(step, [0])
    encoder = batch.get("encoder/tokens")
    return batch["tokens"].shape[1], 0 if encoder is None else encoder.shape[1]


def abstract_batch(
    config: ConfigDict, objective: Objective, sharding: Sharding | None, names: tuple[str, ...] = ()
) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes, types and layout of a training batch, without data. `names`: of sources that are told apart."""
    row = padding(config.data.length, dict.fromkeys(objective.needs().channels, np.int32))
    row["segments"] += objective.needs().sides is None  # where both sides have bounds, no text is within them
    row = addressed(with_partners(row, [None] * objective.needs().partners), 0, 0)
    example = objective.examples(None)(row, np.random.default_rng(0))
    example |= {"bytes": np.array(0, np.int32)} if "targets" in example else {}
    example |= {"source": np.array(0, np.int32)} if names else {}
    example |= {"reset": np.array(0, np.int32)} if config.data.packing == "stream" else {}
    shapes = {k: ((config.data.batch_size, *np.shape(v)), np.asarray(v).dtype) for k, v in example.items()}
    return {
        k: jax.ShapeDtypeStruct(shape, dtype, sharding=None if sharding is None else by_rows(sharding, len(shape)))
        for k, (shape, dtype) in shapes.items()
    }
