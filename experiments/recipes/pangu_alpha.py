"""PanGu-alpha (Zeng et al. 2021, arXiv 2104.12369, section 5, and its published code): the next token, by a layer that
asks for it by its place; rows of 1024 tokens, of whose documents none sees another; Adam.

From the code are the cosines' ends, 2000 steps of warm-up, dropout and the norm of gradients. The paper does not say
how large batches are: the code makes 1024 rows on the processors that the two smaller ones had; the largest saw about
41B tokens in 260,000 steps, which is 160 rows."""

from ml_collections.config_dict import ConfigDict

from experiments.recipes import recipe
from lm.train.optim.adamw import AdamW
from lm.train.optim.schedule import Cosine

# Learning rate, of which so much is left in the end, b2, weight decay, rows of a batch, steps.
SIZES = {
    "2.6b": (1e-4, 0.01, 0.999, 0.01, 1024, 70_000),
    "13b": (5e-5, 0.02, 0.98, 0.01, 1024, 84_000),
    "200b": (2e-5, 0.1, 0.95, 0.1, 160, 260_000),
    "tiny": (1e-4, 0.01, 0.999, 0.01, 1024, 70_000),
}


def get_config(size: str = "200b") -> ConfigDict:
    rate, final, b2, decay, rows, steps = SIZES[size]
    config = recipe.of("pangu", size, dropout=0.1)
    config.data.tokenizer = "unigram-40000"
    config.data.length = 1024
    config.data.batch_size = rows
    config.train.steps = steps
    optimizer = AdamW(learning_rate=rate, weight_decay=decay, clip=1.0, b1=0.9, b2=b2, eps=1e-8)
    recipe.moves(config, optimizer, Cosine(warmup=2000, final_lr_ratio=final))
    return recipe.small_run(config) if size == recipe.TINY else config
