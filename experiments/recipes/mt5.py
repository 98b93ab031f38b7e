"""mT5 (Xue et al. 2021, arXiv 2010.11934, section 3): T5 1.1 on 101 languages, each drawn in proportion to its size to
the power 0.3; a million steps of 1024 rows with 1024 inputs. Give a source for each language:
`--config.data.mixture="(('en.jsonl', 1.0), ('sw.jsonl', 1.0))"`."""

from ml_collections.config_dict import ConfigDict

from experiments.recipes import recipe
from experiments.recipes.t5 import TINY
from lm.objectives.denoising import MixtureOfDenoisers


def get_config(size: str = "base") -> ConfigDict:
    tiny = size == recipe.TINY
    config = recipe.of("mt5", size, TINY)
    config.data.tokenizer = "unigram-250100"
    config.data.rates.update(by="documents", exponent=0.3)
    recipe.under(config, *MixtureOfDenoisers.filling(48 if tiny else 1024))
    config.data.batch_size = 1024
    config.train.steps = 1_000_000
    recipe.as_t5(config)
    return recipe.small_run(config, learning_rate=5e-2) if tiny else config
