"""PaLM (Chowdhery et al. 2022, arXiv 2204.02311, section 5): Adafactor without factorization, steps in proportion to a
parameter's size, at 0.01 for 10,000 steps and then at 1 / sqrt(step); z-loss; batches of 512, 1024 and 2048 rows; after
a loss spike the run goes back and passes batches over."""

from ml_collections.config_dict import ConfigDict

from experiments.recipes import recipe
from lm.train.optim.adafactor import Adafactor
from lm.train.optim.schedule import InverseSqrt


def get_config(size: str = "540b") -> ConfigDict:
    config = recipe.of("palm", size, recipe.SHAPES | {"head_dim": 32})
    config.data.tokenizer = "unigram-256000"
    config.data.length = 2048
    config.data.batch_size = 2048
    config.train.accumulate = 4
    config.train.batch_warmup = ((0, 512), (50_000, 1024), (115_000, 2048))
    config.train.steps = 255_000
    config.objective.loss.z_loss = 1e-4
    # The paper's weight decay is the square of the rate, so it falls with it; here it is the peak's.
    optimizer = Adafactor(learning_rate=1e-2, weight_decay=1e-2, clip=1.0, factored=False, relative=True, momentum=True)
    recipe.moves(config, optimizer, InverseSqrt(warmup=0, constant=10_000))
    config.train.recovery.update(action="rewind", spike=6.0, back=100, skip=300)
    return recipe.small_run(config, learning_rate=3e-2) if size == recipe.TINY else config
