"""GPT-3 (Brown et al. 2020, arXiv 2005.14165, table 2.1 and appendix B): 300B tokens, the rate falling over the first
260B; batches grow from 32k tokens over the first 4 to 12B (here from an eighth)."""

from ml_collections.config_dict import ConfigDict

from experiments.recipes import recipe

# Learning rate, tokens of a batch.
SIZES = {
    "small": (6e-4, 0.5e6),
    "medium": (3e-4, 0.5e6),
    "large": (2.5e-4, 0.5e6),
    "xl": (2e-4, 1e6),
    "2.7b": (1.6e-4, 1e6),
    "6.7b": (1.2e-4, 2e6),
    "13b": (1e-4, 2e6),
    "175b": (6e-5, 3.2e6),
    "tiny": (6e-4, 0.5e6),
}


def get_config(size: str = "175b") -> ConfigDict:
    rate, batch = SIZES[size]
    config = recipe.of("gpt3", size)
    config.data.tokenizer = "bpe-50257"
    config.data.length = 2048
    recipe.last(config, tokens=300e9, batch=batch)
    recipe.ramp(config, tokens=4e9 if batch < 2e6 else 12e9)
    config.optimizer.update(learning_rate=rate, weight_decay=0.1, clip=1.0, b1=0.9, b2=0.95, eps=1e-8)
    config.schedule.update(warmup=recipe.steps(config, 375e6), decay=recipe.steps(config, 260e9), final_lr_ratio=0.1)
    return recipe.small_run(config) if size == recipe.TINY else config
