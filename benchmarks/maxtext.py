"""What a train step needs on a TPU pod, beside the same step of MaxText: compiled by the TPU compiler for pods that are
not here.

    python -m benchmarks.maxtext                    # every row: half an hour on two cores
    python -m benchmarks.maxtext --row=llama2-7b    # one of them: some minutes

Nothing runs. `pip install "pure-lm[tpu]"` brings the compiler, libtpu. What is said of MaxText does not come from here:
it was read from what MaxText 0.2.5's own `train_compile` made, on JAX 0.12. Both sides: AdamW, full rematerialisation,
bfloat16, and gradients that devices add up in bfloat16 (`config.parallel.reduce_dtype`), as MaxText does."""

import dataclasses
from typing import Any, NamedTuple

from absl import flags
from ml_collections.config_dict import ConfigDict
from rich.console import Console
from rich.table import Table

from lm.commands import cli
from lm.core.errors import UserError, nearest
from lm.train.config import default
from lm.zoo.registry import knobs


class Figures(NamedTuple):
    """Of one chip. Temporaries are what the compiler's buffer assignment has beside the arguments; FLOPs and bytes sent
    to other chips count loops and recomputation. None: not known, or not comparable, since attention kernels state
    FLOPs of their own on one side only."""

    arguments: float  # GB
    temporaries: float  # GB
    flops: float | None = None
    sent: float | None = None  # GB


@dataclasses.dataclass(frozen=True)
class Row:
    """A model, the pod that it is compiled for, and its layout there."""

    family: str
    size: str
    topology: str
    fsdp: int
    tensor: int
    length: int
    rows: int  # of the batch, over the number of chips
    theirs: Figures
    rules: str = "default"
    shape: dict[str, Any] = dataclasses.field(default_factory=dict)  # of the model, where it is not the size's

    def config(self) -> ConfigDict:
        config = default()
        with config.unlocked():
            config.model = knobs(self.family, size=self.size, **self.shape)
        config.data.length, config.data.batch_size = self.length, self.rows * self.fsdp * self.tensor
        config.mesh.update(data=1, fsdp=self.fsdp, tensor=self.tensor)
        config.train.remat, config.train.dtype = "full", "bfloat16"
        config.parallel.update(reduce_dtype="bfloat16", rules=self.rules)
        return config


ROWS = {
    "llama2-7b": Row("llama", "2-7b", "v5p:4x4x2", 32, 1, 4096, 4, Figures(2.53, 10.22, sent=40.2)),
    "mixtral-8x7b": Row("mixtral", "8x7b", "v5p:4x4x4", 64, 1, 4096, 4, Figures(8.76, 16.68)),
    "llama2-70b": Row("llama", "2-70b", "v5p:4x4x8", 128, 1, 4096, 2, Figures(6.47, 19.14)),
    "gpt3-175b": Row(
        *("gpt3", "175b", "v5p:8x8x8", 64, 8, 2048, 1, Figures(4.12, 9.65), "sequence"),
        shape={"vocab": 50304, "sparse": {"type": "Causal"}},  # as MaxText's, whose layers are all dense
    ),
}

ROW = flags.DEFINE_string("row", None, f"Compile this row alone: {', '.join(ROWS)}.")


def ours(row: Row) -> Figures:
    """Compile our step. Takes minutes and gigabytes."""
    from tpu.ahead import report  # sets up this process before jax starts

    found = report(row.config(), row.topology)
    arguments = sum(found.memory.arguments.values())
    sent = sum(traffic.bytes for traffic in found.collectives)
    return Figures(arguments / 1e9, (found.memory.used - arguments) / 1e9, found.flops, sent / 1e9)


def main(argv: list[str]) -> None:
    name = ROW.value
    if name is not None and name not in ROWS:
        raise UserError(f"--row={name} is none{nearest(name, ROWS)}")
    table = Table("model", "pod", "", "arguments, GB", "temporaries, GB", "FLOPs", "sent, GB", title="a chip, a step")
    for model, row in ROWS.items():
        if name not in (None, model):
            continue
        for side, f in (("ours", ours(row)), ("MaxText's", row.theirs)):
            known = (
                "" if f.flops is None else f"{f.flops:.3e}",
                "" if f.sent is None else f"{f.sent:.1f}",
            )
            table.add_row(model, row.topology, side, f"{f.arguments:.2f}", f"{f.temporaries:.2f}", *known)
    Console().print(table)


if __name__ == "__main__":
    cli.run(main, usage="[--row=llama2-7b]")
