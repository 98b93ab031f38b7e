"""A small GPT on the Python standard library's source, in pieces of about three bytes: the main job of `make
quickstart`. About three minutes of training on two CPU cores."""

from ml_collections.config_dict import ConfigDict

from lm.train.config import default
from lm.zoo.registry import knobs


def get_config() -> ConfigDict:
    config = default()
    with config.unlocked():
        config.model = knobs("gpt2", layers=4, d_model=128, heads=4, vocab=2048, context=256)
    config.data.tokenizer = "bpe-2048"
    config.data.length = 256
    config.data.batch_size = 8
    config.optimizer.learning_rate = 4e-3
    config.schedule.warmup = 60
    config.train.steps = 540
    config.train.unroll = True  # faster than lax.scan on a CPU, and four layers compile quickly all the same
    config.log.eval_every = 135
    config.log.eval_batches = 20
    config.log.checkpoint_every = 135
    return config
