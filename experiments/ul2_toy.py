"""UL2's mixture of denoisers (Tay et al. 2022, arXiv 2205.05131) on a small UL2, over the bytes of the Python standard
library: a few minutes on two CPU cores."""

from ml_collections.config_dict import ConfigDict

from lm.core.component import to_dict
from lm.objectives.denoising import MixtureOfDenoisers
from lm.train.config import default
from lm.zoo.registry import knobs


def get_config() -> ConfigDict:
    config = default()
    config.data.length = 128
    config.data.batch_size = 16
    with config.unlocked():
        config.model = knobs("ul2", layers=2, d_model=128, heads=4, head_dim=32, d_ff=256, vocab=384, tied=True)
        config.objective = ConfigDict(to_dict(MixtureOfDenoisers.of(config.data.length)))
    config.optimizer.learning_rate = 2e-3
    config.train.steps = 400
    return config
