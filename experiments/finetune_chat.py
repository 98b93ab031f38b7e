"""Fine-tuning on chats: a small instruction model goes on with prompts and responses, of which it learns the responses.

    python -m lm.train --config=experiments/finetune_chat.py --workdir=runs/tuned-chat \\
        --config.train.init_from=SmolLM2-135M-Instruct.gguf --config.data.source=chats.jsonl

`experiments/README.md` has what a run of 40 steps found.
"""

from ml_collections.config_dict import ConfigDict

from experiments import finetune
from lm.core.component import to_dict
from lm.data.records.chats import Chats
from lm.objectives.causal import NextToken
from lm.train.config import as_config


def get_config() -> ConfigDict:
    config = finetune.get_config()
    with config.unlocked():
        config.objective = ConfigDict(to_dict(NextToken(targets_only=True)))
        config.data.records = as_config(Chats())
    config.data.packing = "best-fit"
    config.data.long = "cut"
    config.data.holdout = 0.1
    config.data.batch_size = 2
    config.optimizer.learning_rate = 2e-5
    config.schedule.warmup = 5
    config.train.steps = 40
    config.log.eval_batches = 12
    config.log.eval_every = 0
    config.log.checkpoint_every = 0
    return config
