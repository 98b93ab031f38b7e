"""T5 (Raffel et al. 2020, arXiv 1910.10683, sections 3.1 and 3.7) and T5 1.1 (its published configs): span corruption
that fills 512 inputs and 114 targets, a million steps of 2048 rows (the paper's baseline: 2^19 steps of 128),
Adafactor. T5 1.1 has no dropout in pretraining. The paper adds its supervised tasks to the mixture:
`config.data.mixture` with `Pairs`, `config.data.rates` by="documents" with a cap."""

from ml_collections.config_dict import ConfigDict

from experiments.recipes import recipe
from lm.objectives.denoising import MixtureOfDenoisers

TINY = {"layers": 2, "d_model": 64, "heads": 2, "head_dim": 32, "d_ff": 128, "vocab": 384}


def get_config(size: str = "base") -> ConfigDict:
    tiny = size == recipe.TINY
    config = recipe.of("t5", size, TINY, dropout=0.0 if size.startswith("1.1") else 0.1)
    config.data.tokenizer = "unigram-32100"  # 32,000 pieces and the 100 sentinels
    recipe.under(config, *MixtureOfDenoisers.filling(48 if tiny else 512))
    config.data.batch_size = 2048
    config.train.steps = 1_000_000
    recipe.as_t5(config)
    return recipe.small_run(config, learning_rate=5e-2) if tiny else config
