"""SpanBERT (Joshi et al. 2020, arXiv 1907.10529, sections 3 and 4.2): spans of whole words are hidden and predicted
twice, the second time from the tokens beside them; one text a row, no second task; 2.4 million batches of 256 rows
of 512 tokens, a line down from 1e-4."""

from ml_collections.config_dict import ConfigDict

from experiments.recipes import recipe
from lm.objectives.masked import MaskedSpans
from lm.train.optim.adamw import AdamW


def get_config(size: str = "large") -> ConfigDict:
    tiny = size == recipe.TINY
    config = recipe.of("spanbert", size, recipe.SHAPES | {"vocab": 512}, pretraining=("mlm", "sbo"), dropout=0.1)
    config.data.tokenizer = "unigram-28996"
    config.data.reserved = ("[MASK]",)
    recipe.under(config, MaskedSpans(), 512)
    config.data.batch_size = 256
    config.train.steps = 2_400_000
    optimizer = AdamW(learning_rate=1e-4, weight_decay=0.01, clip=0.0, b1=0.9, b2=0.999, eps=1e-8)
    recipe.moves(config, optimizer, recipe.line(warmup=10_000))
    if tiny:
        config = recipe.small_run(config)
        config.data.tokenizer = "bpe-512"  # bytes have no words
    return config
