"""TPU topologies to compile for, on a machine that has no TPU. Needs libtpu (`pip install "pure-lm[tpu]"`)."""

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator

# Before jax is imported: this process runs on the CPU, and libtpu must not ask a metadata server what machine it is on.
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")  # a lock keeps TPUs to one process; compiling needs none

import jax
from jax.experimental import topologies

from lm.core.errors import UserError, nearest
from lm.train.chips import TPUS, Chip

CHIPS = {name: chip for name, chip in TPUS.items() if name not in ("v2", "v3")}  # which libtpu compiles for


def generation_of(topology: str) -> str:
    return topology.split(":")[0]


def chip_of(topology: str) -> Chip:
    name = generation_of(topology)
    if name not in CHIPS:
        raise UserError(f"topology {topology!r}: no TPU generation {name!r}{nearest(name, CHIPS)}; write it as v5e:4x4")
    return CHIPS[name]


@contextlib.contextmanager
def quiet_stderr() -> Iterator[None]:
    """Keep standard error, C++'s included, from the user: libtpu warns at length about metadata that is not there.
    What was written is shown after all when an exception leaves the block."""
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)
        try:
            yield
        except UserError:
            raise
        except BaseException:
            file.seek(0)
            os.write(kept, file.read())
            raise
        finally:
            sys.stderr.flush()
            os.dup2(kept, 2)
            os.close(kept)


def devices(topology: str, slices: int = 1) -> list[jax.Device]:
    """The devices of e.g. "v5e:4x4", "v5p:4x4x4" or "v6e:16x16", slice by slice: they compile, they do not run."""
    chip_of(topology)
    with quiet_stderr():
        try:
            several = {"num_slices": slices} if slices > 1 else {}
            description = topologies.get_topology_desc(platform="tpu", topology_name=topology, **several)
        except (RuntimeError, ValueError, NotImplementedError) as e:
            reason = " ".join(str(e).split())[:200]
            missing = "libtpu" in reason or "not installed" in reason
            hint = 'install libtpu: pip install "jax[tpu]"' if missing else "write it as v5e:4x4 or v5p:4x4x4"
            raise UserError(f"topology {topology!r} is not to be had ({reason}): {hint}") from e
    return list(description.devices)
