"""Pythia (Biderman et al. 2023, arXiv 2304.01373, section 2): 143,000 batches of 1024 rows of the Pile, the same in the
same order for every size."""

from ml_collections.config_dict import ConfigDict

from experiments.recipes import recipe

RATES = {
    "70m": 1e-3,
    "160m": 6e-4,
    "410m": 3e-4,
    "1b": 3e-4,
    "1.4b": 2e-4,
    "2.8b": 1.6e-4,
    "6.9b": 1.2e-4,
    "12b": 1.2e-4,
    "tiny": 1e-3,
}


def get_config(size: str = "160m") -> ConfigDict:
    config = recipe.of("pythia", size)
    config.data.tokenizer = "bpe-50254"
    config.data.length = 2048
    config.data.batch_size = 1024
    config.train.steps = 143_000
    config.optimizer.update(learning_rate=RATES[size], weight_decay=0.01, clip=1.0, b1=0.9, b2=0.95)
    config.schedule.update(warmup=1430, final_lr_ratio=0.1)
    config.log.checkpoint_every = 1000
    return recipe.small_run(config) if size == recipe.TINY else config
