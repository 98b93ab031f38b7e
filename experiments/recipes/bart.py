"""BART (Lewis et al. 2020, arXiv 1910.13461, sections 2.2 and 5.1): the whole text written from one in which spans of
Poisson length 3, 30 % of its tokens, became a mask each and sentences changed places; 500,000 steps of 8000 rows.
Published without optimizer, rate and length: these are RoBERTa's for the size. Dropout is left out in the last tenth of
the steps; here it stays."""

from ml_collections.config_dict import ConfigDict

from experiments.recipes import recipe
from lm.objectives.denoising import MixtureOfDenoisers
from lm.objectives.examples.published import INFILLED
from lm.train.optim.adamw import AdamW

SIZES = {"base": (6e-4, 24_000), "large": (4e-4, 30_000), "tiny": (6e-4, 24_000)}  # learning rate, warm-up


def get_config(size: str = "large") -> ConfigDict:
    rate, warmup = SIZES[size]
    tiny = size == recipe.TINY
    config = recipe.of("bart", size, dropout=0.1)
    config.data.tokenizer = "bpe-50265"
    config.data.reserved = () if tiny else ("<mask>",)
    length = 64 if tiny else 512
    recipe.under(config, MixtureOfDenoisers.of(length, INFILLED), length)
    config.data.batch_size = 8000
    config.train.steps = 500_000
    recipe.moves(config, AdamW(learning_rate=rate, weight_decay=0.01, clip=0.0, b2=0.98, eps=1e-6), recipe.line(warmup))
    return recipe.small_run(config) if tiny else config
