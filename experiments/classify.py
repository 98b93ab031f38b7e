"""Fine-tuning a classifier: an encoder that is there, a run's folder or a Hugging Face folder, gets a new head, which
learns with it to tell the classes of labelled texts.

    python -m lm.train --config=experiments/classify.py --workdir=runs/classifier \\
        --config.train.init_from=minilm --config.data.source=train.jsonl --config.data.validation=held-out.jsonl

Each line of the files is {"text": .., "label": ..}. For other fields, and names of classes, change the records; for
more than two classes both the head's outputs and the objective's classes. The head reads the mean of all states; BERT's
reads the first one (`at="first"`), a decoder's the last one (`at="last"`), and an encoder-decoder's the end of the text
(`at="end"`, with the objective's `start`).
"""

from ml_collections.config_dict import ConfigDict

from lm.adapt.surgery.new_head import NewHead
from lm.core.component import to_dict
from lm.data.records.labelled import Labelled
from lm.model.heads import SequenceClassifier
from lm.objectives.labels import Classification
from lm.train.config import as_config, default


def get_config() -> ConfigDict:
    config = default()
    config.train.surgery = to_dict((NewHead(SequenceClassifier(2, at="mean", activation="tanh")),))
    config.objective = as_config(Classification())
    config.data.records = as_config(Labelled())
    config.data.packing = "one"
    config.data.long = "cut"  # what follows is not read, and counted
    config.data.length = 128
    config.data.batch_size = 32
    config.optimizer.learning_rate = 5e-5
    config.schedule.warmup = 40
    config.train.steps = 400
    config.log.eval_every = 100
    config.log.checkpoint_every = 200
    return config
