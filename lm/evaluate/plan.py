"""Planning an evaluation: which data, in which rows, with which measure."""

from collections.abc import Callable, Iterable
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections.config_dict import ConfigDict

from lm.core.component import components, from_dict
from lm.core.ctx import Ctx
from lm.core.errors import UserError
from lm.core.param import Tree, abstract
from lm.data.cache import TokenCache
from lm.data.eval_batches import EvalBatches
from lm.data.open import CorpusPart, Data, Weighted, format_for, open_split, sources_of, transforms_of
from lm.data.progress import tell
from lm.data.records.documents import Documents
from lm.data.records.records import Records
from lm.data.sources import STDLIB, Source
from lm.data.tokenize import build_cache
from lm.data.transforms.transform import TransformedSource
from lm.evaluate.documents import DocumentWindows
from lm.evaluate.masked import Masked
from lm.evaluate.pairs import ScoredPairs
from lm.evaluate.rows import ScoredRows, batches, groups, rows_together
from lm.inspect.cost import largest
from lm.model.heads import AHEAD, TOKENS, Heads
from lm.model.masks import Permuted
from lm.model.transformer import EncoderDecoder, Model, with_part
from lm.objectives.causal import NextToken
from lm.objectives.multi_token import MultiToken
from lm.objectives.objective import Objective
from lm.text.format import TextFormat
from lm.text.special import mask_of

SCORING = (TOKENS, AHEAD)  # what a head predicts that scores text
LONGEST = 2048  # tokens of a row, of a model from elsewhere, where nothing else is asked for
PERPLEXITY, PSEUDO = "perplexity", "pseudo-perplexity"


class Asked(NamedTuple):
    """What the command line says; None: as in the run."""

    data: str | None = None
    split: str | None = None
    pattern: str | None = None
    field: str | None = None
    length: int | None = None
    stride: int | None = None
    first: bool = True
    batch_size: int | None = None
    batches: int | None = None


class ScoredSource(NamedTuple):
    """One source, ready to be scored; `scored`: how many tokens that are."""

    name: str
    documents: int
    scored: int
    batches: Iterable[dict[str, np.ndarray]]


class Plan(NamedTuple):
    measure: str
    objective: Objective
    memory: int  # rows that a model remembers from batch to batch
    wording: str  # of the rows, and which tokens are scored
    split: str
    pieces: tuple[ScoredSource, ...]


class Setting(NamedTuple):
    """An opened model, and what its config says: `data` is config.data, `memory` how many rows it remembers from batch
    to batch, `held_out` makes batches of data as in training."""

    model: Model
    text: TextFormat
    data: ConfigDict
    objective: Objective
    memory: int
    dtype: jax.typing.DTypeLike
    held_out: Callable[[Data], EvalBatches]


def plan(opened: Setting, asked: Asked) -> Plan:
    """Raises `UserError` for a model that scores no text, data that is not there, and options that do not go
    together."""
    if isinstance(opened.model, EncoderDecoder) and "," in (asked.field or ""):
        return _pairs(opened, asked)
    objective = opened.objective
    if asked.data is None and not isinstance(_records_of(opened.data), Documents):
        return _as_trained(opened, asked)
    scoring = objective.scoring(opened.text.tokenizer)
    if not scoring.documents:
        return _as_trained(opened, asked)
    measure, mask = measure_of(opened.model, opened.text, scoring.mask)
    if isinstance(opened.model, EncoderDecoder):
        raise UserError(
            "an encoder-decoder scores pairs of texts: give --data=pairs.jsonl and --field=source,target, the names of "
            "its two fields"
        )
    if measure == PERPLEXITY and (asked.data is None or opened.memory):
        return _as_trained(opened, asked)
    if opened.model.head.predicts == AHEAD and objective.needs().head != AHEAD:
        objective = MultiToken()
    split, chosen = _chosen(opened, asked)
    pieces = []
    for source_name, source in chosen:
        cache = _cache(opened, source)
        rows = _masked(opened, asked, cache, mask) if mask is not None else _documents(opened, asked, cache)
        pieces.append(_piece(opened, asked, objective, source_name, cache.documents, rows))
    return Plan(measure, objective, 0, _wording(opened, asked, mask), split, tuple(pieces))


def measure_of(model: Model, text: TextFormat, mask: int | None = None) -> tuple[str, int | None]:
    """How a model scores text, and its mask token if it needs one: `mask`, or by default the vocabulary's.

    Raises `UserError` for a model that cannot score text."""
    if model.head.predicts not in SCORING:
        raise UserError(
            f"this model's head is {type(model.head).__name__}, which scores no text: open a language model"
        )
    if model.causal:
        return PERPLEXITY, None
    mask = mask_of(text.tokenizer) if mask is None else mask
    ordered = any(isinstance(part, Permuted) for part in components(model))
    if isinstance(model, EncoderDecoder) or ordered or mask is None:
        why = "has no mask token" if mask is None else "is of another kind than masked models"
        raise UserError(
            "this model's tokens see those that follow them, so that it has no perplexity; and for a "
            f"pseudo-perplexity it {why}: open a causal or a masked language model"
        )
    return PSEUDO, mask


def with_scoring_head(model: Model, params: Tree) -> tuple[Model, Tree]:
    """For a model with several heads on the same states, the model with only the head that scores the vocabulary, if
    there is one."""
    parts = model.head.parts if isinstance(model.head, Heads) else ()
    name = next((name for name, head in parts if head.predicts in SCORING), None)
    return (model, params) if name is None else with_part(model, params, name)


def _as_trained(opened: Setting, asked: Asked) -> Plan:
    """Rows as in training, to reproduce its validation metrics."""
    if asked.stride or not asked.first:
        flag = "--nofirst" if asked.stride is None else f"--stride={asked.stride}"
        raise UserError(f"{flag} is for documents, but these rows are as in training: give --data, or leave it out")
    c = opened.data
    split, chosen = _chosen(opened, asked)
    records = [s.records for s in _sources(opened, asked)]
    caches = [
        (name, _cache(opened, source, opened.text.before, own))
        for (name, source), own in zip(chosen, records, strict=True)
    ]
    data = Data(opened.text.tokenizer, tuple(CorpusPart(name, 1.0, cache, cache) for name, cache in caches))
    held_out = opened.held_out(data)
    pieces = tuple(
        ScoredSource(
            name,
            cache.documents,
            min(cache.size, len(which[: asked.batches]) * c.batch_size * c.length),
            _batches(held_out, which[: asked.batches]),
        )
        for (name, cache), which in zip(caches, held_out.ranges, strict=True)
    )
    wording = f"rows of {c.length} tokens, packed as in training ({c.packing}), under {type(opened.objective).__name__}"
    return Plan(PERPLEXITY, opened.objective, opened.memory, wording, split, pieces)


def _batches(held_out: EvalBatches, which: range) -> Iterable[dict[str, np.ndarray]]:
    return (held_out.batch(k) for k in which)


def _chosen(opened: Setting, asked: Asked) -> tuple[str, list[tuple[str, Source | TransformedSource]]]:
    """The split, and each source of it by name."""
    split = asked.split or ("validation" if asked.data in (None, STDLIB) else "all")
    sources = [(str(s.where), _source(opened, asked, s, split)) for s in _sources(opened, asked)]
    for note in dict.fromkeys(note for _, source in sources for note in source.notes):
        tell(note)
    return split, sources


def _sources(opened: Setting, asked: Asked) -> list[Weighted]:
    """Those of the run, or the one that is asked for, which is plain text."""
    c = opened.data
    if asked.data is not None:
        return [Weighted(asked.data, 1.0, asked.field or c.field)]
    sources = sources_of(c.source, c.mixture, c.field, _records_of(c))
    return [s._replace(field=asked.field or s.field) for s in sources]


def _records_of(data: ConfigDict) -> Records:
    return from_dict(data.records.to_dict(), "config.data.records")


def _source(opened: Setting, asked: Asked, chosen: Weighted, split: str) -> Source | TransformedSource:
    """A split of what is asked for: of the run's own text transformed as in training, of other data as it stands."""
    c, where = opened.data, chosen.where
    transforms = transforms_of(c.get("transforms", ())) if asked.data is None else ()
    options = {"pattern": asked.pattern or c.pattern, "holdout": c.holdout}
    if split != "all":
        own = c.validation if asked.data is None and not c.mixture else ""
        return open_split(chosen, split, transforms, validation=own or None, **options)
    if where == STDLIB:
        raise UserError(f"--split=all is for files: {STDLIB} has the splits validation and train")
    # files that are the validation split
    return open_split(chosen, "validation", transforms, validation=where, **options)


def _cache(
    opened: Setting, source: Source | TransformedSource, before: tuple[int, ...] = (), records: Records = Documents()
) -> TokenCache:
    root = Path(opened.data.cache).expanduser() / "tokens"
    text = format_for(opened.text.tokenizer, opened.text, isinstance(opened.model, EncoderDecoder))
    return build_cache(source, opened.text.tokenizer, root, before=before, records=records, text=text)


def _documents(opened: Setting, asked: Asked, cache: TokenCache) -> DocumentWindows:
    text = opened.text
    return DocumentWindows(cache, opened.data.length, text.before, asked.stride, asked.first, bool(text.ends))


def _masked(opened: Setting, asked: Asked, cache: TokenCache, mask: int) -> Masked:
    if asked.stride or not asked.first:
        raise UserError("--stride and --nofirst are for causal models: a masked one reads both sides of each token")
    return Masked(cache, opened.data.length, mask, opened.text.before, opened.text.after)


def _pairs(opened: Setting, asked: Asked) -> Plan:
    """Sources and targets from two fields."""
    measure_of(opened.model, opened.text)
    fields = [field.strip() for field in (asked.field or "").split(",")]
    if len(fields) != 2 or not all(fields):
        raise UserError(f"--field={asked.field} names no pair: give two fields, as --field=source,target")
    if asked.data is None:
        raise UserError("--field=source,target needs --data: name the file of the pairs")
    if asked.stride or not asked.first:
        raise UserError("--stride and --nofirst are for causal models: an encoder-decoder reads pairs whole")
    split, [(name, sources)] = _chosen(opened, asked._replace(field=fields[0]))
    _, [(_, targets)] = _chosen(opened, asked._replace(field=fields[1]))
    text = opened.text
    texts = (
        ("".join(source.pieces()), "".join(target.pieces())) for source, target in zip(sources, targets, strict=True)
    )
    lead = text.lead
    rows = ScoredPairs.of(texts, text.tokenizer, lead, text.before, text.after)
    rows.check(opened.data.length)
    piece = _piece(opened, asked, NextToken(), name, len(rows), rows)
    around = f"{_pieces(text, text.before)}{fields[0]}{_pieces(text, text.after, True)}"
    wording = (
        f"pairs: the encoder reads {around}, the decoder {_pieces(text, lead)}{fields[1]}; scored: "
        f"{fields[1]} and {_pieces(text, (text.tokenizer.eos_id,), True).strip()}"
    )
    return Plan(PERPLEXITY, NextToken(), 0, wording, split, (piece,))


def _piece(
    opened: Setting, asked: Asked, objective: Objective, name: str, documents: int, rows: ScoredRows
) -> ScoredSource:
    """All rows, or as many as `asked.batches` hold, in batches that fit."""
    if not len(rows.sizes):
        raise UserError(f"{name} has no token to score: each text is of one token, with nothing before it")
    longest = (opened.data.length,) * rows.sizes.shape[1]

    def loss(params: Any, batch: dict) -> Any:
        return objective(opened.model, params, batch, Ctx(), opened.dtype).total

    def most(shape: tuple[int, ...], count: int) -> int:
        one = rows.row(int(np.argmax((rows.sizes <= shape).all(1))), shape)  # the first that has room
        batch = {k: jax.ShapeDtypeStruct((count, *np.shape(v)), np.asarray(v).dtype) for k, v in one.items()}
        return largest(loss, abstract(opened.model.spec()), batch)

    def together(shape: tuple[int, ...]) -> int:
        return asked.batch_size or rows_together(most, shape)

    sizes, scored = rows.sizes, int(rows.scored.sum())
    if asked.batches:
        sizes = sizes[: asked.batches * together(tuple(sizes.max(0).tolist()))]
        scored = int(rows.scored[: len(sizes)].sum())
    planned = groups(sizes, longest, together)
    made = batches(rows, planned)
    return ScoredSource(name, documents, scored, islice(made, asked.batches))


def _wording(opened: Setting, asked: Asked, mask: int | None) -> str:
    text, length = opened.text, opened.data.length
    if mask is not None:
        around = f"{_pieces(text, text.before)}text{_pieces(text, text.after, True)}"
        return f"each document as {around}, in pieces of {length} tokens; scored: each token of it, masked in turn"
    apart = "that overlap by one" if asked.stride is None else f"that begin {asked.stride} apart"
    first = "but the first of each, which nothing stands before"
    if text.before:
        first = f"after {_pieces(text, text.before).strip()}" + ("" if asked.first else " but the first of each")
    end = _pieces(text, (text.tokenizer.eos_id,), True) if text.ends else ""
    return (
        f"each document as {_pieces(text, text.before)}text{end}, in windows of {length} tokens {apart}; scored: all "
        f"tokens {first}"
    )


def _pieces(text: TextFormat, ids: tuple[int, ...], behind: bool = False) -> str:
    """Special tokens as they are spelled."""
    tokenizer = text.tokenizer
    names = {tokenizer.piece_id(piece): piece for piece in (*tokenizer.markers, *tokenizer.special.values())}
    usual = {tokenizer.eos_id: "end-of-text", tokenizer.pad_id: "padding"}
    spelled = [names.get(i) or usual.get(i, f"token {i}") for i in ids]
    return "".join(f" {piece}" if behind else f"{piece} " for piece in spelled)
