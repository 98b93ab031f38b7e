"""What a golden is made of: a small model with unusual values."""

from typing import Any, Literal, NamedTuple


class Case(NamedTuple):
    """A class of transformers and its config. `gradients`: tensors whose gradients of the loss are kept. `attention`:
    which implementation computes them. `positions`: where a token stands, "given" as position_ids, counted by the
    model itself from the "mask" (or from ids that are not padding), or by "index" whatever is padding. `apart`:
    tensors that the class ties to others, but loads as their own where a file holds them so. `padding`: on the left
    of a row, on the right, on the one and the other of two, or nowhere and no mask given. `types`: how many kinds of
    tokens, where the config does not tell. `greedy`: whether what it generates is kept. `permuted`: ask for some
    tokens in an order of their own (perm_mask, target_mapping). `recalls`: give what the model remembers of other
    rows (mems). `anchors`: whether tokens with global attention are given, at random, or left for the class to
    mark."""

    kind: str
    config: dict[str, Any]
    gradients: tuple[str, ...] = ()
    attention: str = "eager"
    positions: Literal["given", "mask", "index"] = "given"
    apart: tuple[str, ...] = ()
    padding: Literal["none", "left", "right", "both"] = "both"
    types: int = 0
    greedy: bool = True
    permuted: bool = False
    recalls: bool = False
    anchors: Literal["given", "class"] = "given"
