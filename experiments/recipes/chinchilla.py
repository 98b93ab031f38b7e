"""Chinchilla (Hoffmann et al. 2022, arXiv 2203.15556, table 4): Gopher's compute in a quarter of its size, AdamW in
place of Adam, 1.4T tokens. The batch doubles from 1.5M to 3M tokens midway; when is not said: here after a tenth."""

from ml_collections.config_dict import ConfigDict

from experiments.recipes import recipe


def get_config(size: str = "70b") -> ConfigDict:
    config = recipe.of("chinchilla", size)
    config.data.tokenizer = "unigram-32000"
    config.data.length = 2048
    recipe.last(config, tokens=1.4e12, batch=3e6)
    recipe.ramp(config, tokens=0.14e12, parts=2)
    config.optimizer.update(learning_rate=1e-4, weight_decay=0.1, clip=1.0)
    config.schedule.update(warmup=1500, final_lr_ratio=0.1)
    return recipe.small_run(config) if size == recipe.TINY else config
