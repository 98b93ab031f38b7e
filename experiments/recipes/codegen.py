"""CodeGen (Nijkamp et al. 2022, arXiv 2203.13474, section 2 and appendix A): one model, three corpora one after the
other: 354B tokens of text (the Pile), 150B of six programming languages (BigQuery), 72B of Python (BigPython).
Folders of these names are read; the published models are those at each boundary. Each corpus had a schedule of its
own, here one cosine covers all; rates between those of the smallest and the largest are interpolated, batches are 2M
tokens for all."""

from ml_collections.config_dict import ConfigDict

from experiments.recipes import recipe

RATES = {"350m": 1.8e-4, "2b": 1.2e-4, "6b": 0.8e-4, "16b": 0.5e-4, "tiny": 1.8e-4}


def get_config(size: str = "16b") -> ConfigDict:
    tiny = size == recipe.TINY
    config = recipe.of("codegen", size, recipe.SHAPES | {"rotary_dim": 16})
    config.data.tokenizer = "bpe-51200"
    config.data.length = 2048
    recipe.last(config, tokens=(354 + 150 + 72) * 1e9, batch=2e6)
    config.data.source = "pile"
    first, second = (recipe.steps(config, tokens) for tokens in (354e9, 504e9))
    config.stages = ((first, {"data.source": "bigquery"}), (second, {"data.source": "bigpython"}))
    config.optimizer.update(learning_rate=RATES[size], weight_decay=0.1, clip=1.0, b1=0.9, b2=0.999)
    config.schedule.update(warmup=3000, final_lr_ratio=0.1)
    if tiny:
        config.stages = ((15, {"data.holdout": 0.05}),)
    return recipe.small_run(config) if tiny else config
