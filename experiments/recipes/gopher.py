"""Gopher (Rae et al. 2021, arXiv 2112.11446, section 3 and appendix C): 300B tokens of MassiveText; the largest doubles
its batch of 3M tokens during the run (here it has 6M from the start), and the two largest clip at 0.25."""

from ml_collections.config_dict import ConfigDict

from experiments.recipes import recipe

# Learning rate, tokens of a batch.
SIZES = {
    "44m": (6e-4, 0.25e6),
    "117m": (6e-4, 0.25e6),
    "417m": (2e-4, 0.25e6),
    "1.4b": (2e-4, 0.25e6),
    "7.1b": (1.2e-4, 2e6),
    "280b": (4e-5, 6e6),
    "tiny": (6e-4, 0.25e6),
}


def get_config(size: str = "280b") -> ConfigDict:
    rate, batch = SIZES[size]
    config = recipe.of("gopher", size)
    config.data.tokenizer = "unigram-32000"
    config.data.length = 2048
    recipe.last(config, tokens=300e9, batch=batch)
    clip = 0.25 if size in ("7.1b", "280b") else 1.0
    config.optimizer.update(learning_rate=rate, weight_decay=0.0, clip=clip)
    config.schedule.update(warmup=1500, final_lr_ratio=0.1)
    return recipe.small_run(config) if size == recipe.TINY else config
