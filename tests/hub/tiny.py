"""A small config.json of every model type, and folders of their classes with made-up weights."""

import functools
import json
from pathlib import Path
from typing import Any

import numpy as np

from lm.hub.binding import Binding
from lm.hub.config import read_config, spelling
from lm.zoo.registry import build
from tests import toys
from tests.golden import FILES
from tests.zoo import test_arctic, test_deepseek_moe, test_grok


@functools.cache
def configs() -> dict[str, dict[str, Any]]:
    """By model type: that of its first golden, or of its transcription where transformers does not have it."""
    found: dict[str, dict[str, Any]] = {}
    for path in FILES.values():
        config = json.loads(str(np.load(path)["meta"]))["config"]
        found.setdefault(config["model_type"], config)
    for config in (test_arctic.CONFIG, test_deepseek_moe.CONFIG, test_grok.CONFIG):
        found.setdefault(config["model_type"], config)
    return found


def tensors_of(config: dict[str, Any]) -> dict[str, np.ndarray]:
    """What a file of the class that a config names holds, with made-up values."""
    model = build(read_config(config).knobs)
    tensors = Binding(model, spelling(config).names).to_tensors(toys.values(model.spec()))
    return {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}


def write(folder: Path, config: dict[str, Any], tensors: dict[str, np.ndarray]) -> Path:
    from safetensors.numpy import save_file

    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    save_file(tensors, folder / "model.safetensors")
    return folder
