"""Whether a model and its rows can lie on a mesh, found out before anything is compiled."""

from collections.abc import Sequence

from lm.core.component import components
from lm.core.errors import UserError
from lm.core.mesh import Sharding
from lm.model.program import Program


def check_layout(sharding: Sharding | None, program: Program, lengths: Sequence[int]) -> None:
    """Raise `UserError` where a mesh axis does not divide what the rules let it cut: an axis of a parameter, attention
    heads, or rows of these lengths. (Rows of a batch and stages of a pipeline: `lm.train.parallel`.)"""
    if sharding is None:
        return
    sharding.tree(program.spec())
    ways, over = sharding.ways("heads"), " x ".join(sharding.over("heads"))
    for part in components(program.model):
        heads = getattr(part, "heads", 0)
        if heads % ways:
            raise UserError(
                f"{heads} heads of {type(part).__name__} do not spread evenly over {over} = {ways} devices: take a "
                f"size of that axis that divides {heads}"
            )
        few = getattr(part, "kv_heads", None) or heads
        if few % ways and ways % few:  # where several devices share a head, each has all of it
            raise UserError(
                f"{few} heads of keys and values of {type(part).__name__} neither spread evenly over {over} = {ways} "
                f"devices nor go to equal numbers of them: take a size of that axis that divides {few}, or a multiple"
            )
    ways, over = sharding.ways("seq"), " x ".join(sharding.over("seq"))
    for length in lengths:
        if length % ways:
            raise UserError(
                f"rows of {length} tokens (config.data.length, or the objective's) do not divide over {over} = {ways} "
                f"devices: make the length a multiple of {ways}"
            )
