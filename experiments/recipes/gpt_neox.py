"""GPT-NeoX-20B (Black et al. 2022, arXiv 2204.06745, section 2): 150,000 steps of 3.15M tokens of the Pile."""

from ml_collections.config_dict import ConfigDict

from experiments.recipes import recipe


def get_config(size: str = "20b") -> ConfigDict:
    config = recipe.of("gpt_neox", size)
    config.data.tokenizer = "bpe-50257"
    config.data.length = 2048
    config.data.batch_size = 1538
    config.train.steps = 150_000
    config.optimizer.update(learning_rate=0.97e-4, weight_decay=0.01, clip=1.0, b1=0.9, b2=0.95)
    config.schedule.update(warmup=1500, final_lr_ratio=0.1)
    return recipe.small_run(config) if size == recipe.TINY else config
