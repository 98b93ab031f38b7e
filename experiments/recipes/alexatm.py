"""AlexaTM 20B (Soltan et al. 2022, arXiv 2208.01448, section 3): 80 % of the rows are texts to restore, of which 15 %
was dropped, 20 % texts to go on with, behind [CLM]; 500,000 steps of 2M tokens. The encoder, which comes from a trained
one (`config.train.init_from`), does not move in the first 100,000 steps."""

from ml_collections.config_dict import ConfigDict

from experiments.recipes import recipe
from lm.objectives.denoising import MixtureOfDenoisers
from lm.objectives.examples.published import RESTORED
from lm.train.optim.adamw import AdamW


def get_config(size: str = "20b") -> ConfigDict:
    tiny = size == recipe.TINY
    config = recipe.of("alexatm", size)
    config.data.tokenizer = "unigram-150000"
    config.data.reserved = () if tiny else ("[CLM]",)
    recipe.under(config, *MixtureOfDenoisers.filling(64 if tiny else 1024, RESTORED, exact=True))
    config.data.batch_size = 2048
    config.train.steps = 500_000
    optimizer = AdamW(learning_rate=1e-4, weight_decay=0.1, frozen_until=(("encoder", 10 if tiny else 100_000),))
    recipe.moves(config, optimizer, recipe.line(warmup=10_000, final=0.05))
    return recipe.small_run(config) if tiny else config
