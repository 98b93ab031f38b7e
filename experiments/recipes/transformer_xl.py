"""Transformer-XL (Dai et al. 2019, arXiv 1901.02860, and its published scripts): each row goes on where the same row of
the last batch ended, and reads its memory. For WikiText-103, whose words are the tokens."""

from ml_collections.config_dict import ConfigDict

from experiments.recipes import recipe

TINY = recipe.SHAPES | {"d_ff": 128, "memory": 32}
# Rows of a batch, their length, steps, warm-up, dropout.
SIZES = {
    "base": (60, 150, 200_000, 0, 0.1),
    "large": (128, 384, 4_000_000, 16_000, 0.2),
    "enwik8": (64, 768, 400_000, 4000, 0.15),
    "tiny": (60, 150, 200_000, 0, 0.1),
}


def get_config(size: str = "base") -> ConfigDict:
    rows, length, steps, warmup, dropout = SIZES[size]
    config = recipe.of("transformer_xl", size, TINY, dropout=dropout)
    config.data.update(packing="stream", length=length, batch_size=rows)
    config.train.steps = steps
    config.optimizer.update(learning_rate=2.5e-4, weight_decay=0.0, clip=0.25, b1=0.9, b2=0.999)
    config.schedule.update(warmup=warmup, final_lr_ratio=0.0)
    return recipe.small_run(config) if size == recipe.TINY else config
