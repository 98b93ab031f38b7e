"""Writes collators.json: how often `transformers`' collator for masked language modelling hides tokens, and what it
puts in their place, by the number of tokens that a word has. See `tests.golden.generate` for the environment:

    python -m tests.golden.collators
"""

import json
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, models
from transformers import DataCollatorForLanguageModeling, PreTrainedTokenizerFast

FILE = Path(__file__).with_name("collators.json")
VOCAB = {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "[MASK]": 4}
VOCAB |= {f"w{i}": 5 + i for i in range(60)} | {f"##p{i}": 65 + i for i in range(60)}
SIZES = (1, 2, 3)  # tokens of a word, each as often
WORDS, ROWS = 150, 1000


def row(seed: int) -> list[int]:
    """Words of one to three tokens between [CLS] and [SEP]."""
    rng = np.random.default_rng(seed)
    ids = [2]
    for size in rng.permutation(np.repeat(SIZES, WORDS // len(SIZES))):
        ids += [5 + int(rng.integers(60)), *(65 + rng.integers(60, size=size - 1)).tolist()]
    return [*ids, 3]


def counts(tokens: np.ndarray, shown: np.ndarray, hidden: np.ndarray) -> dict[str, float]:
    """Of rows: the share of text that is hidden, what shows in its place, by words' sizes how many are hidden whole and
    how many in part."""
    text = tokens > 4
    asked = hidden & text
    found = {
        "hidden": asked.sum() / text.sum(),
        "special": float((hidden & ~text).sum()),
        "masked": (shown[asked] == 4).mean(),
        "kept": (shown[asked] == tokens[asked]).mean(),
    }
    starts = text & (tokens < 65)
    number = np.cumsum(starts)[text.ravel()] - 1
    sizes = np.bincount(number)
    of_word = np.bincount(number, weights=hidden[text])
    for size in SIZES:
        there = sizes == size
        found[f"whole {size}"] = (of_word[there] == size).mean()
        found[f"part {size}"] = ((of_word[there] > 0) & (of_word[there] < size)).mean()
    return {name: round(float(value), 5) for name, value in found.items()}


def main() -> None:
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordPiece(VOCAB, unk_token="[UNK]")),
        **{f"{name.lower()}_token": f"[{name}]" for name in ("PAD", "UNK", "CLS", "SEP", "MASK")},
    )
    tokens = np.array([row(seed) for seed in range(ROWS)])
    found = {}
    for whole in (False, True):
        collate = DataCollatorForLanguageModeling(tokenizer, whole_word_mask=whole, seed=0)
        made = []
        for ids in tokens:
            gaps = np.cumsum(ids < 65)  # a word stands behind a space, where the collator takes it for a new one
            first = 2 * np.arange(len(ids)) + gaps
            made.append({"input_ids": ids.tolist(), "special_tokens_mask": (ids < 5).astype(int).tolist()})
            made[-1] |= {"offset_mapping": np.stack([first, first + 2], 1).tolist()} if whole else {}
        batch = collate(made)
        shown, labels = batch["input_ids"].numpy(), batch["labels"].numpy()
        found["words" if whole else "tokens"] = counts(tokens, shown, labels >= 0)
    FILE.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
