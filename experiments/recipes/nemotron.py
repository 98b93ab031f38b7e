"""Nemotron-4 15B (Parmar et al. 2024, arXiv 2402.16819, section 2), 8T tokens; 340B (arXiv 2406.11704), 1T more.
Both end in a phase with another weighting of the sources, better ones more, and a steeper fall of the rate. Rates,
weights and the length of that phase are not published: here it is the last ninth, and the rates and the weights of
the folders web/, code/ and good/ are examples. 340B's batch grows from 768 to 2304 rows, here it is 2304 from the
start; 15B's is 1152."""

from ml_collections.config_dict import ConfigDict

from experiments.recipes import recipe
from lm.train.optim.adamw import AdamW
from lm.train.optim.schedule import WSD

TINY = recipe.SHAPES | {"d_ff": 128, "kv_heads": 1}
# Learning rate, rows of a batch, tokens.
SIZES = {"15b": (4.5e-4, 1152, 8e12), "340b": (1e-4, 2304, 9e12), "tiny": (4.5e-4, 1152, 8e12)}


def get_config(size: str = "15b") -> ConfigDict:
    rate, rows, tokens = SIZES[size]
    config = recipe.of("nemotron", size, TINY)
    config.data.tokenizer = "unigram-256000"
    config.data.length = 4096
    recipe.last(config, tokens, batch=rows * 4096)
    optimizer = AdamW(learning_rate=rate, weight_decay=0.1, clip=1.0)
    recipe.moves(config, optimizer, WSD(warmup=2000, cooldown_fraction=1 / 9, final_lr_ratio=0.0))
    if size == recipe.TINY:
        config.stages = ((20, {"data.holdout": 0.05}),)
        return recipe.small_run(config)
    config.data.mixture = (("web", 0.85), ("code", 0.15))
    late = (("web", 0.5), ("code", 0.2), ("good", 0.3))
    config.stages = ((config.train.steps * 8 // 9, {"data.mixture": late}),)
    return config
