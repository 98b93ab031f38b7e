"""Galactica (Taylor et al. 2022, arXiv 2211.09085, sections 3 and 4.2, table 5): the next token of scientific texts, in
which tokens stand around references, molecules, sequences and reasoning; 450B tokens, 4.25 times over 106B, AdamW, a
line down to a tenth of the rate.

Records have a field of their `text` and, where they reason, one of `reasoning`, put behind that between <work> and
</work>, and one of the `answer`. References are found by LaTeX's \\cite; what else a pattern tells is `MarkedMatches`
too. Numbers in digits and sequences in characters are left to the tokenizer; one that is trained here does neither.
Dropout here reaches the embedding, which it does not in the paper."""

import json

from ml_collections.config_dict import ConfigDict

from experiments.recipes import recipe
from lm.core.component import to_dict
from lm.data.records.documents import Documents
from lm.data.transforms.markers import MarkedMatches, WorkToken
from lm.train.config import as_config
from lm.train.optim.adamw import AdamW

# Tokens of a batch, learning rate, tokens of warm-up.
SIZES = {
    "mini": (0.5e6, 6e-4, 375e6),
    "base": (1e6, 2e-4, 375e6),
    "standard": (2e6, 1.2e-4, 375e6),
    "large": (2e6, 1e-4, 375e6),
    "huge": (2e6, 0.7e-5, 1.125e9),
    "tiny": (0.5e6, 6e-4, 375e6),
}
MARKERS = ("[START_REF]", "[END_REF]", "<work>", "</work>")


def get_config(size: str = "huge") -> ConfigDict:
    tiny = size == recipe.TINY
    batch, rate, warmup = SIZES[size]
    config = recipe.of("galactica", size, recipe.SHAPES | {"vocab": 384 + len(MARKERS)}, dropout=0.1)
    config.data.tokenizer = "bpe-50000"
    config.data.reserved = MARKERS
    config.data.records = as_config(Documents(markers=MARKERS))
    references = MarkedMatches(r"\\cite\{(.*?)\}", *MARKERS[:2])
    config.data.transforms = (to_dict(references), to_dict(WorkToken("reasoning", "answer")))
    config.data.length = 2048
    recipe.last(config, tokens=450e9, batch=batch)
    optimizer = AdamW(learning_rate=rate, weight_decay=0.1, clip=1.0, b1=0.9, b2=0.95)
    recipe.moves(config, optimizer, recipe.line(recipe.steps(config, warmup), final=0.1))
    if tiny:
        config = recipe.small_run(config)
        config.data.source = _written_sums()
    return config


def _written_sums() -> str:
    """A small file of reasoning with references, for the tiny variant."""
    lines = []
    for a in range(20, 40):
        for b in range(1, 20):
            text = f"As in \\cite{{euclid}}, what is {a} + {b}?"
            lines.append(json.dumps({"text": text, "reasoning": f"{a} and {b} make {a + b}", "answer": f"{a + b}"}))
    return recipe.written("sums.jsonl", lines)
