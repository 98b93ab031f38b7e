"""Rules: which mesh axes cut which logical axes. Models know the logical names only, and meshes their own."""

from lm.core.errors import UserError, nearest

Rule = tuple[str, str | tuple[str, ...] | None]  # logical axis, the mesh axes that cut it
Rules = tuple[Rule, ...]

SLICE = "slice"  # the axis between groups of devices that a slower network connects: several TPU slices
STAGE = "stage"  # the axis over which a pipeline spreads repeated layers
FSDP = "fsdp"  # the axis over which ZeRO shares parameters, gradients and optimizer state out
# As they are laid out, outermost first. Those of depth, row and column are for the presets that cut weights twice.
MESH_AXES = (SLICE, STAGE, "data", FSDP, "expert", "context", "depth", "row", "column", "tensor")

ROWS = (SLICE, "data", FSDP, "expert")  # axes along which devices have rows of their own


def _hidden(axis: str) -> Rules:
    return tuple((name, axis) for name in ("vocab", "heads", "kv_heads", "mlp"))


def _rules(
    batch: tuple[str, ...] = ROWS,
    hidden: str = "tensor",
    embed: tuple[str, ...] = (FSDP,),
    seq: tuple[str, ...] = ("context",),
) -> Rules:
    """Those that cut rows, what lies within a sub-layer, the model's width and the sequence by these axes."""
    return (
        ("batch", batch),
        ("expert", "expert"),
        *_hidden(hidden),
        ("embed", embed),
        ("seq", seq),
        ("layers", STAGE),
        ("position", None),
    )


# A mesh axis cuts one axis of a tensor. Where several want it, the rule that stands first has it: activations
# [batch, seq, embed] use fsdp for batch, weights [embed, mlp] for embed. A logical axis may have several rules.
RULES: Rules = _rules()

PRESETS: dict[str, Rules] = {
    "default": RULES,
    # Between the sub-layers, where the tensor axis has nothing else to cut, it cuts the sequence (sequence parallelism,
    # Korthikanti et al. 2022, arXiv 2205.05198).
    "sequence": _rules(seq=("context", "tensor")),
    # Devices in a grid of row x column: both cut weights, `row` the batch, and `column` whatever width activations have
    # (Xu et al. 2021, arXiv 2104.05343).
    "2d": _rules(batch=(*ROWS, "row"), hidden="column", embed=(FSDP, "row", "column")),
    # As many such grids as `depth`, each with rows of its own and all of the weights (Wang et al. 2021, arXiv
    # 2105.14500).
    "2.5d": _rules(batch=(*ROWS, "depth", "row"), hidden="column", embed=(FSDP, "row", "column")),
    # Devices in a cube, of which all three axes cut every tensor. From one product to the next `column` and `depth`
    # change places: one cuts the width that is summed over, the other the width that comes out (Bian et al. 2021, arXiv
    # 2105.14450). So they go to the widths before the batch, which has what is left.
    "3d": (
        ("embed", "column"),
        *_hidden("depth"),
        *_rules(batch=(*ROWS, "row", "depth", "column"), hidden="depth", embed=(FSDP, "row")),
    ),
}


def with_own(own: Rules, preset: Rules = RULES) -> Rules:
    """A preset's rules, with those in `own` in place of the ones for the same logical axes; of others, before them."""
    given, known = {name for name, _ in own}, {name for name, _ in preset}
    rules = [rule for rule in own if rule[0] not in known]
    for rule in preset:
        rules += [mine for mine in own if mine[0] == rule[0] and mine not in rules] if rule[0] in given else [rule]
    return tuple(rules)


def axes_of(rules: Rules, name: str) -> tuple[str, ...]:
    """The mesh axes that may cut a logical axis. Raises `UserError` if no rule covers it."""
    found = [over for logical, over in rules if logical == name]
    if not found:
        raise UserError(f"no sharding rule covers the logical axis {name!r}{nearest(name, dict(rules))}")
    return tuple(dict.fromkeys(axis for over in found for axis in as_axes(over)))


def as_axes(over: str | tuple[str, ...] | None) -> tuple[str, ...]:
    """What a rule, or a part of a `PartitionSpec`, says as a tuple of mesh axes."""
    return (over,) if isinstance(over, str) else tuple(over or ())
