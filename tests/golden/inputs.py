"""What the model of a golden reads: random rows, padded on either side, and their labels."""

import inspect
from typing import Any

import numpy as np
import torch

from tests.golden.case import Case

LENGTH = 24  # tokens of a row
ENCODER = 19  # tokens that an encoder-decoder reads
ASKED = 5  # tokens of a row, where they are predicted in an order of their own
SPECIAL = 3  # ids from here on are neither padding nor ends
WHOLE = ((0, 0, 0), (0, 0, 0))  # for answers' ends: their loss reads scores of padding
Arrays = dict[str, np.ndarray]


def rows(rng: np.random.Generator, config: Any, length: int, left: tuple[int, ...], right: tuple[int, ...]) -> Arrays:
    """Tokens, mask and positions of padded rows."""
    index = np.arange(length)
    mask = ((index >= np.array(left)[:, None]) & (index < length - np.array(right)[:, None])).astype(np.int32)
    tokens = rng.integers(SPECIAL, config.vocab_size, mask.shape)
    padding = getattr(config, "pad_token_id", None) or 0
    return {
        "tokens": np.where(mask == 1, tokens, padding).astype(np.int32),
        "mask": mask,
        "positions": np.maximum(mask.cumsum(1) - 1, 0).astype(np.int32),
    }


def tower(config: Any, side: str = "decoder") -> Any:
    """The config of one side of an encoder-decoder: where there are not two, they share the whole."""
    return getattr(config, side, config)


def pairs(rng: np.random.Generator, model: torch.nn.Module, case: Case) -> Arrays:
    """What encoder and decoder read. A classifier's decoder reads the same text, moved right by its start token, and is
    asked at the end that the encoder's text has."""
    config, kind = model.config, type(model).__name__
    right = case.positions == "index" or "SequenceClassification" in kind
    memory = rows(
        rng, tower(config, "encoder"), ENCODER, *(((0, 0, 0), (0, 3, 5)) if right else ((0, 3, 0), (0, 0, 5)))
    )
    inputs = rows(rng, tower(config), LENGTH, *(WHOLE if "QuestionAnswering" in kind else ((0, 0, 0), (0, 7, 3))))
    if "SequenceClassification" in kind:
        lengths = memory["mask"].sum(1)
        memory["tokens"][np.arange(len(lengths)), lengths - 1] = config.eos_token_id
        start = np.full((len(lengths), 1), config.decoder_start_token_id, np.int32)
        inputs = memory | {"tokens": np.concatenate([start, memory["tokens"][:, :-1]], axis=1)}
        if config.model_type == "t5gemma":  # theirs is asked at the text's last token, which is one further here
            inputs["mask"] = np.concatenate([np.ones_like(start), memory["mask"][:, :-1]], axis=1)
            inputs["positions"] = inputs["mask"].cumsum(1, dtype=np.int32) - 1
    return inputs | {f"encoder/{name}": value for name, value in memory.items()}


def labels_of(model: torch.nn.Module, inputs: Arrays, rng: np.random.Generator) -> Arrays:
    """Labels by the names that the model's class has for them."""
    kind, tokens, mask = type(model).__name__, inputs["tokens"], inputs["mask"]
    wanted = inspect.signature(model.forward).parameters
    many, labels = model.config.num_labels, {}
    some = (rng.random(mask.shape) < 0.4) & (mask == 1)
    if "SequenceClassification" in kind or "NextSentence" in kind:
        labels["labels"] = rng.integers(0, many, len(mask))
    elif "TokenClassification" in kind:
        labels["labels"] = np.where(mask == 1, rng.integers(0, many, mask.shape), -100)
    elif "QuestionAnswering" in kind:
        ends = [rng.choice(np.flatnonzero(row), 2) for row in mask]
        labels["start_positions"], labels["end_positions"] = np.sort(ends).T
    elif "labels" not in wanted or "MultipleChoice" in kind:
        return {}
    elif "MaskedLM" in kind or ("ForPreTraining" in kind and model.config.model_type != "electra"):
        labels["labels"] = np.where(some, rng.integers(SPECIAL, tower(model.config).vocab_size, mask.shape), -100)
    elif "ForPreTraining" in kind:  # which tokens were replaced
        labels["labels"] = some.astype(np.int64)
    elif "encoder/tokens" in inputs:
        labels["labels"] = np.where(mask == 1, rng.integers(SPECIAL, tower(model.config).vocab_size, mask.shape), -100)
    elif getattr(type(model.config), "is_encoder_decoder", False):  # a decoder alone: they do not shift what comes next
        labels["labels"] = np.full(mask.shape, -100)
        labels["labels"][:, :-1] = np.where(mask[:, :-1] * mask[:, 1:] == 1, tokens[:, 1:], -100)
    else:  # what comes next; not what padding would predict
        first = (mask.cumsum(1) == 1) & (mask == 1)
        labels["labels"] = np.where((mask == 1) & ~first, tokens, -100)
    for name in ("next_sentence_label", "sentence_order_label"):
        if name in wanted:
            labels[name] = rng.integers(0, 2, len(mask))
    return labels


def permuted(rng: np.random.Generator, inputs: Arrays) -> tuple[Arrays, np.ndarray, Arrays]:
    """ASKED real tokens of each row, to be predicted in some order after all others. What we read: the rows with a
    query for each behind them, `order` (see `lm.model.masks.Permuted`), and `shown`, which says where scores are
    compared; what they read: the tokens asked for [B, ASKED], perm_mask (1: hidden) and target_mapping."""
    mask = inputs["mask"]
    at = np.stack([rng.choice(np.flatnonzero(row), ASKED, replace=False) for row in mask])
    place = np.zeros_like(mask)
    np.put_along_axis(place, at, np.arange(1, ASKED + 1, dtype=place.dtype)[None], 1)
    own, other = place[:, :, None], place[:, None, :]
    hidden = (other > own) | ((other == own) & (own > 0))
    asked = {name: np.take_along_axis(row, at, 1) for name, row in inputs.items()}
    ours = {name: np.concatenate([row, asked[name]], 1) for name, row in inputs.items()}
    ours["order"] = np.concatenate([place, ~np.take_along_axis(place, at, 1)], 1)
    ours["shown"] = (ours["order"] < 0).astype(np.int32)
    mapping = np.arange(mask.shape[1]) == at[:, :, None]
    theirs = {"perm_mask": hidden.astype(np.float32), "target_mapping": mapping.astype(np.float32)}
    return ours, asked["tokens"], theirs
