"""ERNIE 3.0 (Sun et al. 2021, arXiv 2107.02137, section 3): over the same wide layers a small encoder that fills in
hidden phrases and a small decoder that goes on with the text, both with a loss of their own on every row; 375B tokens
in 6144 rows of 512, Adam at 1e-4 with 10,000 steps of warm-up.

Records are those of documents in `experiments/recipes/ernie.py`. Not published are the weights of the losses, 1 each
here. Not here are sentence reordering and distance, for which the encoder has no heads, predicting relations of a
knowledge graph, the memory of 128 tokens that a row passes to the next, and, in the first 10,000 steps, lengths,
batches and dropout that grow with the rate."""

from ml_collections.config_dict import ConfigDict

from experiments.recipes import recipe
from experiments.recipes.ernie import written_documents
from lm.core.component import to_dict
from lm.data.records.documents import Documents
from lm.objectives.causal import NextToken
from lm.objectives.examples.hiding import GivenSpans
from lm.objectives.masked import MaskedTokens
from lm.objectives.together import Together
from lm.train.config import as_config
from lm.train.optim.adamw import AdamW
from lm.zoo import ernie3

SIZES = {
    "10b": ernie3.SIZES["10b"],
    "tiny": recipe.SHAPES | {"task_layers": 1, "task_d_model": 32, "task_heads": 2, "vocab": 385},
}


def get_config(size: str = "10b") -> ConfigDict:
    tiny = size == recipe.TINY
    config = recipe.of("ernie3", size)
    with config.unlocked():
        config.model = ConfigDict(to_dict(ernie3.ernie3_pair(**SIZES[size])))
    config.data.tokenizer = "unigram-40000"
    config.data.reserved = ("[MASK]",)
    config.data.source = "documents.jsonl"
    config.data.records = as_config(Documents(spans="phrases"))
    hidden = MaskedTokens(hiding=GivenSpans(whole_words=False), predictions=77)
    recipe.under(config, Together((("understanding", 1.0, hidden), ("generation", 1.0, NextToken()))), 512)
    recipe.last(config, tokens=375e9, batch=6144 * 512)
    optimizer = AdamW(learning_rate=1e-4, weight_decay=0.01, clip=0.0, b1=0.9, b2=0.999, eps=1e-8)
    recipe.moves(config, optimizer, recipe.line(warmup=10_000))
    if tiny:
        config = recipe.small_run(config)
        config.data.source = written_documents()
    return config
