"""An isoFLOP sweep of small GPTs over the Python standard library's source: two budgets, three sizes, about five
minutes on two CPU cores. Both minima lie between the sizes; more budgets and sizes make a better fit."""

from ml_collections.config_dict import ConfigDict

from lm.zoo.registry import knobs
from scaling.cells import default


def get_config() -> ConfigDict:
    config = default()
    with config.unlocked():
        config.model = knobs("gpt2", head_dim=16, vocab=384, context=128)
    config.sweep.budgets = (5e11, 1e12)
    config.sweep.shapes = ((16, 2), (32, 2), (48, 3))
    config.data.length = 128
    config.data.batch_size = 4  # sequences: small budgets need many steps
    config.train.unroll = True  # a quarter faster on CPU; these few layers compile quickly all the same
    return config
