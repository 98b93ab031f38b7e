"""RoBERTa (Liu et al. 2019, arXiv 1907.11692), XLM-RoBERTa (Conneau et al. 2020, 1911.02116), CamemBERT (Martin et al.
2020, 1911.03894), and two with their norms first: fairseq's (Ott et al. 2019, 1904.01038; used by Wettig et al. 2023,
2202.08005) and the larger XLM-RoBERTas (Goyal et al. 2021, 2105.00572), whose embedding is not normed.

BERT trained longer, without pairs of texts: one type of token, positions that begin behind the padding's row, and a
masked-LM head whose activation is always GELU."""

import functools

from lm.zoo.bert import BASE, LARGE, bert
from lm.zoo.family import Family, Sizes

SIZES: Sizes = {"base": BASE, "large": LARGE}
XL = {
    "xl": {"layers": 36, "d_model": 2560, "heads": 32},
    "xxl": {"layers": 48, "d_model": 4096, "heads": 32},
}
roberta = functools.partial(bert, vocab=50265, offset=2, types=1, head_activation="gelu", eps=1e-5)
prenorm = functools.partial(roberta, norm_first=True)
FAMILIES = {
    "roberta": Family(roberta, SIZES, "arXiv 1907.11692"),
    "roberta_prenorm": Family(prenorm, {"base": BASE}, "arXiv 1904.01038"),
    "xlm_roberta": Family(functools.partial(roberta, vocab=250002), SIZES, "arXiv 1911.02116"),
    "xlm_roberta_xl": Family(functools.partial(prenorm, vocab=250880, embed_norm=False), XL, "arXiv 2105.00572"),
    "camembert": Family(functools.partial(roberta, vocab=32005), SIZES, "arXiv 1911.03894"),
}
