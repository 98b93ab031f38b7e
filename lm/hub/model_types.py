"""Every `model_type` that config.json may name, found in the files of `lm.hub.dialects`."""

import importlib
import pkgutil

from lm.hub import dialects
from lm.hub.tables.format import HFFormat

_MODULES = [
    importlib.import_module(f"{dialects.__name__}.{found.name}") for found in pkgutil.iter_modules(dialects.__path__)
]
MODEL_TYPES: dict[str, HFFormat] = {name: known for module in _MODULES for name, known in module.MODEL_TYPES.items()}
