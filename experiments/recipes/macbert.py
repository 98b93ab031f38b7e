"""MacBERT (Cui et al. 2020, arXiv 2004.13922, and 2021, 1906.08101, sections IV and V): one to four words in a row are
replaced by similar ones, which the model corrects, and a head tells whether two texts have changed places; LAMB at
1e-4, rows of 512 tokens. The large one, from initial values, has 2M steps of 512 rows; the base one goes on from a
trained BERT (`--config.train.init_from=bert-base-chinese`, whose tokenizer both have) for 1M steps.

The words similar to each are a file of yours: `--config.objective.tokens.similar=similar.tsv`, a line for each word,
and tabs between that and its similar ones (the paper takes them from word2vec). A word is what the tokenizer tells
apart, in Chinese a character, where the paper has a segmenter. Not published are the rate and batch of the base one,
warm-up, decay and dropout: here those of the large one, and BERT's. Random words in the place of missing similar ones
are not bounded."""

from ml_collections.config_dict import ConfigDict

from experiments.recipes import recipe
from lm.adapt.surgery.inherit import Inherit
from lm.core.component import to_dict
from lm.data.records.documents import Documents
from lm.objectives.examples.hiding import NGrams
from lm.objectives.joint import JointLoss
from lm.objectives.masked import MaskedTokens
from lm.objectives.sentence_pairs import MaskedPairs
from lm.train.config import as_config
from lm.train.optim.lamb import LAMB
from lm.zoo.registry import build

LOSS = JointLoss((("mlm", 1.0), ("sop", 1.0)))
SIMILAR = ["if\twhile\tfor", "not\tand", "self\tcls", "return\timport", "None\tTrue\tFalse", "is\tin\tas\tor", "to\tof"]


def get_config(size: str = "large") -> ConfigDict:
    tiny = size == recipe.TINY
    config = recipe.of("macbert", size, recipe.SHAPES | {"vocab": 512}, pretraining=("mlm", "sop"), dropout=0.1)
    config.data.records = as_config(Documents(sentences="lines" if tiny else "punctuation"))
    similar = recipe.written("similar.tsv", SIMILAR) if tiny else "similar.tsv"
    tokens = MaskedTokens(hiding=NGrams((0.4, 0.3, 0.2, 0.1)), predictions=77, similar=similar)
    recipe.under(config, MaskedPairs(tokens, relation="order", loss=LOSS), 512)
    config.data.batch_size = 512
    config.train.steps = 1_000_000 if size == "base" else 2_000_000
    recipe.moves(config, LAMB(learning_rate=1e-4, weight_decay=0.01), recipe.line(warmup=10_000))
    if size == "base":
        config.train.surgery = (to_dict(Inherit(build(config.model))),)  # the head of sentence order is new
        return config
    config.data.tokenizer = "unigram-21128"
    config.data.reserved = ("[CLS]", "[SEP]", "[MASK]")
    if tiny:
        config = recipe.small_run(config, learning_rate=1e-2)
        config.data.tokenizer = "bpe-512"  # bytes have no words
    return config
