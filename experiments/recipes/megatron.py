"""Megatron-LM (Shoeybi et al. 2019, arXiv 1909.08053, section 4.2): 300,000 steps of 512 rows of 1024 tokens; and
MT-NLG 530B (Smith et al. 2022, arXiv 2201.11990, section 3): 270B tokens, the rate falling as if there were 340B,
batches that grow from 32 to 1920 rows over the first 12B (here from an eighth)."""

from ml_collections.config_dict import ConfigDict

from experiments.recipes import recipe

SIZES = ("1.2b", "2.5b", "4.2b", "8.3b", "mt-nlg-530b", "tiny")


def get_config(size: str = "8.3b") -> ConfigDict:
    config = recipe.of("megatron", size)
    config.data.tokenizer = "bpe-50257"
    if size == "mt-nlg-530b":
        config.data.length, config.data.batch_size = 2048, 1920
        config.train.steps = recipe.steps(config, 270e9)
        recipe.ramp(config, tokens=12e9)
        config.optimizer.update(learning_rate=5e-5, weight_decay=0.1, clip=1.0, b1=0.9, b2=0.95, eps=1e-8)
        warmup, decay = recipe.steps(config, 1e9), recipe.steps(config, 340e9)
        config.schedule.update(warmup=warmup, decay=decay, final_lr_ratio=0.1)
        return config
    config.data.length, config.data.batch_size = 1024, 512
    config.train.steps = 300_000
    config.optimizer.update(learning_rate=1.5e-4, weight_decay=0.01, clip=1.0, b1=0.9, b2=0.999)
    config.schedule.update(warmup=3000, final_lr_ratio=1e-5 / 1.5e-4)
    return recipe.small_run(config) if size == recipe.TINY else config
