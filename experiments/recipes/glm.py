"""GLM (Du et al. 2022, arXiv 2103.10360, sections 2.1 and 3.1, appendix B): blanks of a text are written behind it, in
random order; half of the rows with short spans, half with one long span. Batches of 1024 rows for 200,000 steps; rate
and decay as the published 10B has them."""

from ml_collections.config_dict import ConfigDict

from experiments.recipes import recipe
from lm.objectives.blanks import BlankInfilling
from lm.objectives.examples.blanks import WITH_DOCUMENTS

TINY = recipe.SHAPES | {"vocab": 389, "context": 128}


def get_config(size: str = "10b") -> ConfigDict:
    tiny = size == recipe.TINY
    config = recipe.of("glm", size, TINY, dropout=0.1)
    config.data.tokenizer = "unigram-50000" if size in ("2b", "10b") else "unigram-30522"
    config.data.reserved = ("[MASK]", "[gMASK]", "[sMASK]", "[sop]", "[eop]")
    recipe.under(config, BlankInfilling(WITH_DOCUMENTS), 64 if tiny else 512)
    config.data.batch_size = 1024
    config.train.steps = 200_000
    config.optimizer.update(learning_rate=1e-4, weight_decay=0.1, clip=1.0, b1=0.9, b2=0.95)
    config.schedule.update(warmup=8000, final_lr_ratio=0.1)
    return recipe.small_run(config) if tiny else config
