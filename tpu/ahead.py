"""Compiling a step ahead of time, for a pod that is not here: `report` says what it needs and does there."""

import dataclasses
import importlib.metadata
import pickle
import time
from pathlib import Path

from ml_collections.config_dict import ConfigDict

from tpu.topology import chip_of, devices, generation_of, quiet_stderr  # isort: skip  # sets up this process before jax

import jax
from jax.experimental import serialize_executable

from lm.core.errors import UserError
from lm.core.param import count
from lm.train.config import check
from lm.train.setup import assemble
from tpu.hbm import Dump, dumping
from tpu.report import Report, analyse
from tpu.steps import STEPS, Step


@dataclasses.dataclass(frozen=True)
class Options:
    """step: a name of `tpu.steps.STEPS`; batch, length: rows and tokens of what is served, 0: as in training; price: US
    dollars per chip and hour; hlo, executable: files to which the compiled program is written, as XLA's text, and as a
    pickle of what `jax.experimental.serialize_executable.serialize` returns."""

    step: str = "train"
    batch: int = 0
    length: int = 0
    price: float = 0.0
    hlo: str | None = None
    executable: str | None = None


def report(config: ConfigDict, topology: str, options: Options = Options()) -> Report:
    """Compile a step of `config` for `topology`, of which there are as many slices as config.mesh.slice says.

    Raises `UserError` for what cannot be compiled. A program that does not fit is no error: the report says so."""
    check(config)
    chip, pod = chip_of(topology), devices(topology, config.mesh.slice)
    parts = assemble(config, devices=pod)
    served = {} if options.step == "train" else {"rows": options.batch, "length": options.length}
    step = STEPS[options.step](parts, **served)
    start = time.perf_counter()
    with dumping() as dump:
        compiled = compile_or_none(step, dump)
        seconds = time.perf_counter() - start
        found = analyse(compiled, step.mesh, generation_of(topology), chip, step.arguments, dump)
        if options.hlo is not None:
            Path(options.hlo).write_text(dump.program if compiled is None else compiled.as_text() or "")
    if options.executable is not None:
        if compiled is None:
            raise UserError(f"--executable={options.executable}: the program does not fit, so there is none to write")
        Path(options.executable).write_bytes(pickle.dumps(serialize_executable.serialize(compiled)))
    return Report(
        program=step.name,
        topology=topology,
        chips=len(pod),
        slices=config.mesh.slice,
        mesh={k: v for k, v in step.mesh.shape.items() if v > 1},
        parameters=count(parts.model.spec()),
        tokens=step.tokens,
        memory=found.memory,
        flops=found.work.flops,
        model_flops=step.flops / len(pod),
        bytes=found.work.hbm,
        host_bytes=found.work.host,
        collectives=found.collectives,
        time=found.time,
        peak=chip.flops,
        compile_seconds=round(seconds, 1),
        versions={"JAX": jax.__version__, "libtpu": importlib.metadata.version("libtpu")},
        price=options.price,
        notes=found.work.notes,
    )


def compile_or_none(step: Step, dump: Dump) -> jax.stages.Compiled | None:
    """None where the program needs more memory than a chip has; `dump` knows it all the same."""
    with quiet_stderr():
        try:
            return step.lowered.compile(compiler_options=dump.options)
        except jax.errors.JaxRuntimeError as e:
            if "RESOURCE_EXHAUSTED" not in str(e) or not dump.program:
                raise
            return None
