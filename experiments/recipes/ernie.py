"""ERNIE 1.0 (Sun et al. 2019, arXiv 1904.09223, sections 3 and 4): hidden tokens, then hidden phrases, then hidden
entities, each a stage; and dialogues, of which a head tells whether one turn is of another. Rows, optimizer and
1M steps are those of the published code (8192 tokens for each of 8 devices), which also tells whether two texts follow
each other.

Documents are records with a field of their `text` and two that list phrases and entities as offsets of characters,
[[start, end], ..]; dialogues are records as of chats (`lm.data.records.dialogues`). The files documents.jsonl and
dialogues.jsonl are read. Not published: the lengths of the stages, here a quarter each, and how often dialogues come;
the paper takes turns between these and the rest, here they are the last stage."""

import json
import random

from ml_collections.config_dict import ConfigDict

from experiments.recipes import recipe
from lm.core.component import to_dict
from lm.data.records.dialogues import Dialogues
from lm.data.records.documents import Documents
from lm.objectives.dialogues import MaskedDialogues
from lm.objectives.examples.hiding import GivenSpans
from lm.objectives.masked import MaskedTokens
from lm.objectives.sentence_pairs import MaskedPairs
from lm.train.config import as_config
from lm.train.optim.adamw import AdamW

SIZES = ("1.0-base", "tiny")
HEADS = ("mlm", "nsp", "dialogue")


def get_config(size: str = "1.0-base") -> ConfigDict:
    tiny = size == recipe.TINY
    config = recipe.of("ernie", size, recipe.SHAPES | {"vocab": 387}, pretraining=HEADS, dropout=0.1)
    config.data.tokenizer = "unigram-18000"
    config.data.reserved = ("[CLS]", "[SEP]", "[MASK]")
    config.data.field = "text"
    config.data.records = as_config(Documents(sentences="punctuation", spans="phrases"))
    basic = MaskedTokens(predictions=77)
    spans = MaskedTokens(hiding=GivenSpans(whole_words=False), predictions=77)  # outside of spans, characters
    recipe.under(config, MaskedPairs(basic), 512)
    config.data.batch_size = 128
    config.train.steps = 1_000_000
    optimizer = AdamW(learning_rate=1e-4, weight_decay=0.01, clip=1.0, b1=0.9, b2=0.999, eps=1e-8)
    recipe.moves(config, optimizer, recipe.line(warmup=5000))
    config = recipe.small_run(config) if tiny else config
    documents = written_documents() if tiny else "documents.jsonl"
    dialogues = _written_dialogues() if tiny else "dialogues.jsonl"
    config.data.source = documents
    stage = {
        "objective": to_dict(MaskedDialogues(basic)),
        "data.source": dialogues,
        "data.records": to_dict(Dialogues()),
    }
    quarter = config.train.steps // 4
    config.stages = (
        (quarter, {"objective": to_dict(MaskedPairs(spans))}),
        (2 * quarter, {"data.records.spans": "entities"}),
        (3 * quarter, stage),
    )
    return config


NAMES = ("Ada", "Boole", "Church", "Curry", "Frege", "Gauss", "Hilbert", "Noether", "Post", "Turing")
PLACES = ("Berlin", "Kyoto", "Lima", "Oslo", "Rome")
WORKS = ("a book", "a proof", "notes", "letters", "the end")


def written_documents() -> str:
    """A small file of documents whose phrases and entities are known, for the tiny variant."""
    rng = random.Random(0)
    lines = []
    for _ in range(400):
        text, phrases, entities = "", [], []
        for _ in range(rng.randint(4, 8)):
            who, work, where = rng.choice(NAMES), rng.choice(WORKS), rng.choice(PLACES)
            for part, marks in ((who, entities), (" wrote ", None), (work, phrases), (" in ", None), (where, entities)):
                if marks is not None:
                    marks.append([len(text), len(text) + len(part)])
                text += part
            text += ". "
        lines.append(json.dumps({"text": text, "phrases": phrases, "entities": entities}))
    return recipe.written("documents.jsonl", lines)


def _written_dialogues() -> str:
    """A small file of dialogues that keep to one person, for the tiny variant."""
    rng = random.Random(1)
    lines = []
    for _ in range(400):
        who = rng.choice(NAMES)
        said = (f"What did {who} write?", f"{who} wrote {rng.choice(WORKS)}.", f"And where was {who}?")
        roles = ("user", "assistant", "user")
        lines.append(json.dumps({"messages": [{"role": r, "content": s} for r, s in zip(roles, said, strict=True)]}))
    return recipe.written("dialogues.jsonl", lines)
