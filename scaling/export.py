"""Writes run records, or any table of runs, as Parquet, for pandas, DuckDB and their like (extra `data`).

    python -m scaling.export runs/sweep/runs.jsonl --out=runs.parquet

What reads records (`scaling.fit`) reads the file too.
"""

from pathlib import Path

from absl import flags

from lm.commands import cli
from lm.core.errors import UserError

from .tables import read_rows, write_parquet

OUT = flags.DEFINE_string("out", None, "File to write.")

USAGE = "RUNS --out=FILE.parquet"


def main(argv: list[str]) -> None:
    if len(argv) < 2:
        raise UserError(f"give the file of the runs: python -m scaling.export {USAGE}")
    if not OUT.value:
        raise UserError(cli.lacking("out", usage=USAGE))
    if Path(OUT.value).suffix != ".parquet":
        raise UserError(f"--out={OUT.value} is written as Parquet: let its name end in .parquet")
    rows = read_rows(Path(argv[1]).expanduser())
    write_parquet(rows, Path(OUT.value).expanduser())
    print(f"wrote {OUT.value}: {len(rows)} runs")


if __name__ == "__main__":
    cli.run(main, 1, USAGE)
