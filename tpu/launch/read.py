"""The launch file: a job, and the places where it may run."""

from collections.abc import Mapping
from pathlib import Path

from lm.core.component import from_dict
from lm.core.errors import UserError, nearest
from lm.train.config_file import read_python
from tpu.launch import gke, hosts, slurm, tpu_vm  # noqa: F401  their places
from tpu.launch.job import Job
from tpu.launch.place import Place


def read(path: str, on: str) -> tuple[Job, Place]:
    """The job of a file's get_config(), and its place of that name. Raises `UserError`."""
    name, _, argument = path.partition(":")
    config = read_python(Path(name), *([argument] if argument else [])).to_dict()
    for part in ("job", "places"):
        if not isinstance(config.get(part), Mapping):
            raise UserError(f"launch file {name} has no {part}: it needs job={{..}} and places={{name: {{..}}}}")
    places = config["places"]
    if on not in places:
        raise UserError(f"--on={on}: {name} has no place of that name{nearest(on, places)}; it has {', '.join(places)}")
    job = from_dict({"type": "Job", **config["job"]}, "job")
    place = from_dict(places[on], f"places.{on}")
    if not (hasattr(place, "files") and hasattr(place, "steps")):
        raise UserError(f"places.{on} is no place: give it the type QueuedResource, JobSet, Xpk, Slurm or Hosts")
    return job, place
