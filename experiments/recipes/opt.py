"""OPT (Zhang et al. 2022, arXiv 2205.01068, table 1 and section 2.2): 300B tokens, a line down to a tenth of the rate,
dropout 0.1. The 175B run was restarted at lower rates when its loss diverged."""

from ml_collections.config_dict import ConfigDict

from experiments.recipes import recipe
from lm.train.optim.adamw import AdamW

# Learning rate, tokens of a batch.
SIZES = {
    "125m": (6e-4, 0.5e6),
    "350m": (3e-4, 0.5e6),
    "1.3b": (2e-4, 1e6),
    "2.7b": (1.6e-4, 1e6),
    "6.7b": (1.2e-4, 2e6),
    "13b": (1e-4, 4e6),
    "30b": (1e-4, 4e6),
    "66b": (0.8e-4, 2e6),
    "175b": (1.2e-4, 2e6),
    "tiny": (6e-4, 0.5e6),
}


def get_config(size: str = "175b") -> ConfigDict:
    rate, batch = SIZES[size]
    config = recipe.of("opt", size, dropout=0.1)
    config.data.tokenizer = "bpe-50265"
    config.data.length = 2048
    recipe.last(config, tokens=300e9, batch=batch)
    optimizer = AdamW(learning_rate=rate, weight_decay=0.1, clip=1.0, b1=0.9, b2=0.95)
    recipe.moves(config, optimizer, recipe.line(2000 if size == "175b" else recipe.steps(config, 375e6), final=0.1))
    return recipe.small_run(config) if size == recipe.TINY else config
