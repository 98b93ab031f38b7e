"""What a golden is made of: a small model with unusual values."""

from typing import Any, Literal, NamedTuple


class Case(NamedTuple):
    """A class of transformers and its config. `gradients`: tensors whose gradients of the loss are kept. `attention`:
    which implementation computes them. `positions`: where a token stands, "given" as position_ids, counted by the
    model itself from the "mask" (or from ids that are not padding), or by "index" whatever is padding."""

    kind: str
    config: dict[str, Any]
    gradients: tuple[str, ...] = ()
    attention: str = "eager"
    positions: Literal["given", "mask", "index"] = "given"
