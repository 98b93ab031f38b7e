"""DeBERTa (He et al. 2020, arXiv 2006.03654, section 5 and appendix A.2): masked tokens; batches of 2048 rows, a
million steps, a line down from 2e-4 after 10,000 steps."""

from ml_collections.config_dict import ConfigDict

from experiments.recipes import recipe
from lm.objectives.masked import MaskedTokens
from lm.train.optim.adamw import AdamW


def get_config(size: str = "base") -> ConfigDict:
    config = recipe.of("deberta", size, dropout=0.1)
    config.data.tokenizer = "bpe-50265"
    config.data.reserved = () if size == recipe.TINY else ("[MASK]",)
    recipe.under(config, MaskedTokens(), 512)
    config.data.batch_size = 2048
    config.train.steps = 1_000_000
    optimizer = AdamW(learning_rate=2e-4, weight_decay=0.01, clip=1.0, b1=0.9, b2=0.999, eps=1e-6)
    recipe.moves(config, optimizer, recipe.line(10_000))
    return recipe.small_run(config) if size == recipe.TINY else config
