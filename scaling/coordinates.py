"""Do activations change as much in a wide or deep model as in a small one? The check that a parametrization is right.

    python -m scaling.coordinates --out=runs/width \\
        --sizes="d_model=64,heads=2; d_model=128,heads=4; d_model=256,heads=8; d_model=512,heads=16"
    python -m scaling.coordinates --out=runs/depth --sizes="layers=2; layers=4; layers=8; layers=16"

Each model of --config (experiments/quickstart.py if not given) with the knobs of one of --sizes trains for a few
steps at its peak learning rate, as it is and with the first size as `config.parametrization.base`. What each kind of
sub-layer gives, the last states and the logits are compared with what they were at step 0, on the first batch. Under
muP lines are level: an element changes by as much at any size, where under the standard parametrization it changes by
some power of the width, which is printed (Yang et al. 2022, arXiv 2203.03466, appendix D). --out gets coordinates.json
and coordinates.png."""

import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from absl import flags

from lm.commands import cli
from lm.core.errors import UserError, nearest

if TYPE_CHECKING:
    from ml_collections.config_dict import ConfigDict

DEFAULT = Path(__file__).resolve().parents[1] / "experiments" / "quickstart.py"

OWN = flags.FlagValues()  # a set of its own, so that several command lines can be imported into one process
CONFIG = cli.ConfigFlag("Experiment file, or a run's folder; experiments/quickstart.py if not given.", flag_values=OWN)
OUT = flags.DEFINE_string(
    "out", None, "Folder for coordinates.json and coordinates.png, made if absent.", flag_values=OWN
)
SIZES = flags.DEFINE_string(
    "sizes", None, "Knobs of config.model by size, the base first: d_model=64,heads=2; ...", flag_values=OWN
)
STEPS = flags.DEFINE_integer("steps", 4, "Training steps.", lower_bound=1, flag_values=OWN)

USAGE = '--out=DIR --sizes="d_model=64,heads=2; d_model=128,heads=4" [--config=FILE] [--config.a.b=VALUE ...]'

Knobs = Mapping[str, int]
Changes = dict[str, np.ndarray]  # by activation: root mean square of its change since step 0, [sizes, steps]


def sizes_of(text: str) -> list[dict[str, int]]:
    """ "d_model=64,heads=2; d_model=128,heads=4" as knobs by size. Raises `UserError`."""
    found = [dict(re.findall(r"(\w+)=(\d+)", size)) for size in text.split(";")]
    if len(found) < 2 or not all(found) or len({tuple(size) for size in found}) > 1:
        raise UserError(f"--sizes={text!r} must give the same knobs for two sizes or more, as {USAGE.split('[')[0]}")
    return [{name: int(value) for name, value in size.items()} for size in found]


def at_size(config: "ConfigDict", size: Knobs, base: Knobs) -> "ConfigDict":
    """The config with these knobs of its model, and those of the base of its parametrization, {} for none."""
    config = config.copy_and_resolve_references()
    for name, value in size.items():
        if name not in config.model:
            raise UserError(f"--sizes: config.model has no knob {name!r}{nearest(name, config.model)}")
        config.model[name] = value
    config.parametrization.base = tuple(base.items())
    return config


def changes(configs: Sequence["ConfigDict"], steps: int) -> Changes:
    """Of the models of these configs, which differ in size."""
    each = [_changes(config, steps) for config in configs]
    return {name: np.array([found[name] for found in each]) for name in each[0]}


def _changes(config: "ConfigDict", steps: int) -> dict[str, list[float]]:
    import jax
    import jax.numpy as jnp

    from lm.core.ctx import Ctx
    from lm.core.param import flatten
    from lm.model.transformer import head_ctx
    from lm.train.optim.schedule import ConstantRate
    from lm.train.prefetch import DevicePrefetcher
    from lm.train.setup import assemble

    parts = assemble(config, sharding=None, schedule=ConstantRate(warmup=0))
    model, batches = parts.model, DevicePrefetcher(parts.batches, None)
    first = next(batches)

    @jax.jit
    def activations(params: Any) -> dict[str, Any]:
        ctx = Ctx(record=frozenset({"sublayer"}))
        states, _, aux = model.hidden(params, first, ctx)
        logits = model.logits(params, states, head_ctx(Ctx(), first))
        taps = {path.removesuffix("/sublayer"): x for path, x in flatten(aux) if path.endswith("/sublayer")}
        return taps | {"states": states} | {f"logits/{p}".rstrip("/"): x for p, x in flatten(logits)}

    state = parts.trainer.init(parts.hyper)
    step, before = parts.trainer.jitted(state), activations(state.params)
    found: dict[str, list[float]] = {name: [] for name in before}
    batch = first
    for _ in range(steps):
        state, _ = step(state, batch)
        batch, now = next(batches), activations(state.params)
        for name, x in now.items():
            found[name].append(float(jnp.sqrt(jnp.mean(jnp.square(x - before[name])))))
    return found


def slopes(sizes: Sequence[float], found: Changes) -> dict[str, float]:
    """The power of the size with which each activation's change grows, after the last step."""
    return {name: float(np.polyfit(np.log(sizes), np.log(change[:, -1]), 1)[0]) for name, change in found.items()}


def main(argv: list[str]) -> None:
    if not OUT.value or not SIZES.value:
        raise UserError(cli.lacking("sizes" if OUT.value else "out", usage=USAGE))
    sizes = sizes_of(SIZES.value)
    from lm.train.config_file import read_config  # JAX starts here, not for --help
    from lm.train.override import override

    from .plots import save
    from .plots.coordinates import coordinates

    config = read_config(CONFIG.file or DEFAULT)
    for line in override(config, CONFIG.knobs):
        print(line, file=sys.stderr)
    what, values = next(iter(sizes[0])), [next(iter(size.values())) for size in sizes]
    found, powers = {}, {}
    for name, base in {"standard": {}, "muP": sizes[0]}.items():
        found[name] = changes([at_size(config, size, base) for size in sizes], STEPS.value)
        powers[name] = slopes(values, found[name])
        print(f"{name}: change ~ {what}^p, p = " + ", ".join(f"{p:+.2f} ({at})" for at, p in powers[name].items()))
    out = Path(OUT.value).expanduser()
    out.mkdir(parents=True, exist_ok=True)
    record = {name: {at: x.tolist() for at, x in change.items()} for name, change in found.items()}
    saved = {"sizes": sizes, "changes": record, "slopes": powers}
    (out / "coordinates.json").write_text(json.dumps(saved, indent=1) + "\n")
    save(coordinates(values, found, what), out / "coordinates.png")
    print(f"plot: {out / 'coordinates.png'}")


if __name__ == "__main__":
    cli.run(main, usage=USAGE, flag_values=OWN)
