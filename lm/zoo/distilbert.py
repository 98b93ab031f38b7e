"""DistilBERT (Sanh et al. 2019, arXiv 1910.01108): BERT with half its layers, without types and pooler, trained to give
what BERT gives."""

import functools

from lm.zoo.bert import bert
from lm.zoo.family import Family

_BASE = {"layers": 6, "d_model": 768, "heads": 12}
SIZES = {
    "base": _BASE,
    "base-cased": {**_BASE, "vocab": 28996},
    "base-multilingual-cased": {**_BASE, "vocab": 119547},
}
FAMILIES = {"distilbert": Family(functools.partial(bert, types=0), SIZES, "arXiv 1910.01108")}
