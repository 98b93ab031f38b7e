"""BERT (Devlin et al. 2019, arXiv 1810.04805, appendix A.2, and its published code): hidden tokens, and whether one
text follows another; a million batches of 256 rows, nine tenths of them of 128 tokens and the last of 512. Each row
has ten copies with masks of their own; logits are computed of 20 (77) tokens of a row."""

from ml_collections.config_dict import ConfigDict

from experiments.recipes import recipe
from lm.data.records.documents import Documents
from lm.objectives.masked import MaskedTokens
from lm.objectives.sentence_pairs import MaskedPairs
from lm.train.config import as_config
from lm.train.optim.adamw import AdamW


def get_config(size: str = "base") -> ConfigDict:
    tiny = size == recipe.TINY
    config = recipe.of("bert", size, recipe.SHAPES | {"vocab": 387}, pretraining=("mlm", "nsp"), dropout=0.1)
    config.data.tokenizer = "unigram-30522"
    config.data.reserved = ("[CLS]", "[SEP]", "[MASK]")
    config.data.records = as_config(Documents(sentences="lines" if tiny else "punctuation"))
    recipe.under(config, MaskedPairs(MaskedTokens(copies=10, predictions=20)), 128)
    longer = {"data.length": 512, "objective.tokens.predictions": 77}
    config.stages = () if tiny else ((900_000, longer),)
    config.data.batch_size = 256
    config.train.steps = 1_000_000
    optimizer = AdamW(learning_rate=1e-4, weight_decay=0.01, clip=1.0, b1=0.9, b2=0.999, eps=1e-6)
    recipe.moves(config, optimizer, recipe.line(warmup=10_000))
    return recipe.small_run(config) if tiny else config
