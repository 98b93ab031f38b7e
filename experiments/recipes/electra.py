"""ELECTRA (Clark et al. 2020, arXiv 2003.10555, table 6): a generator fills in 15 % of the tokens (25 % for the
large one), a discriminator, whose loss counts 50 times, tells which were replaced. The optimizer's line falls to
nothing after 10,000 steps of warm-up. Of the large one this is the run of 400,000 steps; the other has 1.75M."""

from ml_collections.config_dict import ConfigDict

from experiments.recipes import recipe
from lm.objectives.masked import MaskedTokens
from lm.objectives.replaced import ReplacedTokens
from lm.train.optim.adamw import AdamW

# Learning rate, length, rows of a batch, steps, share of tokens to fill in.
SIZES = {
    "small": (5e-4, 128, 128, 1_000_000, 0.15),
    "base": (2e-4, 512, 256, 766_000, 0.15),
    "large": (2e-4, 512, 2048, 400_000, 0.25),
    "tiny": (5e-4, 64, 128, 1_000_000, 0.15),
}
TINY = recipe.SHAPES | {"generator_d_model": 32, "generator_heads": 2, "context": 64}


def get_config(size: str = "small") -> ConfigDict:
    rate, length, rows, steps, share = SIZES[size]
    config = recipe.of("electra_both", size, TINY, dropout=0.1)
    config.data.tokenizer = "bpe-30522"
    config.data.reserved = () if size == recipe.TINY else ("[MASK]",)
    recipe.under(config, ReplacedTokens(MaskedTokens(share, masked=0.85, random=0.0)), length)
    config.data.batch_size = rows
    config.train.steps = steps
    recipe.moves(config, AdamW(learning_rate=rate, weight_decay=0.01, b2=0.999, eps=1e-6), recipe.line(10_000))
    return recipe.small_run(config) if size == recipe.TINY else config
