"""U-PaLM (Tay et al. 2022, arXiv 2210.11399, section 3): 0.1 % more compute turns a PaLM into a model that fills in and
reads what it is given from both sides. 20,000 steps of 32 rows of 2048 tokens under half S-, a quarter R- and a quarter
X-denoisers, with a cosine from 1e-4 to 1e-6. Begins with a trained one: `--config.train.init_from=runs/palm`;
experiments/ul2r.py does the same after `make quickstart`. The tiny variant begins with random values."""

from ml_collections.config_dict import ConfigDict

from experiments.recipes import recipe
from lm.adapt.surgery.non_causal import NonCausal
from lm.adapt.surgery.vocabulary import GrowVocabulary
from lm.core.component import to_dict
from lm.model.masks import Prefix
from lm.objectives.denoising import PrefixMixtureOfDenoisers
from lm.objectives.examples.published import CONTINUED
from lm.train.optim.adafactor import Adafactor
from lm.train.optim.schedule import Cosine


def get_config(size: str = "540b") -> ConfigDict:
    tiny = size == recipe.TINY
    config = recipe.of("palm", size, recipe.SHAPES | {"head_dim": 32}, mask=Prefix())
    recipe.under(config, *PrefixMixtureOfDenoisers.filling(64 if tiny else 2048, CONTINUED, exact=True))
    config.data.batch_size = 32
    config.train.steps = 20_000
    if not tiny:
        config.data.reserved = ("[R]", "[S]", "[X]")
        config.train.surgery = (to_dict(NonCausal()), to_dict(GrowVocabulary()))
    optimizer = Adafactor(learning_rate=1e-4, weight_decay=0.0, factored=False, relative=True, momentum=True)
    recipe.moves(config, optimizer, Cosine(warmup=0, final_lr_ratio=0.01))
    return recipe.small_run(config, learning_rate=3e-2) if tiny else config
