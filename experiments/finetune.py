"""Fine-tuning: a model that is there, a run's folder, a Hugging Face folder or a GGUF file, goes on with its own
tokenizer, text format and context.

    python -m lm.train --config=experiments/finetune.py --workdir=runs/tuned \\
        --config.train.init_from=runs/smollm --config.data.source=notes.txt
"""

from ml_collections.config_dict import ConfigDict

from lm.train.config import default


def get_config() -> ConfigDict:
    config = default()
    config.data.length = 256  # tokens per row, however long the model's context is
    config.data.batch_size = 8
    config.optimizer.learning_rate = 5e-5
    config.schedule.warmup = 20
    config.optimizer.weight_decay = 0.0
    config.train.steps = 300
    config.log.eval_every = 100
    config.log.checkpoint_every = 100
    return config
