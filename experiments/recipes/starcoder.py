"""StarCoder (Li et al. 2023, arXiv 2305.06161, section 5): half of the documents have their middle moved to the end,
in one of two orders; 250,000 steps of 512 rows of 8192 tokens, a trillion. SantaCoder (arXiv 2301.03988, section 4):
rows of 2048, batches of 192, 600,000 steps."""

from ml_collections.config_dict import ConfigDict

from experiments.recipes import recipe
from lm.objectives.middle import FillInTheMiddle

# Learning rate, length, rows of a batch, steps.
SIZES = {
    "santacoder": (2e-4, 2048, 192, 600_000),
    "15b": (3e-4, 8192, 512, 250_000),
    "tiny": (3e-4, 8192, 512, 250_000),
}


def get_config(size: str = "15b") -> ConfigDict:
    rate, length, rows, steps = SIZES[size]
    config = recipe.of("starcoder", size)
    config.data.tokenizer = "bpe-49152"
    config.data.reserved = () if size == recipe.TINY else ("<fim_prefix>", "<fim_middle>", "<fim_suffix>")
    recipe.under(config, FillInTheMiddle(rate=0.5, suffix_first=0.5), length)
    config.data.batch_size = rows
    config.train.steps = steps
    config.optimizer.update(learning_rate=rate, weight_decay=0.1, clip=1.0, b1=0.9, b2=0.95, eps=1e-8)
    config.schedule.update(warmup=2000, final_lr_ratio=0.1)
    return recipe.small_run(config) if size == recipe.TINY else config
