"""What `--dry-run` prints for the places of the example, which stands in tests/golden/launch/:

python -m tests.tpu.render_launch   # writes it anew: read the difference before you commit it"""

import shlex
from pathlib import Path

from tpu.launch.example import get_config
from tpu.launch.read import read

EXAMPLE = "tpu/launch/example.py"
GOLDEN = Path(__file__).parents[1] / "golden" / "launch"
PLACES = tuple(get_config().places)


def rendered(on: str) -> str:
    """The files of a place, and the commands of each action."""
    job, place = read(str(Path(__file__).parents[2] / EXAMPLE), on)
    parts = [f"# {name}\n{text}" for name, text in place.files(job).items()]
    for action in place.actions:
        if action != "keep":  # which is made of the others
            lines = [f"$ {shlex.join(step.command)}\n" for step in place.steps(action, job, "folder")]
            parts.append(f"# --do={action}\n{''.join(lines)}")
    return "\n".join(parts)


if __name__ == "__main__":
    GOLDEN.mkdir(exist_ok=True)
    for name in PLACES:
        (GOLDEN / f"{name}.txt").write_text(rendered(name), encoding="utf-8")
