"""GPT-2 small (124M) as on a small pod: rows of 1024 tokens, half a million tokens a step, bfloat16 compute. Pick
another size with --config.model.size=medium; on one machine lower --config.data.batch_size."""

from ml_collections.config_dict import ConfigDict

from lm.train.config import default
from lm.zoo.registry import knobs


def get_config() -> ConfigDict:
    config = default()
    with config.unlocked():
        # 50304: the published 50257 rounded up so that any usual mesh divides it.
        config.model = knobs("gpt2", size="small", vocab=50304)
    config.data.tokenizer = "bpe-32768"
    config.data.length = 1024
    config.data.batch_size = 512
    config.optimizer.learning_rate = 6e-4
    config.schedule.warmup = 2000
    config.train.steps = 600_000
    config.train.dtype = "bfloat16"
    config.train.remat = "dots"
    config.mesh.fsdp = 4
    return config
