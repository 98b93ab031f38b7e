"""ALBERT (Lan et al. 2019, arXiv 1909.11942, sections 3 and 4.1): n-grams of up to three words are hidden, short
ones more often, and a head tells whether two texts have changed places; 125,000 batches of 4096 rows of 512 tokens,
LAMB at 1.76e-3. Warm-up, decay and dropout are those of the published code."""

from ml_collections.config_dict import ConfigDict

from experiments.recipes import recipe
from lm.data.records.documents import Documents
from lm.objectives.examples.hiding import NGrams
from lm.objectives.joint import JointLoss
from lm.objectives.masked import MaskedTokens
from lm.objectives.sentence_pairs import MaskedPairs
from lm.train.config import as_config
from lm.train.optim.lamb import LAMB

LOSS = JointLoss((("mlm", 1.0), ("sop", 1.0)))
SHARES = (6 / 11, 3 / 11, 2 / 11)  # of n-grams of 1, 2 and 3 words: in proportion to 1 / n


def get_config(size: str = "xxlarge") -> ConfigDict:
    tiny = size == recipe.TINY
    config = recipe.of(
        "albert",
        size,
        recipe.SHAPES | {"vocab": 512},
        pretraining=("mlm", "sop"),
        dropout=0.1 if size in ("base", "large") else 0.0,
    )
    config.data.tokenizer = "unigram-30000"
    config.data.reserved = ("[CLS]", "[SEP]", "[MASK]")
    config.data.records = as_config(Documents(sentences="lines" if tiny else "punctuation"))
    recipe.under(config, MaskedPairs(MaskedTokens(hiding=NGrams(SHARES)), relation="order", loss=LOSS), 512)
    config.data.batch_size = 4096
    config.train.steps = 125_000
    recipe.moves(config, LAMB(learning_rate=1.76e-3, weight_decay=0.01), recipe.line(warmup=3125))
    if tiny:
        config = recipe.small_run(config)
        config.data.tokenizer = "bpe-512"  # bytes have no words
    return config
