"""ERNIE 1.0 (Sun et al. 2019, arXiv 1904.09223), 2.0 (Sun et al. 2020, 1907.12412) and the published encoders of the
third generation: BERTs that were trained on entities, phrases and, later, many tasks at once; the last ones have a
table that tells the task. Shapes are those of PaddleNLP's configs."""

import functools

from lm.zoo.bert import BASE, LARGE, bert
from lm.zoo.family import Family, Sizes

CHINESE = {"vocab": 18000, "context": 513, "activation": "relu"}
_3 = {"vocab": 40000, "context": 2048, "types": 4}
SIZES: Sizes = {
    "1.0-base": {**BASE, **CHINESE},
    "2.0-base": {**BASE, "types": 4},
    "2.0-large": {**LARGE, "types": 4},
    "2.0-base-chinese": {**BASE, **CHINESE, "types": 4},
    "2.0-large-chinese": {**LARGE, **CHINESE, "types": 4, "vocab": 12800, "context": 512},
    "3.0-xbase": {"layers": 20, "d_model": 1024, "heads": 16, **_3, "tasks": 16},
    "3.0-base": {**BASE, **_3, "tasks": 3},
    "3.0-medium": {**BASE, "layers": 6, **_3, "tasks": 16},
    "3.0-mini": {"layers": 6, "d_model": 384, "heads": 12, **_3, "tasks": 16},
    "3.0-micro": {"layers": 4, "d_model": 384, "heads": 12, **_3, "tasks": 16},
    "3.0-nano": {"layers": 4, "d_model": 312, "heads": 12, **_3, "tasks": 16},
}
FAMILIES = {"ernie": Family(functools.partial(bert), SIZES, "arXiv 1904.09223, 1907.12412")}
