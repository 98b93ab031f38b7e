"""ELECTRA (Clark et al. 2020, arXiv 2003.10555): a discriminator, which is a BERT without pooler, tells which tokens of
a text a small masked language model, the generator, has replaced. Both read the same tables of tokens and positions, of
the discriminator's width (or narrower, and projected)."""

import functools
from collections.abc import Mapping
from typing import Any

from lm.model.transformer import Group
from lm.zoo.bert import BASE, LARGE, bert
from lm.zoo.family import Family, Sizes

MLM = {"pretraining": ("mlm",), "head_activation": "gelu"}
SIZES: Sizes = {
    "small": {"layers": 12, "d_model": 256, "heads": 4, "embed_width": 128},
    "base": BASE,
    "large": LARGE,
    "small-generator": {"layers": 12, "d_model": 64, "heads": 1, "embed_width": 128, **MLM},
    "base-generator": {"layers": 12, "d_model": 256, "heads": 4, "embed_width": 768, **MLM},
    "large-generator": {"layers": 24, "d_model": 256, "heads": 4, "embed_width": 1024, **MLM},
}
electra = functools.partial(bert, pretraining=("rtd",))
FAMILIES = {"electra": Family(electra, SIZES, "arXiv 2003.10555")}


def electra_pair(*, discriminator: Mapping[str, Any], generator: Mapping[str, Any]) -> Group:
    """Both, from their knobs (`SIZES["base"]` and `SIZES["base-generator"]`, say), over the same tables of tokens and
    positions. They train under `lm.objectives.replaced.ReplacedTokens`."""
    parts = (("generator", electra(**generator)), ("discriminator", electra(**discriminator)))
    shared = ("token", "position")
    return Group(parts, tuple((f"generator/body/embed/{x}", f"discriminator/body/embed/{x}") for x in shared))
