"""Nemotron-4 (Parmar et al. 2024, arXiv 2402.16819, section 2; 340B: arXiv 2406.11704): 8T tokens, then a late phase of
1T with another weighting of the sources, better ones more, and a steeper fall of the rate. Published without rates and
weights: the weights here are an example, of folders web/, code/ and good/; the batch is the largest of its ramp."""

from ml_collections.config_dict import ConfigDict

from experiments.recipes import recipe
from lm.train.optim.adamw import AdamW
from lm.train.optim.schedule import WSD

TINY = recipe.SHAPES | {"d_ff": 128, "kv_heads": 1}


def get_config(size: str = "15b") -> ConfigDict:
    tiny = size == recipe.TINY
    config = recipe.of("nemotron", size, TINY)
    config.data.tokenizer = "unigram-256000"
    config.data.length = 4096
    recipe.last(config, tokens=9e12, batch=2304 * 4096)
    optimizer = AdamW(learning_rate=4.5e-4 if size == "15b" else 1e-4, weight_decay=0.1, clip=1.0)
    recipe.moves(config, optimizer, WSD(warmup=2000, cooldown_fraction=1 / 9, final_lr_ratio=0.0))
    if tiny:
        config.stages = ((20, {"data.holdout": 0.05}),)
        return recipe.small_run(config)
    config.data.mixture = (("web", 0.85), ("code", 0.15))
    late = (("web", 0.5), ("code", 0.2), ("good", 0.3))
    config.stages = ((recipe.steps(config, 8e12), {"data.mixture": late}),)
    return config
