"""CPM-2 (Zhang et al. 2021, arXiv 2106.10715, sections 2 to 4, and its published code): an encoder-decoder whose
training inherits what came before, in three runs of span corruption: on Chinese; on Chinese and English, with rows for
more tokens; and as 32 experts in each layer, all copies of its one feed-forward part:

    .. --config=experiments/recipes/cpm2.py:chinese --workdir=runs/chinese
    .. --config=experiments/recipes/cpm2.py:bilingual --config.train.init_from=runs/chinese
    .. --config=experiments/recipes/cpm2.py:moe --config.train.init_from=runs/bilingual

From the code are 512 tokens to read, 2080 rows (26 for each of 80 replicas), a rate of 1e-3 (experts: 1e-4) divided by
the root of the step, which after 10,000 of warm-up is at most 1e-5, weight decay and clipping; steps are those that the
published checkpoints have. The tokenizer of the second run must begin with the tokens of the first
(`config.data.tokenizer`). Experts are assigned tokens in equal parts of each row; in the code, of the whole batch."""

from typing import Any

from ml_collections.config_dict import ConfigDict

from experiments.recipes import recipe
from experiments.recipes.t5 import TINY
from lm.adapt.surgery.copies import CopyExperts
from lm.adapt.surgery.vocabulary import GrowVocabulary
from lm.core.component import to_dict
from lm.objectives.denoising import MixtureOfDenoisers
from lm.objectives.examples.published import SPANS
from lm.train.optim.adamw import AdamW
from lm.train.optim.schedule import InverseSqrt
from lm.zoo.cpm2 import DISPATCH, ROUTER

# Family and size, the rate at the end of warm-up, steps, what is done first to the model of the run before.
SIZES: dict[str, tuple[str, str, float, int, tuple[Any, ...]]] = {
    "chinese": ("cpm2", "11b", 1e-5, 100_000, ()),
    "bilingual": ("cpm2", "11b-bilingual", 1e-5, 36_000, (GrowVocabulary(51968, rows="fresh"),)),
    "moe": (
        "cpm2_moe",
        "198b",
        1e-6,
        300_000,
        (CopyExperts(32, tuple(range(24)), router=ROUTER, dispatch=DISPATCH),),
    ),
    "tiny": ("cpm2", "tiny", 1e-5, 100_000, ()),
}


def get_config(size: str = "chinese") -> ConfigDict:
    tiny = size == recipe.TINY
    family, model, rate, steps, surgery = SIZES[size]
    config = recipe.of(family, model, TINY)
    config.train.surgery = tuple(map(to_dict, surgery))
    if size in ("chinese", "tiny"):
        config.data.tokenizer = "unigram-26240"
    recipe.under(config, *MixtureOfDenoisers.filling(48 if tiny else 512, SPANS))
    config.data.batch_size = 2080
    config.train.steps = steps
    optimizer = AdamW(learning_rate=rate, weight_decay=0.01, clip=1.0, b1=0.9, b2=0.999, eps=1e-8)
    recipe.moves(config, optimizer, InverseSqrt(warmup=10_000))
    return recipe.small_run(config) if tiny else config
