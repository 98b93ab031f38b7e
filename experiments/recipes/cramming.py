"""Cramming (Geiping and Goldstein 2022, arXiv 2212.14034, section 4): a BERT in a day of one GPU. A quarter of the
tokens is masked, no dropout, rows of 128, batches of 4096, one cycle of the rate up to 1e-3 and down. The paper counts
hours; so many steps as here are what the day allows about an A6000, by its tokens a day."""

from ml_collections.config_dict import ConfigDict

from experiments.recipes import recipe
from lm.objectives.masked import MaskedTokens
from lm.train.optim.adamw import AdamW


def get_config(size: str = "base") -> ConfigDict:
    config = recipe.of("cramming", size)
    config.data.tokenizer = "bpe-32768"
    config.data.reserved = () if size == recipe.TINY else ("[MASK]",)
    recipe.under(config, MaskedTokens(share=0.25), 128)
    config.data.batch_size = 4096
    config.train.steps = 12_000
    optimizer = AdamW(learning_rate=1e-3, weight_decay=0.01, clip=0.5, b1=0.9, b2=0.98, eps=1e-12)
    recipe.moves(config, optimizer, recipe.line(warmup=6000))
    return recipe.small_run(config) if size == recipe.TINY else config
