"""XLNet (Yang et al. 2019, arXiv 1906.08237, section 3.1 and appendix A.4): a sixth of a row's tokens, in a random
order; 500,000 steps of 8192 rows of 512 tokens (the small one's batch is not told). Its memory of the row before is
left out: rows begin anew."""

from ml_collections.config_dict import ConfigDict

from experiments.recipes import recipe
from lm.objectives.permuted import Permutation
from lm.train.optim.adamw import AdamW

TINY = recipe.SHAPES | {"d_ff": 128}


def get_config(size: str = "large") -> ConfigDict:
    config = recipe.of("xlnet", size, TINY, dropout=0.1)
    config.data.tokenizer = "unigram-32000"
    recipe.under(config, Permutation(), 512)
    config.data.batch_size = 8192
    config.train.steps = 500_000
    optimizer = AdamW(learning_rate=4e-4, weight_decay=0.01, clip=1.0, b1=0.9, b2=0.999, eps=1e-6)
    recipe.moves(config, optimizer, recipe.line(warmup=40_000))
    return recipe.small_run(config) if size == recipe.TINY else config
