"""Switch Transformers (Fedus et al. 2021, arXiv 2101.03961, sections 2 and 5): T5's span corruption on a T5 with many
feed-forward parts, of which each token takes one; balance counts 0.01; up to 550,000 steps of 2^20 tokens. The router's
jitter of its input is not here."""

from ml_collections.config_dict import ConfigDict

from experiments.recipes import recipe
from experiments.recipes.t5 import TINY
from lm.objectives.denoising import MixtureOfDenoisers
from lm.objectives.token_loss import TokenLoss


def get_config(size: str = "base-128") -> ConfigDict:
    tiny = size == recipe.TINY
    config = recipe.of("switch", size, TINY | {"experts": 4})
    config.data.tokenizer = "unigram-32100"
    loss = TokenLoss(aux=(("balance", 0.01),))
    recipe.under(config, *MixtureOfDenoisers.filling(48 if tiny else 512, loss=loss))
    config.data.batch_size = 2048
    config.train.steps = 550_000
    recipe.as_t5(config)
    return recipe.small_run(config, learning_rate=5e-2) if tiny else config
