"""A small Switch transformer (Fedus et al. 2021, arXiv 2101.03961): a decoder in which each second feed-forward layer
is four experts, one of which serves each token. Metrics show dropped choices and the busiest expert's load."""

from ml_collections.config_dict import ConfigDict

from lm.train.config import default
from lm.zoo.registry import knobs


def get_config() -> ConfigDict:
    config = default()
    with config.unlocked():
        config.model = knobs("switch_decoder", layers=4, d_model=128, heads=4, d_ff=512, experts=4, vocab=384)
    config.objective.loss.aux = (("balance", 0.01),)
    config.optimizer.learning_rate = 2e-3
    config.train.steps = 300
    return config
