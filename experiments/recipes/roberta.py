"""RoBERTa (Liu et al. 2019, arXiv 1907.11692, sections 3 to 5 and table 9): masked tokens, drawn anew each time a row
is read, in rows full of sentences, without next-sentence prediction; 500,000 steps of 8000 rows."""

from ml_collections.config_dict import ConfigDict

from experiments.recipes import recipe
from lm.objectives.masked import MaskedTokens
from lm.train.optim.adamw import AdamW

SIZES = {"base": (6e-4, 24_000), "large": (4e-4, 30_000), "tiny": (6e-4, 24_000)}  # learning rate, warm-up


def get_config(size: str = "large") -> ConfigDict:
    rate, warmup = SIZES[size]
    config = recipe.of("roberta", size, dropout=0.1)
    config.data.tokenizer = "bpe-50265"
    config.data.reserved = () if size == recipe.TINY else ("<mask>",)
    recipe.under(config, MaskedTokens(predictions=77), 512)
    config.data.batch_size = 8000
    config.train.steps = 500_000
    recipe.moves(config, AdamW(learning_rate=rate, weight_decay=0.01, clip=0.0, b2=0.98, eps=1e-6), recipe.line(warmup))
    return recipe.small_run(config) if size == recipe.TINY else config
