"""Predict a run that nobody made: how large, on how many tokens, and at what loss, with honest intervals.

    python -m scaling.predict --fit=runs/fit/fit.json --flops=1e24              the best size and tokens, and the loss
    python -m scaling.predict --fit=fit.json --params=7e9 --tokens=2e12         the loss of a given run
    python -m scaling.predict --fit=fit.json --flops=1e22 --inference_tokens=1e12
    python -m scaling.predict --fit=fit.json --flops=1e15 --config=experiments/sweep.py --out=run.json
    python -m lm.train --config=run.json --workdir=runs/predicted

--fit is what python -m scaling.fit wrote. Each value comes with two intervals: of the fit (the constants of the law are
known so well and no better) and, for the loss, of one run (that, and the scatter of runs about the law). Neither
counts that the law itself may fail: the further a run lies beyond those that were fitted, which is told, the less they
mean. FLOPs are 6 N D, as the law's frontier has them.

--inference_tokens are all that the model will read and write in its life: the size and tokens of least training and
inference together, for the loss of the compute-optimal model (Sardana et al. 2024, arXiv 2401.00448).

--out is a config for python -m lm.train, or python -m tpu.plan, of the first --flops (or of --params and --tokens): the
nearest shape of the ladder that --config's models stand on, on as many tokens as the compute pays for, with learning
rate, batch and the rest by --rule (scaling/rules.py)."""

import json
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import flags

from lm.commands import cli
from lm.core.errors import UserError

if TYPE_CHECKING:
    from .engine import Estimate, Interval
    from .laws import Frontier

DEFAULT = Path(__file__).resolve().parents[1] / "experiments" / "sweep.py"

OWN = flags.FlagValues()  # a set of its own, so that several command lines can be imported into one process
CONFIG = cli.ConfigFlag(
    "Of --out: the sweep whose models it is like; experiments/sweep.py if not given.", flag_values=OWN
)
FIT = flags.DEFINE_string("fit", None, "The fit.json of python -m scaling.fit.", flag_values=OWN)
FLOPS = flags.DEFINE_list("flops", [], "Training FLOPs, 6 N D: one or more, 1e21,1e22.", flag_values=OWN)
PARAMS = flags.DEFINE_float("params", None, "Parameters of a given run, with --tokens.", 1, flag_values=OWN)
TOKENS = flags.DEFINE_float("tokens", None, "Training tokens of a given run, with --params.", 1, flag_values=OWN)
INFERENCE = flags.DEFINE_float(
    "inference_tokens", None, "Tokens that the model will read and write once trained.", 0, flag_values=OWN
)
LEVEL = flags.DEFINE_float("interval", 90.0, "Percent that an interval holds.", 1.0, 99.9, flag_values=OWN)
RULE = flags.DEFINE_string(
    "rule", "width", "Of --out, for learning rate and batch: width, deepseek, porian, steplaw.", flag_values=OWN
)
ASPECT = flags.DEFINE_float(
    "aspect", 0.0, "Of --out: width per layer; 0: that of a head, a layer per head.", 0, flag_values=OWN
)
OUT = flags.DEFINE_string("out", None, "Write the config of the predicted run to this JSON file.", flag_values=OWN)

USAGE = "--fit=FILE (--flops=X[,Y] | --params=N --tokens=D) [--config=FILE] [--config.a.b=VALUE ...] [--out=FILE]"
FAR = 100.0  # times the largest run's compute: laws were seen to hold over a factor of 30 to 300 (2403.08540)


def main(argv: list[str]) -> None:
    if not FIT.value:
        raise UserError(cli.lacking("fit", OWN, USAGE))
    if (PARAMS.value is None) != (TOKENS.value is None):
        given, other = ("params", "tokens") if TOKENS.value is None else ("tokens", "params")
        raise UserError(f"--{given} needs --{other} beside it: a run has a size and a length")
    budgets = [_flops(text) for text in FLOPS.value]
    if not budgets and PARAMS.value is None:
        raise UserError(f"give --flops, or --params and --tokens; usage: python -m scaling.predict {USAGE}")
    from .fit_file import read_fit

    known = read_fit(FIT.value, "fit")
    print(told(known, budgets, PARAMS.value, TOKENS.value, INFERENCE.value, LEVEL.value))
    if OUT.value:
        _write(known, budgets)


def _flops(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise UserError(f"--flops={text}: give positive numbers, such as 1e21,1e22")
    return value


def told(
    known: "Estimate[Frontier]",
    budgets: list[float],
    params: float | None,
    tokens: float | None,
    inference: float | None,
    level: float,
) -> str:
    """What is predicted, as a person reads it."""
    law = known.law
    lines = [f"{law.formula}; {level:g} % intervals"]
    if known.resampled is None:
        lines.append("the fit has no resamples, so nothing is known of its error: fit again with --bootstrap=200")
    for flops in budgets:
        n, d = (float(v) for v in law.optimal(flops))
        lines += [f"\n{flops:.4g} FLOPs{_beyond(known, n, d)}:"]
        decided = known.decisions(flops, level)
        lines += [_row(name, decided[name]) for name in ("N_opt", "D_opt", "D/N")]
        lines += _losses(known, n, d, level)
        if inference is not None:
            lines += _deployed(known, flops, inference, level)
    if params is not None and tokens is not None:
        flops = 6 * params * tokens
        lines += [
            f"\n{params:.4g} parameters on {tokens:.4g} tokens, {flops:.4g} FLOPs{_beyond(known, params, tokens)}:"
        ]
        lines += [f"{'D/N':>8}  {tokens / params:.4g}", *_losses(known, params, tokens, level)]
        best = float(law.predict(*law.optimal(flops)))
        excess = float(law.predict(params, tokens)) - best
        lines.append(f"          the best size for these FLOPs: {best:.4f}, {excess:.4f} less")
    return "\n".join(lines)


def _losses(known: "Estimate[Frontier]", n: float, d: float, level: float) -> list[str]:
    """Of the fit, and of one run."""
    p = known.predict(n, d, level=level)
    return [
        f"{'loss':>8}  {float(p.value):.4f}   {float(p.low):.4f} to {float(p.high):.4f} by the fit",
        f"{'':>8}  {'':6}   {float(p.run_low):.4f} to {float(p.run_high):.4f} of one run",
    ]


def _deployed(known: "Estimate[Frontier]", flops: float, inference: float, level: float) -> list[str]:
    """The cheapest model over its life that is as good as the compute-optimal one."""
    from .engine.estimate import interval
    from .laws import cheapest

    n, d = known.law.optimal(flops)
    found = cheapest(known.law, known.law.predict(n, d), inference)
    resampled: list[Any] = [None] * 3
    if known.resampled is not None:
        laws = _sound(known.resampled)
        resampled = list(cheapest(laws, laws.predict(*laws.optimal(flops)), inference))
    whole = 6 * n * d + 2 * n * inference
    lines = [f"  as good at least cost with {inference:.4g} tokens of inference:"]
    for name, value, values in zip(("N", "D", "FLOPs"), found, resampled, strict=True):
        lines.append(_row(name, interval(value, values, level)))
    lines.append(
        f"{'':>8}  of both together {1 - float(found.flops / whole):.1%} less than with the best size for training"
    )
    return lines


def _row(name: str, i: "Interval") -> str:
    between = "" if math.isnan(i.low) else f"   {i.low:.4g} to {i.high:.4g}"
    return f"{name:>8}  {i.value:.4g}{between}"


def _beyond(known: "Estimate[Frontier]", n: float, d: float) -> str:
    """How far beyond the runs that were fitted, in words."""
    ranges = known.ranges
    most_n, most_d, most_flops = (ranges[name][1] for name in ("params", "tokens", "flops"))
    compute = 6 * n * d / most_flops
    far = "; so far out the intervals mean little" if compute > FAR else ""
    return f" ({compute:.3g} x the largest run's, N {n / most_n:.3g} x, D {d / most_d:.3g} x{far})"


def _sound(laws: "Frontier") -> "Frontier":
    """Those of arrays [resamples] that have a frontier."""
    return type(laws)(**{name: values[laws.sound] for name, values in laws.constants().items()})


def _write(known: "Estimate[Frontier]", budgets: list[float]) -> None:
    """The config of the first run that was asked for."""
    from lm.core.formats import KEY, RUN
    from lm.runs.config_json import plain
    from lm.train.config_file import read_config
    from lm.train.override import override
    from lm.train.show_config import size_notes

    from .cells import default
    from .design.making import Template, run_config
    from .ladder import ladder_of, nearest_rung

    config = read_config(CONFIG.file or DEFAULT, default)
    for line in override(config, CONFIG.knobs) + size_notes(config):
        print(line, file=sys.stderr)
    template = Template.of(config, RULE.value)
    n = PARAMS.value or float(known.law.optimal(budgets[0])[0])
    rung = nearest_rung(config, ladder_of(config, ASPECT.value), n, template.lengths)
    tokens = TOKENS.value or budgets[0] / (6 * rung.params)
    run = run_config(template, rung, tokens)
    path = Path(str(OUT.value)).expanduser()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({KEY: RUN.number, **plain(run)}, indent=2) + "\n", encoding="utf-8")
    except OSError as e:
        raise UserError(f"--out={path}: cannot write there ({e.strerror}); name another file") from e
    trained = run.train.steps * run.data.batch_size * template.row
    expected = known.predict(rung.params, trained, level=LEVEL.value)
    print(
        f"\nwrote {path}: {rung.name}, {rung.params:,} parameters, {run.train.steps:,} steps of {run.data.batch_size} "
        f"rows of {template.row} tokens, learning rate {run.optimizer.learning_rate:.3g}; it should end at "
        f"{float(expected.value):.4f} ({float(expected.run_low):.4f} to {float(expected.run_high):.4f})\n"
        f"to train it: python -m lm.train --config={path} --workdir=DIR"
    )


if __name__ == "__main__":
    cli.run(main, usage=USAGE, flag_values=OWN)
