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


def electra_pair(*, discriminator: Mapping[str, Any], generator: Mapping[str, Any]) -> Group:
    """Both, from their knobs (`SIZES["base"]` and `SIZES["base-generator"]`, say), over the same tables of tokens and
    positions. They train under `lm.objectives.replaced.ReplacedTokens`."""
    parts = (("generator", electra(**generator)), ("discriminator", electra(**discriminator)))
    shared = ("token", "position")
    return Group(parts, tuple((f"generator/body/embed/{x}", f"discriminator/body/embed/{x}") for x in shared))


def electra_both(
    *,
    layers: int,
    d_model: int,
    heads: int,
    generator_layers: int | None = None,
    generator_d_model: int,
    generator_heads: int,
    embed_width: int | None = None,
    vocab: int = 30522,
    context: int = 512,
    types: int = 2,
    dropout: float = 0.0,
) -> Group:
    """The pair that trains as one, of any shape. The generator has as many layers as the discriminator if
    `generator_layers` is not given; the tables are as wide as it, or `embed_width`."""
    shared = {"vocab": vocab, "context": context, "types": types, "dropout": dropout}
    shared |= {"embed_width": embed_width or d_model}
    generator = {"layers": generator_layers or layers, "d_model": generator_d_model, "heads": generator_heads}
    return electra_pair(
        discriminator={**shared, "layers": layers, "d_model": d_model, "heads": heads},
        generator={**shared, **generator, **MLM},
    )


def _both(size: str) -> Mapping[str, Any]:
    generator = SIZES[f"{size}-generator"]
    return {**SIZES[size], **{f"generator_{knob}": generator[knob] for knob in ("layers", "d_model", "heads")}}


FAMILIES = {
    "electra": Family(electra, SIZES, "arXiv 2003.10555"),
    "electra_both": Family(
        electra_both, {size: _both(size) for size in ("small", "base", "large")}, "arXiv 2003.10555"
    ),
}
