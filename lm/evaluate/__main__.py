"""How well a trained model predicts text: nats per token, perplexity, bits per byte.

    python -m lm.evaluate --checkpoint=runs/quickstart                      # the run's own validation data
    python -m lm.evaluate --checkpoint=runs/quickstart --data=notes.txt     # another text, all of it
    python -m lm.evaluate --checkpoint=runs/quickstart --data=src/ --pattern="*.py,*.md" --out=result.json
    python -m lm.evaluate --checkpoint=SmolLM2-135M --data=notes.txt --length=1024   # a Hugging Face folder

Bits per byte do not depend on the tokenizer, so they compare models with different ones; perplexities do not.
"""

import json
import math
import time
from itertools import islice
from pathlib import Path
from typing import Any

from absl import flags

from lm import cli
from lm.core.errors import UserError

CHECKPOINT = flags.DEFINE_string(
    "checkpoint", None, "Folder of a training run (its --workdir), Hugging Face folder, or .gguf file.", required=True
)
STEP = flags.DEFINE_integer("step", None, "Step of the checkpoint; the latest if not given.")
DATA = flags.DEFINE_string("data", None, "File, folder, glob or python-stdlib; if not given the run's data.")
SPLIT = flags.DEFINE_enum(
    "split",
    None,
    ["validation", "train", "all"],
    "Which part of the data; if not given all of --data=PATH, or the run's validation part.",
)
PATTERN = flags.DEFINE_string("pattern", None, "Files of a folder, as *.py,*.md; if not given as in the run.")
LENGTH = flags.DEFINE_integer("length", None, "Tokens per row; if not given as in the run, or the model's context.")
BATCHES = flags.DEFINE_integer("batches", None, "Only so many batches; all if not given.")
OUT = flags.DEFINE_string("out", None, "JSON file to write the result to as well.")


def main(argv: list[str]) -> None:
    for flag in (BATCHES, LENGTH):
        if flag.value is not None and flag.value < 1:
            raise UserError(f"--{flag.name}={flag.value} must be at least 1")
    if OUT.value is not None and not Path(OUT.value).expanduser().parent.is_dir():
        raise UserError(f"--out={OUT.value}: that folder does not exist; create it first")
    show(evaluate())


def evaluate() -> dict[str, Any]:
    import jax.numpy as jnp  # here, so that --help answers at once

    from lm.core.ctx import Run
    from lm.data.build import build_cache
    from lm.data.open import Data, Part
    from lm.data.sources import STDLIB, open_source
    from lm.evaluate.perplexity import Evaluator
    from lm.train.components import restored
    from lm.train.feed import held_out_of
    from lm.train.foreign import open_any
    from lm.train.setup import check_fit, memory_rows

    opened = open_any(CHECKPOINT.value, STEP.value)
    c = opened.config.data
    c.length = LENGTH.value or c.length
    check_fit(opened.config, opened.model, opened.tokenizer)
    if DATA.value is None and c.mixture:
        names = ", ".join(str(source[0]) for source in c.mixture)
        raise UserError(f"this run's data is a mixture of {names}: choose one of them with --data")
    where = DATA.value or c.source
    if not where:
        raise UserError(f"{CHECKPOINT.value} is an imported model, which has no data of its own: give --data")
    split = SPLIT.value or ("validation" if DATA.value in (None, STDLIB) else "all")
    options = {"pattern": PATTERN.value or c.pattern, "field": c.field, "holdout": c.holdout}
    if split == "all":  # files that are the validation split
        if where == STDLIB:
            raise UserError(f"--split=all is for files: {STDLIB} has the splits validation and train")
        source = open_source(where, "validation", validation=where, **options)
    else:
        source = open_source(where, split, validation=(not DATA.value and c.validation) or None, **options)
    cache = build_cache(source, opened.tokenizer, Path(c.cache).expanduser() / "tokens")

    told = opened.config.objective.to_dict()
    objective = restored(told, opened.defined, "config.objective", CHECKPOINT.value)
    batches = held_out_of(opened.config, Data(opened.tokenizer, (Part(where, 1.0, cache, cache),)), objective)
    dtype = jnp.dtype(opened.config.train.dtype)
    memory = memory_rows(opened.config, opened.model, objective)
    evaluator = Evaluator(opened.model, objective, dtype, run=Run(unroll=opened.config.train.unroll), memory=memory)
    begun = time.perf_counter()
    result = evaluator(opened.params, islice(batches, BATCHES.value))
    return {
        "checkpoint": CHECKPOINT.value,
        "step": opened.step,
        "data": where,
        "split": split,
        "documents": cache.documents,
        "batches": min(len(batches), BATCHES.value or len(batches)),
        "batches_in_all": len(batches),
        **result,
        "perplexity": math.exp(result["loss"]) if result["loss"] < 700 else math.inf,
        "seconds": time.perf_counter() - begun,
    }


def show(result: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    r = result
    part = "" if r["batches"] == r["batches_in_all"] else f", {r['batches']} of {r['batches_in_all']} batches"
    table = Table("measure")
    table.add_column("value", justify="right")
    rows = [("nats per token", f"{r['loss']:.4f}"), ("perplexity per token", f"{r['perplexity']:.3f}")]
    if "bits_per_byte" in r:
        rows.append(("bits per byte", f"{r['bits_per_byte']:.4f}"))
    rows += [("accuracy", f"{r['accuracy']:.2%}"), ("tokens predicted", f"{r['tokens']:,.0f}")]
    if "bytes" in r:
        rows.append(("bytes predicted", f"{r['bytes']:,.0f}"))
    rows.append(("documents", f"{r['documents']:,}"))
    rows.append(("tokens per second", f"{r['tokens'] / r['seconds']:,.0f}"))
    for row in rows:
        table.add_row(*row)
    at = "" if r["step"] is None else f", step {r['step']}"
    print(f"{r['checkpoint']}{at}, on {r['data']} ({r['split']}{part})")
    Console().print(table)
    if OUT.value is not None:
        try:
            Path(OUT.value).expanduser().write_text(json.dumps(result, indent=2) + "\n")
        except OSError as e:
            raise UserError(f"cannot write --out={OUT.value}: {e.strerror}") from e


if __name__ == "__main__":
    cli.run(main)
