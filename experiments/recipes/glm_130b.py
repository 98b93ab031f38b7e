"""GLM-130B (Zeng et al. 2022, arXiv 2210.02414, section 2.2 and 2.3): 30 % of the rows with short spans behind [MASK],
70 % with a long end behind [gMASK]; 400B tokens in batches that grow from 192 to 4224 rows; a tenth of the gradient
reaches the token table. 5 % of the tokens are instructions: add them as a source of `Pairs` records,
`--config.data.mixture="(('text/', 0.95), ('tasks.jsonl', 0.05, {'type': 'Pairs', ...}))"`, whose targets become
blanks."""

from ml_collections.config_dict import ConfigDict

from experiments.recipes import recipe
from lm.objectives.blanks import BlankInfilling
from lm.objectives.examples.blanks import THIRTY_SEVENTY

TINY = recipe.SHAPES | {"vocab": 389, "d_ff": 128}


def get_config(size: str = "130b") -> ConfigDict:
    tiny = size == recipe.TINY
    config = recipe.of("glm-130b", size, TINY)
    config.data.tokenizer = "unigram-150000"
    config.data.reserved = ("[MASK]", "[gMASK]", "[sMASK]", "[sop]", "[eop]")
    recipe.under(config, BlankInfilling(THIRTY_SEVENTY, running=True), 64 if tiny else 2000)
    recipe.last(config, tokens=400e9, batch=4224 * 2000)
    recipe.ramp(config, tokens=400e9 * 0.025, parts=11)
    config.optimizer.update(learning_rate=8e-5, weight_decay=0.1, clip=1.0, b1=0.9, b2=0.95, embed_gradient=0.1)
    config.schedule.update(warmup=recipe.steps(config, 2e9), final_lr_ratio=0.1)
    return recipe.small_run(config) if tiny else config
