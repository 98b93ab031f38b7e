"""What the schedules of a pipeline need, by the compiler: memory of a train step on eight simulated devices.

    python -m benchmarks.pipelines                      # a small decoder on 4 stages x 2

One program for each schedule and number of microbatches, of the same model and the same rows a microbatch. Nothing
runs: devices of one machine say nothing about how fast a pipeline is."""

import os
import time
from typing import NamedTuple

from absl import flags

flag_values = flags.FlagValues()
ROWS, LENGTH, WIDTH, LAYERS = 4, 128, 64, 8


class Needs(NamedTuple):
    """Of a train step."""

    idle: float  # share of the time
    kept: float  # microbatches of whose forward passes a stage keeps what their backward passes need
    temporaries: int  # bytes on a device
    text: int  # bytes of the compiled program as text
    seconds: float  # to compile


def needs(schedule: str, microbatches: int, chunks: int = 1, stages: int = 4, remat: str = "none") -> Needs:
    """Of a decoder on `stages` stages, the other devices being along `data`; `ROWS` rows a microbatch."""
    from lm.parallel.pipeline import Pipelined
    from lm.train.config import default
    from lm.train.setup import assemble
    from lm.zoo.registry import knobs

    config = default()
    with config.unlocked():
        config.model = knobs("llama", layers=LAYERS, d_model=WIDTH, heads=4, vocab=384)
    config.data.update(length=LENGTH, batch_size=ROWS * microbatches)
    config.parallel.update(pipeline=stages, schedule=schedule, microbatches=microbatches, chunks=chunks)
    config.train.remat = remat
    parts = assemble(config)
    state = parts.abstract_state
    lowered, begun = parts.trainer.jitted(state).lower(state, parts.abstract_batch), time.perf_counter()
    compiled = lowered.compile()
    seconds, walk = time.perf_counter() - begun, parts.execution.walk
    assert isinstance(walk, Pipelined)
    order = walk.order(parts.sharding)
    temporaries = compiled.memory_analysis().temp_size_in_bytes
    return Needs(order.idle, walk.kept(order) / chunks, temporaries, len(compiled.as_text()), seconds)


def main(argv: list[str]) -> None:
    print(f"{LAYERS} layers of width {WIDTH} on 4 stages, {ROWS} x {LENGTH} tokens a microbatch\n")
    print("| schedule | chunks | microbatches | time idle | microbatches kept | temporaries | compiled in |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for schedule in ("gpipe", "1f1b"):
        for chunks, microbatches in ((1, 4), (1, 8), (1, 32), (2, 8)):
            n = needs(schedule, microbatches, chunks)
            cells = f"{n.idle:.1%} | {n.kept:g} | {n.temporaries / 2**20:.1f} MiB | {n.seconds:.0f} s"
            print(f"| {schedule} | {chunks} | {microbatches} | {cells} |", flush=True)


if __name__ == "__main__":
    os.environ["JAX_PLATFORMS"] = "cpu"
    os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
    from lm.commands import cli

    cli.run(main, arguments=1, flag_values=flag_values, own_code=False)
