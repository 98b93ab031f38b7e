"""A report as a picture: a chip's memory by kind, and where the time of a run of the program goes."""

from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tpu.report import Report

GIB = 2**30


def draw(r: Report) -> Figure:
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    mesh = " x ".join(f"{axis} {size}" for axis, size in r.mesh.items()) or "one device"
    several = f"{r.slices} x " if r.slices > 1 else ""
    figure.suptitle(f"{r.program} on {several}{r.topology}, {mesh}: {_count(r.parameters)} parameters")
    memory, time = figure.subplots(1, 2, width_ratios=(1, 1.6))
    _memory(memory, r)
    _time(time, r)
    return figure


def _memory(axes: Axes, r: Report) -> None:
    m = r.memory
    kinds = {**m.arguments, "saved activations": m.activations, "temporaries": m.temporaries}
    at = 0.0
    unit, scale = ("GiB", GIB) if m.used > GIB / 4 else ("MiB", 2**20)
    for i, (kind, size) in enumerate((kind, size / scale) for kind, size in kinds.items() if size):
        axes.bar(0, size, 0.5, bottom=at, color=colormaps["tab10"](i), label=f"{kind}, {size:.3g} {unit}")
        at += size
    if m.used > m.available / 4:  # else it would squeeze the rest
        axes.axhline(m.available / scale, color="tab:red", ls="--", lw=1.2, label="memory of a chip")
    axes.set(
        title="HBM of a chip" if m.fits else "HBM of a chip: does not fit", ylabel=unit, xticks=(), xlim=(-0.4, 1.4)
    )
    handles, labels = axes.get_legend_handles_labels()
    axes.legend(handles[::-1], labels[::-1], fontsize=8, loc="center right", frameon=False)


def _time(axes: Axes, r: Report) -> None:
    """Bars of what each part takes by itself; the estimate across all of them."""
    t = r.time
    parts = {"compute": t.compute, "HBM": t.memory, **dict(sorted(t.network.items(), key=lambda kv: -kv[1]))}
    names = list(parts)[::-1]
    colours = ["tab:blue" if name == "compute" else "tab:green" if name == "HBM" else "tab:orange" for name in names]
    axes.barh(names, [1e3 * parts[name] for name in names], color=colours, height=0.6)
    axes.axvline(1e3 * t.step, color="black", lw=1.2, label=f"estimate {1e3 * t.step:.4g} ms")
    needed = r.model_flops / r.peak
    axes.axvline(
        1e3 * needed, color="tab:blue", lw=1.2, ls=":", label=f"the model's own FLOPs at peak {1e3 * needed:.4g} ms"
    )
    axes.set(xlabel="ms of one run, each part by itself", xlim=(0, 1.05e3 * max(t.step, *parts.values(), needed)))
    axes.set_title(f"MFU {r.mfu:.1%}, {r.tokens_per_second:,.0f} tokens/s; bound by {t.bound}")
    axes.legend(fontsize=8, loc="lower right")


def _count(n: int) -> str:
    return f"{n / 1e9:.3g}B" if n >= 1e9 else f"{n / 1e6:.3g}M"
