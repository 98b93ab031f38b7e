"""GPT-2 (Radford et al. 2019): batches of 512 rows of 1024 tokens of WebText. The paper leaves out learning rate, steps
and schedule: those here are GPT-3's for that size (arXiv 2005.14165, table 2.1)."""

from ml_collections.config_dict import ConfigDict

from experiments.recipes import recipe

RATES = {"small": 6e-4, "medium": 3e-4, "large": 2.5e-4, "xl": 2e-4, "tiny": 6e-4}


def get_config(size: str = "small") -> ConfigDict:
    # 50304: the published 50257 rounded up so that any usual mesh divides it.
    config = recipe.of("gpt2", size, **({} if size == recipe.TINY else {"vocab": 50304}))
    config.data.tokenizer = "bpe-50257"
    config.data.length = 1024
    config.data.batch_size = 512
    config.optimizer.learning_rate = RATES[size]
    config.schedule.warmup = 2000
    config.train.steps = 600_000
    return recipe.small_run(config) if size == recipe.TINY else config
