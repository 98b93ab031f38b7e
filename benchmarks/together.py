"""Runs of a sweep that train together under jax.vmap, beside each for itself: CPU time of a step, by width.

    python -m benchmarks.together                       # on one core; about five minutes, most of them compilation

`scaling.training.together` decides by this. CPU time, of a process with one core, hardly depends on what else the
machine does."""

import os
import time

from absl import flags

flag_values = flags.FlagValues()
SHAPES, MEMBERS, SECONDS = ((16, 2), (24, 2), (32, 2), (48, 3)), (1, 3, 6), 4.0


def seconds_of(shape: tuple[int, int], members: int) -> float:
    """CPU seconds of a step of so many members, 4 rows of 128 tokens each."""
    import jax

    from experiments.isoflop import get_config
    from lm.train.setup import assemble
    from scaling.cells import Cell
    from scaling.training import Members
    from scaling.trunks import trunks_of

    config = get_config()
    cells = [Cell(*shape, 512_000, None, 0.01 / (i + 1), 4, 0, 0.99, 0.1) for i in range(members)]
    trunks = trunks_of(config, cells, (config.data.length, 0), 10**7)
    parts = assemble(trunks[0].config, model=trunks[0].size.model)
    runs = Members(trunks, parts.data, parts.objective)
    state, batch = runs.start(), jax.device_put(parts.batches.batch(0))
    state, measured = runs.step(state, batch)
    jax.block_until_ready(measured)
    begun, spent, steps = time.perf_counter(), time.process_time(), 0
    while time.perf_counter() < begun + SECONDS:
        state, measured = runs.step(state, batch)
        jax.block_until_ready(measured)
        steps += 1
    return (time.process_time() - spent) / steps


def main(argv: list[str]) -> None:
    print("| width, layers |" + "".join(f" {m} together |" for m in MEMBERS))
    print("| --- |" + " --- |" * len(MEMBERS))
    for shape in SHAPES:
        alone, *others = (seconds_of(shape, m) / m for m in MEMBERS)
        cells = [f"{alone * 1e3:.2f} ms a step"] + [f"{s / alone:.2f} times that for each" for s in others]
        print(f"| {shape[0]}, {shape[1]} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1])  # before JAX counts them
    os.environ["JAX_PLATFORMS"] = "cpu"
    from lm.commands import cli

    cli.run(main, arguments=1, flag_values=flag_values, own_code=False)
