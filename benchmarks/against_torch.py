"""Tokens per second of training and decoding, ours against PyTorch and transformers, on this machine.

    make bench                                                          # about 20 minutes on two cores
    python -m benchmarks.against_torch --torch=.venv/torch/bin/python   # what that runs, once .venv/torch is made
    python -m benchmarks.against_torch --torch=PYTHON --shapes=tiny --rounds=1
    make bench KNOBS="--dtype=float32 --nodecoding"                     # for a processor that cannot multiply bfloat16

The two sides are two processes in environments of their own, of which one works at a time; every variant takes its turn
in every round, so that a machine whose speed drifts treats them alike. Read the ratios of the medians. Both train the
same plain GPT (tied head, biases, GELU, AdamW, gradient clipping) on the same number of tokens; torch's step is
nanoGPT's: scaled_dot_product_attention and fused AdamW. MFU is against our float32 matmul peak of the same run."""

import json
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from absl import flags
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from benchmarks.protocol import DECODE, MATMUL, SHAPES, Shape
from lm.commands import cli
from lm.core.errors import UserError, nearest
from lm.inspect.cost import training_flops
from lm.zoo.gpt2 import gpt2

HERE = Path(__file__).parent
DTYPES = ("float32", "bfloat16")
OURS = tuple(f"lm {dtype}" for dtype in DTYPES)
THEIRS = tuple(f"torch {how} {dtype}" for dtype in DTYPES for how in ("eager", "compile"))
Seconds = dict[tuple[str, str], list[float]]  # (variant, shape) -> seconds per call, one a round


class Side:
    """A process that times variants."""

    def __init__(self, *command: str) -> None:
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def seconds(self, variant: str, shape: str, calls: int) -> float:
        assert self._process.stdin and self._process.stdout
        print(json.dumps([variant, shape, calls]), file=self._process.stdin, flush=True)
        answer = self._process.stdout.readline()
        if not answer:
            raise SystemExit(f"{variant} at {shape}: the process ended with status {self._process.wait()}")
        return json.loads(answer)

    def close(self) -> None:
        self._process.communicate()


def measure(shapes: list[str], rounds: int, torch_python: str, dtypes: list[str], decoding: bool) -> Seconds:
    ours = Side(sys.executable, "-m", "benchmarks.jax_side")
    theirs = Side(torch_python, str(HERE / "torch_side.py"))
    work = [("XLA float32 matmul", shapes[0], ours), ("torch float32 matmul", shapes[0], theirs)]
    for shape in shapes:
        sides = [(v, ours) for v in OURS] + [(v, theirs) for v in THEIRS]
        work += [(v, shape, side) for v, side in sides if v.split()[-1] in dtypes]
        for n in DECODE.rows if decoding else ():
            work += [(f"lm decoding, batch {n}", shape, ours), (f"transformers generate, batch {n}", shape, theirs)]
    found: Seconds = {(v, s): [] for v, s, _ in work}
    with Progress(console=Console(stderr=True)) as progress:
        task = progress.add_task("compiling", total=len(work) * (rounds + 1))
        for turn in range(rounds + 1):
            for variant, shape, side in work:
                progress.update(task, description=f"{variant}, {shape}" + ("" if turn else " (compiling)"))
                seconds = side.seconds(variant, shape, 2 if turn else 1)
                if turn:  # the first round compiles and warms up
                    found[variant, shape].append(seconds)
                progress.advance(task)
    ours.close()
    theirs.close()
    return found


def flops_of(s: Shape) -> float:
    """Per token of a training step."""
    model = gpt2(layers=s.layers, d_model=s.d, heads=s.heads, vocab=s.vocab, context=s.length)
    return training_flops(model, s.length) / s.length


def report(found: Seconds, shapes: list[str]) -> list[dict]:
    """A record for each variant and shape: tokens/s, MFU of training, and the ratio to the best rival."""
    median = {key: statistics.median(times) for key, times in found.items()}
    peak = 2 * MATMUL**3 / median["XLA float32 matmul", shapes[0]]
    records = []
    for shape in shapes:
        s = SHAPES[shape]
        ours, theirs = ([v for v in variants if (v, shape) in median] for variants in (OURS, THEIRS))
        groups = [(v, [t for t in theirs if v.split()[-1] in t]) for v in ours] + [("best of lm", theirs)]
        rates = {v: s.tokens / median[v, shape] for v in ours + theirs}
        rates["best of lm"] = max(rates[v] for v in ours)
        for variant, rivals in groups:
            records.append({"shape": shape, "what": variant, "ratio": rates[variant] / max(rates[r] for r in rivals)})
        records += [{"shape": shape, "what": v} for v in theirs]
        for r in records:
            if r["shape"] == shape and r["what"] in rates:
                r["tokens_per_second"] = rates[r["what"]]
                r["mfu"] = rates[r["what"]] * flops_of(s) / peak
        for n in DECODE.rows:
            our, their = f"lm decoding, batch {n}", f"transformers generate, batch {n}"
            if (our, shape) in median:
                speed = {v: n * DECODE.new / median[v, shape] for v in (our, their)}
                records.append({"shape": shape, "what": our, "tokens_per_second": speed[our]})
                records[-1]["ratio"] = speed[our] / speed[their]
                records.append({"shape": shape, "what": their, "tokens_per_second": speed[their]})
    return records


def plot(records: list[dict], png: Path) -> None:
    shapes = list(dict.fromkeys(r["shape"] for r in records))
    figure, axes = plt.subplots(1, len(shapes), figsize=(6 * len(shapes), 4.5), layout="constrained", squeeze=False)
    for ax, shape in zip(axes[0], shapes, strict=True):
        chosen = [r for r in records if r["shape"] == shape and "mfu" in r and r["what"] != "best of lm"][::-1]
        colors = ["tab:blue" if r["what"].startswith("lm") else "tab:gray" for r in chosen]
        bars = ax.barh([r["what"] for r in chosen], [r["tokens_per_second"] for r in chosen], color=colors)
        ax.bar_label(bars, [f"{r['tokens_per_second']:,.0f}" for r in chosen], padding=3)
        s = SHAPES[shape]
        ax.set(title=f"training, d {s.d}, {s.layers} layers, {s.rows} x {s.length} tokens", xlabel="tokens per second")
        ax.margins(x=0.15)
    figure.savefig(png, dpi=120)
    plt.close(figure)


FLAGS = flags.FlagValues()
TORCH = flags.DEFINE_string("torch", None, "A Python that has torch and transformers.", flag_values=FLAGS)
SIZES = flags.DEFINE_list("shapes", "d256,d512", f"Models, of {', '.join(SHAPES)}.", flag_values=FLAGS)
ROUNDS = flags.DEFINE_integer("rounds", 5, "Turns that each variant takes.", lower_bound=1, flag_values=FLAGS)
KINDS = flags.DEFINE_multi_enum("dtype", DTYPES, DTYPES, "Of training; may be repeated.", flag_values=FLAGS)
DECODING = flags.DEFINE_bool("decoding", True, "Time cached decoding, too.", flag_values=FLAGS)
OUT = flags.DEFINE_string("out", "runs/bench", "Folder of bench.json and bench.png.", flag_values=FLAGS)

USAGE = "--torch=PYTHON [--shapes=d256,d512] [--rounds=N] [--dtype=float32] [--out=DIR]"


def main(argv: list[str]) -> None:
    shapes, out = SIZES.value, Path(OUT.value).expanduser()
    if TORCH.value is None:
        raise UserError(cli.lacking("torch", FLAGS, USAGE))
    if shutil.which(TORCH.value) is None:
        raise UserError(f"--torch={TORCH.value} is no program: `make bench` makes .venv/torch/bin/python")
    if unknown := [s for s in shapes if s not in SHAPES]:
        raise UserError(f"--shapes: {unknown[0]} is unknown{nearest(unknown[0], SHAPES)}")
    found = measure(shapes, ROUNDS.value, TORCH.value, KINDS.value, DECODING.value)
    records = report(found, shapes)
    out.mkdir(parents=True, exist_ok=True)
    seconds = [{"variant": v, "shape": s, "seconds": times} for (v, s), times in found.items()]
    (out / "bench.json").write_text(json.dumps({"records": records, "seconds": seconds}, indent=1))
    plot(records, out / "bench.png")
    rate = {v: 2 * MATMUL**3 / statistics.median(found[v, shapes[0]]) / 1e9 for v, _ in list(found)[:2]}
    console = Console()
    console.print(", ".join(f"{v}: {r:,.0f} GFLOP/s" for v, r in rate.items()) + f"; {ROUNDS.value} rounds, medians")
    table = Table("shape", "variant", "tokens/s", "MFU", "against the best rival", box=None, pad_edge=False)
    for r in records:
        table.add_row(
            r["shape"], r["what"], f"{r['tokens_per_second']:,.0f}", f"{r['mfu']:.0%}" if "mfu" in r else "",
            f"{r['ratio']:.2f}" if "ratio" in r else "",
        )  # fmt: skip
    console.print(table)
    console.print(f"{out / 'bench.png'}, {out / 'bench.json'}")


if __name__ == "__main__":
    cli.run(main, usage=USAGE, flag_values=FLAGS, own_code=False)
