"""ELECTRA (Clark et al. 2020, arXiv 2003.10555, table 6): a generator fills in 15 % of the tokens (25 % for the
large one), a discriminator, whose loss counts 50 times, tells which were replaced. The optimizer's line falls to
nothing after 10,000 steps of warm-up. Of the large one this is the run of 400,000 steps; the other has 1.75M."""

from ml_collections.config_dict import ConfigDict

from experiments.recipes import recipe
from lm.core.component import to_dict
from lm.objectives.masked import MaskedTokens
from lm.objectives.replaced import ReplacedTokens
from lm.train.config import default
from lm.train.optim.adamw import AdamW
from lm.zoo.electra import SIZES as SHAPES
from lm.zoo.electra import electra_pair

# Learning rate, length, rows of a batch, steps, share of tokens to fill in.
SIZES = {
    "small": (5e-4, 128, 128, 1_000_000, 0.15),
    "base": (2e-4, 512, 256, 766_000, 0.15),
    "large": (2e-4, 512, 2048, 400_000, 0.25),
    "tiny": (5e-4, 64, 128, 1_000_000, 0.15),
}
TINY = {"layers": 2, "d_model": 64, "heads": 2, "vocab": 384, "context": 64}


def get_config(size: str = "small") -> ConfigDict:
    rate, length, rows, steps, share = SIZES[size]
    tiny = size == recipe.TINY
    large = TINY if tiny else SHAPES[size]
    small = {**TINY, "embed_width": 64, "d_model": 32, "pretraining": ("mlm",)} if tiny else SHAPES[f"{size}-generator"]
    pair = electra_pair(discriminator={**large, "dropout": 0.1}, generator={**small, "dropout": 0.1})
    config = default()
    with config.unlocked():
        config.model = ConfigDict(to_dict(pair))
    config.data.update(source="", tokenizer="bpe-30522", reserved=() if tiny else ("[MASK]",))
    recipe.under(config, ReplacedTokens(MaskedTokens(share, masked=0.85, random=0.0)), length)
    config.data.batch_size = rows
    config.train.update(steps=steps, dtype="bfloat16")
    recipe.moves(config, AdamW(learning_rate=rate, weight_decay=0.01, b2=0.999, eps=1e-6), recipe.line(10_000))
    return recipe.small_run(config) if tiny else config
