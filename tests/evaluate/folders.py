"""Tiny models with tokenizers of whole words, and texts of these words, for the tests and for the oracle's script.

python -m tests.evaluate.folders FOLDER      # writes them as Hugging Face folders
python tests/evaluate/oracle.py FOLDER       # prints the figures that the tests expect; needs transformers
"""

import json
import sys
from pathlib import Path
from typing import NamedTuple

from lm.core.param import Tree
from lm.hub.save import save_folder
from lm.text.format import TextFormat
from lm.text.hf_tokenizer import HFTokenizer
from lm.zoo.registry import build
from tests import toys

WORDS = ["the", "old", "river", "went", "slowly", "past", "grey", "stone", "boats", "turned", "home", "while", "skies"]
SIZES = (1, 2, 5, 9, 40, 3, 17, 1)  # words of each document
DOCUMENTS = [" ".join(WORDS[(7 * i + j * j) % len(WORDS)] for j in range(size)) for i, size in enumerate(SIZES)]
PAIRS = list(zip(DOCUMENTS, DOCUMENTS[::-1], strict=True))
VOCAB = 24


class Kind(NamedTuple):
    """special: tokens of the vocabulary; around: those before and after a text; knobs: of the model."""

    special: tuple[str, ...]
    around: str
    knobs: dict
    start: int | None = None


SMALL = {"layers": 2, "d_model": 16, "heads": 2, "d_ff": 24, "vocab": VOCAB}
KINDS = {
    "begun": Kind(("<unk>", "<s>", "</s>"), "<s> $A", SMALL | {"family": "llama"}),
    "plain": Kind(("<unk>", "</s>"), "$A", SMALL | {"family": "gpt2", "context": 32}),
    "masked": Kind(("[UNK]", "[CLS]", "[SEP]", "[MASK]"), "[CLS] $A [SEP]", SMALL | {"family": "bert", "context": 32}),
    "pairs": Kind(("<unk>", "<pad>", "</s>"), "$A </s>", SMALL | {"family": "t5", "head_dim": 8}, 1),
}


def text_of(kind: str) -> TextFormat:
    import tokenizers

    special, around, _, start = KINDS[kind]
    vocab = {piece: i for i, piece in enumerate([*special, *WORDS])}
    t = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocab, unk_token=special[0]))
    t.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    t.add_special_tokens(list(special))
    t.post_processor = tokenizers.processors.TemplateProcessing(
        single=around, special_tokens=[(piece, vocab[piece]) for piece in special]
    )
    tokenizer = HFTokenizer(t.to_str(), {})
    before, after = tokenizer.around
    return TextFormat(tokenizer, (tokenizer.eos_id,), before, after, start, context=64)


def params_of(kind: str) -> Tree:
    return toys.values(build(KINDS[kind].knobs).spec())


def words_of(text: str) -> list[int]:
    """Bytes that each word covers: the space before it is its own."""
    return [len(word) + (i > 0) for i, word in enumerate(text.split())]


def write_texts(folder: Path) -> None:
    rows = [{"body": text} for text in DOCUMENTS]
    (folder / "documents.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    rows = [{"from": source, "to": target} for source, target in PAIRS]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def main(folder: Path) -> None:
    for name, kind in KINDS.items():
        save_folder(folder / name, kind.knobs, params_of(name), text_of(name))
    write_texts(folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
