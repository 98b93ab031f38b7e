"""UL2 20B (Tay et al. 2022, arXiv 2205.05131, sections 3 and 5): seven denoisers in equal parts, told to the model by
mode tokens; two million steps of 1024 rows with 512 inputs, a trillion tokens; no dropout."""

from ml_collections.config_dict import ConfigDict

from experiments.recipes import recipe
from experiments.recipes.t5 import TINY
from lm.objectives.denoising import MixtureOfDenoisers
from lm.objectives.examples.published import SEVEN


def get_config(size: str = "20b") -> ConfigDict:
    tiny = size == recipe.TINY
    config = recipe.of("ul2", size, TINY)
    config.data.tokenizer = "unigram-32103"
    config.data.reserved = () if tiny else ("[R]", "[S]", "[X]")
    recipe.under(config, *MixtureOfDenoisers.filling(48 if tiny else 512, SEVEN, exact=True))
    config.data.batch_size = 1024
    config.train.steps = 2_000_000
    recipe.as_t5(config)
    return recipe.small_run(config, learning_rate=5e-2) if tiny else config
