"""A model written as a Hugging Face folder, which transformers opens: config.json, weights, tokenizer."""

import fnmatch
import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from lm.core.component import from_dict
from lm.core.errors import UserError, nearest
from lm.core.files import replaced
from lm.core.param import Tree
from lm.hub.binding import Binding
from lm.hub.config import spelling, write_config
from lm.hub.folder import CONFIG, SHARD, write_folder
from lm.hub.model_types import MODEL_TYPES
from lm.hub.open import LENGTHS
from lm.hub.save_text import special_ids, write_text
from lm.hub.tensors import ProgressCallback, quiet, reason
from lm.model.transformer import EncoderDecoder
from lm.text.format import TextFormat
from lm.zoo.registry import FAMILIES, build

FILES = (  # those of a model, by whomever they were written, which are not to stay beside another one's
    *("*.safetensors", "*.safetensors.index.json", "config.json", "generation_config.json", "*chat_template*"),
    *("tokenizer*.json", "tokenizer.model", "special_tokens_map.json", "added_tokens.json", "vocab.*", "merges.txt"),
    *("spiece.model", "sentencepiece.bpe.model", "spm.model", "*.spm"),
)
DTYPES = {"float32": np.float32, "bfloat16": jnp.bfloat16, "float16": np.float16}


def save_folder(
    folder: str | Path,
    knobs: Mapping[str, Any],
    params: Tree,
    text: TextFormat | None = None,
    *,
    dtype: str = "float32",
    model_type: str | None = None,
    architecture: str | None = None,
    length: int | None = None,
    shard: int = SHARD,
    progress: ProgressCallback = quiet,
) -> dict[str, Any]:
    """Write the model with these knobs (`config.model`, by family) and its parameters to `folder`; returns what
    config.json says. `length`: the tokens that it was trained on at a time, for model types that tell them.

    Raises `UserError` for another `dtype`, a model that the model type cannot tell, parameters of another model, or
    where nothing can be written."""
    if dtype not in DTYPES:
        raise UserError(f"dtype {dtype!r} is unknown{nearest(dtype, DTYPES)}")
    folder, model = Path(folder).expanduser(), build(_components(knobs))
    config = config_of(knobs, model_type, architecture)
    length = length or (text.context if text else None)
    keys = {name for field in MODEL_TYPES[config["model_type"]].fields for name in field.keys}
    for name in keys & set(LENGTHS) if length else ():
        config.setdefault(name, length)
    config["torch_dtype"] = dtype
    if text is not None:
        config = special_ids(text, isinstance(model, EncoderDecoder)) | config
    try:
        with replaced(folder, _ours) as new:
            if text is not None:
                write_text(new, text._replace(context=length), config)
            (new / CONFIG).write_text(json.dumps(config, indent=2) + "\n")
            write_folder(new, Binding(model, spelling(config).names), params, DTYPES[dtype], shard, progress)
    except OSError as e:
        raise UserError(f"cannot write {folder} ({reason(e)}): choose a folder with room to write to") from e
    return config


def _ours(name: str) -> bool:
    """Whether a file says something of a model or its text."""
    return any(fnmatch.fnmatch(name, pattern) for pattern in FILES)


def config_of(
    knobs: Mapping[str, Any], model_type: str | None = None, architecture: str | None = None
) -> dict[str, Any]:
    """The config.json of the model with these knobs, of the first of the family's model types that can tell it."""
    if "family" not in knobs:
        raise UserError("a model given as a tree of components has no name elsewhere: train one by family to export it")
    plain = _common(_components(knobs))
    fitting = [name for name, dialect in MODEL_TYPES.items() if dialect.family == plain["family"]]
    if model_type is not None:
        return write_config(model_type, plain, architecture)
    failure = UserError(f"the family {knobs['family']!r} has no model type elsewhere: it cannot be exported")
    for name in fitting:
        try:
            return write_config(name, plain, architecture)
        except UserError as e:
            failure = e
    raise failure


def _components(knobs: Mapping[str, Any]) -> dict[str, Any]:
    """Knobs as a checkpoint keeps them -> as zoo functions take them, without what matters at the beginning alone."""
    kept = {name: value for name, value in knobs.items() if value is not None and name != "init_scheme"}
    return {name: from_dict(value, f"model.{name}") for name, value in kept.items()}


def _common(knobs: dict[str, Any]) -> dict[str, Any]:
    """A family that is another with some knobs set (Megatron: GPT-2), by the name of that other."""
    family = FAMILIES[knobs["family"]]
    if knobs["family"] in {dialect.family for dialect in MODEL_TYPES.values()} or not isinstance(
        family.make, functools.partial
    ):
        return knobs
    base = next((name for name, other in FAMILIES.items() if other.make is family.make.func), None)
    sizes = family.sizes[knobs["size"]] if knobs.get("size") else {}
    given = {**family.make.keywords, **sizes, **knobs, "family": base, "size": None}
    return {name: value for name, value in given.items() if value is not None} if base else knobs
