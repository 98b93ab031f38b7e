"""Megatron's BERT (Shoeybi et al. 2019, arXiv 1909.08053): BERT with its norms before the sub-layers and behind the
last one, none after the embedding, which lets it grow. It is trained to order texts (SOP) besides filling in tokens.
The vocabulary of the two large ones is not published: BERT's stands in for it, padded."""

import functools

from lm.zoo.bert import LARGE, bert
from lm.zoo.family import Family

SIZES = {
    "345m": {**LARGE, "vocab": 29056},
    "1.3b": {"layers": 24, "d_model": 2048, "heads": 32},
    "3.9b": {"layers": 48, "d_model": 2560, "heads": 40},
}
FAMILIES = {
    "megatron_bert": Family(
        functools.partial(bert, vocab=30592, norm_first=True, embed_norm=False), SIZES, "arXiv 1909.08053"
    )
}
