"""Import from and export to other ecosystems. `as_linen` and `as_nnx` are here without importing Flax's modules before
they are asked for."""

from typing import Any


def __getattr__(name: str) -> Any:
    if name in ("as_linen", "as_nnx"):
        from lm.hub import flax

        return getattr(flax, name)
    raise AttributeError(f"module 'lm.hub' has no attribute {name!r}")
