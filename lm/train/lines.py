"""What a run says of itself: lines of text."""

from lm.core.errors import UserError
from lm.core.param import count
from lm.data.open import Data
from lm.parallel.pipeline import Pipelined
from lm.train.figures import Record
from lm.train.step import Trainer


def trained_line(trainer: Trainer) -> str:
    """How many parameters train, where that is not all of them."""
    trains = count(trainer.optimizer.spec)
    return f" ({trains:,} train)" if trainer.program.transforms else ""


def pipeline_line(trainer: Trainer) -> str:
    """What a pipeline costs: time, and memory; "" without one."""
    walk = trainer.execution.walk
    if not isinstance(walk, Pipelined) or (order := walk.order(trainer.sharding)).stages == 1:
        return ""
    chunks = f" of {order.chunks} chunks" if order.chunks > 1 else ""
    return (
        f"; {order.stages} pipeline stages{chunks}, {order.microbatches} microbatches: {order.idle:.1%} of the time "
        f"idle, activations of {walk.kept(order) / order.chunks:g} microbatches kept"
    )


def data_line(data: Data) -> str:
    """How much there is to train on."""
    documents, dropped = (sum(getattr(p.train, n) for p in data.parts) for n in ("documents", "dropped"))
    empty = f", {dropped:,} without text left out" if dropped else ""
    sources = f" of {len(data.parts)} sources" if len(data.parts) > 1 else ""
    return (
        f"{data.tokens:,} training tokens{sources} ({documents:,} documents{empty}), "
        f"{sum(cache.size for cache in data.validation):,} for validation"
    )


def validation_line(result: Record, unit: str) -> str:
    """What an evaluation found; `unit` of the loss."""
    bits = f", {result['bits_per_byte']:.4f} bits per byte" if "bits_per_byte" in result else ""
    if not bits and "accuracy" in result:
        bits = f", accuracy {result['accuracy']:.2%}"
    of = "".join(f"; {name} {loss:.4f}" for name, loss in result.get("loss_of", {}).items())
    return f"loss {result['loss']:.4f}{unit and f' {unit}'}{bits}{of}"


def of_error(e: BaseException) -> str:
    """An error as a part of a line."""
    return f"{type(e).__name__ + ': ' if not isinstance(e, UserError) else ''}{' '.join(str(e).split())[:300]}"
