"""From `config.mesh` and `config.parallel` to devices: the mesh with its rules, and how layers are walked on it."""

from collections.abc import Sequence

import jax
from ml_collections.config_dict import ConfigDict

from lm.core.component import components
from lm.core.ctx import Execution
from lm.core.errors import UserError, nearest
from lm.core.mesh import Sharding, make_mesh
from lm.core.rules import MESH_AXES, PRESETS, STAGE, Rules, axes_of, with_own
from lm.core.walk import Scan, Unrolled, Walk
from lm.model.stack import LayerGroup
from lm.model.transformer import LanguageModel, Model
from lm.parallel.one_forward_one_backward import OneForwardOneBackward
from lm.parallel.pipeline import Pipelined
from lm.parallel.schedule import Order


def sharding_of(config: ConfigDict, devices: Sequence[jax.Device] | None = None) -> Sharding | None:
    """The mesh of a config over these devices (default: all), with its rules; None on a single device."""
    rules = rules_of(config)
    sharding = Sharding(make_mesh(mesh_axes(config), devices), rules, config.parallel.zero)
    if sharding.mesh.size == 1:
        return None
    ways, c = sharding.ways("batch"), config.data
    parts, micro = config.train.accumulate, microbatches(config)
    if c.batch_size // parts % (ways * micro):
        cut = f"into {micro} microbatches of the pipeline " if micro > 1 else ""
        raise UserError(
            f"config.data.batch_size={c.batch_size} in {parts} part(s) does not divide {cut}over "
            f"{' x '.join(axes_of(rules, 'batch'))} = {ways} devices: make it a multiple of {ways * parts * micro}"
        )
    return sharding


def rules_of(config: ConfigDict) -> Rules:
    """The rules of `config.parallel`: own ones, then those of the preset."""
    return with_own(_own(config), PRESETS[config.parallel.rules])


def _own(config: ConfigDict) -> Rules:
    own = tuple((name, tuple(over) if isinstance(over, list) else over) for name, over in config.parallel.own_rules)
    for name, over in own:
        several = isinstance(over, tuple) and all(isinstance(axis, str) for axis in over)
        if not (over is None or isinstance(over, str) or several):
            raise UserError(
                f"config.parallel.own_rules: {name!r} goes to {over!r}; "
                "give the name of a mesh axis, several of them, or None"
            )
    return own


def mesh_axes(config: ConfigDict) -> dict[str, int]:
    """Mesh axes and sizes, outermost first: a config's own in the order in which its rules name them, then the known
    ones. (The axes of a ConfigDict have no order.)"""
    rules = rules_of(config)
    own = [axis for name, _ in config.parallel.own_rules for axis in axes_of(rules, name)]
    order = dict.fromkeys([axis for axis in own if axis not in MESH_AXES] + list(MESH_AXES))
    sizes = dict(config.mesh.items())
    for axis in sizes:
        if axis not in order:
            raise UserError(
                f"config.mesh.{axis}: no rule uses an axis of that name{nearest(axis, order)}; "
                f"rules of your own stand in config.parallel.own_rules"
            )
    for axis in own:
        if axis not in sizes and axis != STAGE:
            raise UserError(f"config.parallel.own_rules: config.mesh has no axis {axis!r}{nearest(axis, sizes)}")
    if STAGE in sizes:
        raise UserError(f"config.mesh.{STAGE} is the pipeline's: set config.parallel.pipeline={sizes[STAGE]} instead")
    sizes |= {STAGE: config.parallel.pipeline} if config.parallel.pipeline > 1 else {}
    return {axis: sizes[axis] for axis in order if axis in sizes}


def microbatches(config: ConfigDict) -> int:
    """Into how many the pipeline cuts the rows of a part; 1 without a pipeline."""
    stages = config.parallel.pipeline
    return 1 if stages == 1 else config.parallel.microbatches or stages


def execution_of(config: ConfigDict, model: Model) -> Execution:
    """How a config has its model executed.

    Raises `UserError` where its layers do not spread over the stages of the pipeline."""
    walk: Walk = Unrolled() if config.train.unroll else Scan()
    if config.parallel.pipeline > 1:
        _check_pipeline(config, model)
        walk = SCHEDULES[config.parallel.schedule](microbatches(config), config.parallel.chunks)
    train, parallel = config.train, config.parallel
    return Execution(
        train.remat,
        walk,
        remat_names=tuple(train.remat_names),
        attention=train.attention or None,
        grouped_matmul=train.grouped_matmul or None,
        cross_entropy=train.cross_entropy or None,
        context=parallel.context,
        zigzag=parallel.zigzag,
    )


SCHEDULES = {"gpipe": Pipelined, "1f1b": OneForwardOneBackward}


def _check_pipeline(config: ConfigDict, model: Model) -> None:
    stages = config.parallel.pipeline
    where = f"config.parallel.pipeline={stages}"
    if config.train.unroll:
        raise UserError(f"{where} and config.train.unroll are two ways to walk layers: set config.train.unroll=false")
    groups = [g for g in components(model) if isinstance(g, LayerGroup) and g.repeats > 1]
    if not groups:
        raise UserError(f"{where}: no layers of this model repeat, which stages could share out: set it to 1")
    order = Order(stages, microbatches(config), config.parallel.chunks)
    for repeats in sorted({g.repeats for g in groups}):
        order.check(repeats)
    if config.parallel.schedule == "1f1b" and not (isinstance(model, LanguageModel) and len(groups) == 1):
        has = f"{len(groups)} groups of layers that repeat" if len(groups) > 1 else "several towers"
        raise UserError(
            "config.parallel.schedule='1f1b' takes models of one tower with one group of layers that repeat, and this "
            f"{type(model).__name__} has {has}: take gpipe"
        )
    if config.parallel.schedule == "1f1b" and config.train.remat == "offload":
        raise UserError(
            "config.train.remat='offload' moves what is kept to the host, and config.parallel.schedule='1f1b' keeps it "
            "itself, on the device: take the remat 'names', or gpipe"
        )
