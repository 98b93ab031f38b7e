"""CodeT5+ (Wang et al. 2023, arXiv 2305.07922, section 3): on code alone 10,000 steps of span corruption, then 100,000
in which it takes turns with both kinds of causal modelling, batches of 2048 rows of 512 tokens, AdamW at 2e-4; then, on
pairs of texts (128 tokens) and code (420), contrastive, matching, and either written from the other.

Here the pairs are the last 10,000 steps of one run, about ten epochs of CodeSearchNet's two million, whose batch and
schedule go on. In the paper that is a run of its own, in batches of 256 at 1e-4, of ten epochs: `train.init_from` the
first stages, and the last as the config itself. `Functions` makes pairs of Python files; for other languages give pairs
as data.source and data.records of that stage."""

from ml_collections.config_dict import ConfigDict

from experiments.recipes import recipe
from experiments.recipes.t5 import TINY
from lm.core.component import to_dict
from lm.data.records.functions import Functions
from lm.model.heads import Heads, SequenceClassifier
from lm.model.transformer import with_head
from lm.objectives.denoising import MixtureOfDenoisers
from lm.objectives.examples.published import CAUSAL_TOO, SPANS
from lm.objectives.joint import OfHead
from lm.objectives.text_and_code import TextAndCode
from lm.train.optim.adamw import AdamW
from lm.zoo.registry import build

SIZES = ("plus-220m", "plus-770m", recipe.TINY)
TOKENS = ("[CLM]", "[CDec]", "[TDec]", "[Match]", "[CLS]")
ROW_HEADS = (("matching", SequenceClassifier(2, at="last")), ("contrast", SequenceClassifier(256)))


def get_config(size: str = "plus-770m") -> ConfigDict:
    tiny = size == recipe.TINY
    config = recipe.of("codet5", size, TINY | {"vocab": TINY["vocab"] + len(TOKENS)})
    model = build(config.model)
    heads = Heads((("lm", model.head), *ROW_HEADS))
    with config.unlocked():
        config.model = ConfigDict(to_dict(with_head(model, heads, (("head/lm/w", "decoder/embed/token"),))))
    config.data.tokenizer = "bpe-32100"
    config.data.reserved = TOKENS
    length, texts, codes = (64, 32, 96) if tiny else (512, 128, 420)
    recipe.under(config, MixtureOfDenoisers.of(length, SPANS, loss=OfHead()), length)
    both = MixtureOfDenoisers.of(length, CAUSAL_TOO, exact=True, loss=OfHead())
    pairs = {
        "data.records": to_dict(Functions()),
        "data.packing": "one",
        "data.long": "cut",
        "data.length": texts + codes,
        "objective": to_dict(TextAndCode(texts, codes)),
    }
    second, third = (5, 10) if tiny else (10_000, 110_000)
    config.stages = ((second, {"objective": to_dict(both)}), (third, pairs))
    config.data.batch_size = 2048
    config.train.steps = 120_000
    recipe.moves(config, AdamW(learning_rate=2e-4, weight_decay=0.1), recipe.line(warmup=1000))
    return recipe.small_run(config) if tiny else config
