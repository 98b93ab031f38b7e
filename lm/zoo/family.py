"""What the zoo keeps of a family."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from lm.model.transformer import Model

Sizes = Mapping[str, Mapping[str, Any]]


class Family(NamedTuple):
    """A zoo function, its published sizes (name -> knobs) and where they were published."""

    make: Callable[..., Model]
    sizes: Sizes
    paper: str
