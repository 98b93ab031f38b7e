"""BLOOM (Scao et al. 2022, arXiv 2211.05100, table 3): 366B tokens for the largest and 341B for the others, the rate
falling as if there were 410B. The largest let its batch grow from 192 rows."""

from ml_collections.config_dict import ConfigDict

from experiments.recipes import recipe

# Learning rate, rows of a batch, tokens.
SIZES = {
    "560m": (3e-4, 256, 341e9),
    "1.1b": (2.5e-4, 256, 341e9),
    "1.7b": (2e-4, 512, 341e9),
    "3b": (1.6e-4, 512, 341e9),
    "7.1b": (1.2e-4, 512, 341e9),
    "176b": (6e-5, 2048, 366e9),
    "tiny": (3e-4, 256, 341e9),
}


def get_config(size: str = "176b") -> ConfigDict:
    rate, rows, tokens = SIZES[size]
    config = recipe.of("bloom", size)
    config.data.tokenizer = "bpe-250680"
    config.data.length = 2048
    recipe.last(config, tokens, batch=rows * 2048)
    if size == "176b":
        recipe.ramp(config, tokens=20e9)
    config.optimizer.update(learning_rate=rate, weight_decay=0.1, clip=1.0, b1=0.9, b2=0.95)
    warmup, decay = recipe.steps(config, 375e6), recipe.steps(config, 410e9)
    config.schedule.update(warmup=warmup, decay=decay, final_lr_ratio=0.1 if size == "176b" else 1e-5 / rate)
    return recipe.small_run(config) if size == recipe.TINY else config
