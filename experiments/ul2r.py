"""A causal model goes on under a mixture of denoisers and learns to read what it is given from both sides (UL2R: Tay et
al. 2022, arXiv 2210.11399, "Transcending Scaling Laws with 0.1% Extra Compute"). After `make quickstart`, a minute or
two on two CPU cores:

    python -m lm.train --config=experiments/ul2r.py --workdir=runs/ul2r --config.train.init_from=runs/quickstart

Its causal masks become prefix masks, and the modes get tokens of their own. A model with another context than 256:
`get_config(context)`, or `--config=experiments/ul2r.py:1024`."""

from ml_collections.config_dict import ConfigDict

from lm.adapt.surgery.non_causal import NonCausal
from lm.adapt.surgery.vocabulary import GrowVocabulary
from lm.core.component import to_dict
from lm.objectives.denoising import PrefixMixtureOfDenoisers
from lm.objectives.examples.published import CONTINUED
from lm.train.config import default


def get_config(context: str = "256") -> ConfigDict:
    config = default()
    objective, config.data.length = PrefixMixtureOfDenoisers.filling(int(context), CONTINUED)
    with config.unlocked():
        config.objective = ConfigDict(to_dict(objective))
    config.data.reserved = ("[R]", "[S]", "[X]")
    config.data.batch_size = 8
    config.train.surgery = (to_dict(NonCausal()), to_dict(GrowVocabulary()))
    config.train.steps = 100  # of 540 before; the paper's 20,000 are 0.1 % of the compute
    config.train.unroll = True
    config.optimizer.learning_rate = 1e-3
    config.schedule.warmup = 10
    config.log.eval_every = 50
    config.log.eval_batches = 20
    config.log.checkpoint_every = 50
    return config
