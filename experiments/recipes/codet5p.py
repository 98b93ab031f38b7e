"""CodeT5+ (Wang et al. 2023, arXiv 2305.07922, section 3.2), the first stage of its training, on code alone: 10,000
steps of span corruption, then 100,000 in which it takes turns with both kinds of causal modelling; batches of 2048 rows
of 512 tokens, AdamW at 2e-4. Its second stage, on pairs of text and code, is contrastive, matching and causal: see
`Contrastive` and `Seq2Seq`; matching is not here."""

from ml_collections.config_dict import ConfigDict

from experiments.recipes import recipe
from experiments.recipes.t5 import TINY
from lm.core.component import to_dict
from lm.objectives.denoising import MixtureOfDenoisers
from lm.objectives.examples.published import CAUSAL_TOO, SPANS
from lm.train.optim.adamw import AdamW


def get_config(size: str = "plus-770m") -> ConfigDict:
    tiny = size == recipe.TINY
    config = recipe.of("codet5", size, TINY)
    config.data.tokenizer = "bpe-32100"
    config.data.reserved = () if tiny else ("[CLM]", "[CDec]")
    length = 64 if tiny else 512
    recipe.under(config, MixtureOfDenoisers.of(length, SPANS), length)
    both = MixtureOfDenoisers.of(length, CAUSAL_TOO, exact=True)
    config.stages = ((15 if tiny else 10_000, {"objective": to_dict(both)}),)
    config.data.batch_size = 2048
    config.train.steps = 110_000
    recipe.moves(config, AdamW(learning_rate=2e-4, weight_decay=0.1), recipe.line(warmup=1000))
    return recipe.small_run(config) if tiny else config
