"""LLaMA (Touvron et al. 2023, arXiv 2302.13971, section 2.3), LLaMA 2 (arXiv 2307.09288, section 2.2) and LLaMA 3
(Dubey et al. 2024, arXiv 2407.21783, section 3.4). LLaMA 3 405B let rows grow from 4096 to 8192 tokens and batches from
4M to 16M tokens; here both are what they were for most of the run. Of its smaller siblings only rates are told."""

from ml_collections.config_dict import ConfigDict

from experiments.recipes import recipe

# Learning rate, tokens; by generation: length, tokens of a batch, warm-up, last rate over the first, tokenizer.
SIZES = {
    "1-7b": (3e-4, 1.0e12),
    "1-13b": (3e-4, 1.0e12),
    "1-33b": (1.5e-4, 1.4e12),
    "1-65b": (1.5e-4, 1.4e12),
    "2-7b": (3e-4, 2e12),
    "2-13b": (3e-4, 2e12),
    "2-34b": (1.5e-4, 2e12),
    "2-70b": (1.5e-4, 2e12),
    "3-8b": (3e-4, 15e12),
    "3-70b": (1.5e-4, 15e12),
    "3.1-405b": (8e-5, 15.6e12),
    "tiny": (3e-4, 1.0e12),
}
GENERATIONS = {
    "1": (2048, 4e6, 2000, 0.1, "bpe-32000"),
    "2": (4096, 4e6, 2000, 0.1, "bpe-32000"),
    "3": (8192, 16e6, 8000, 0.01, "bpe-128000"),
}


def get_config(size: str = "1-7b") -> ConfigDict:
    rate, tokens = SIZES[size]
    length, batch, warmup, final, tokenizer = GENERATIONS[size[0] if size != recipe.TINY else "1"]
    config = recipe.of("llama", size, recipe.SHAPES | {"kv_heads": 1})
    config.data.tokenizer = tokenizer
    config.data.length = length
    recipe.last(config, tokens, batch)
    config.optimizer.update(learning_rate=rate, weight_decay=0.1, clip=1.0, b1=0.9, b2=0.95)
    config.schedule.update(warmup=warmup, final_lr_ratio=final)
    return recipe.small_run(config) if size == recipe.TINY else config
