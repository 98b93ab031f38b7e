"""What an evaluation tells, on standard output and as JSON: the same figures under the same names."""

import json
import math
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from lm.core.errors import UserError
from lm.evaluate.plan import PERPLEXITY, Plan

Figures = dict[str, Any]


def figures(result: dict[str, float], measure: str) -> Figures:
    """Metrics of one source, or of several pooled. A pseudo-likelihood is not a code length, so it has no bits per
    byte."""
    nats = "nats_per_token" if measure == PERPLEXITY else "nats_per_masked_token"
    shown: Figures = {nats: result["loss"]}
    if result["loss"] < 700 and "accuracy" in result:  # else it is more than a number can be, or of several losses
        shown[measure.replace("-", "_")] = math.exp(result["loss"])
    if measure == PERPLEXITY and "bits_per_byte" in result:
        shown["bits_per_byte"] = result["bits_per_byte"]
    shown |= {"accuracy": result["accuracy"]} if "accuracy" in result else {}
    shown |= {name: value for name, value in result.items() if name.endswith(("/loss", "/accuracy"))}
    shown |= {"scored_tokens": int(result["tokens"])}
    return shown | ({"scored_bytes": int(result["bytes"])} if "bytes" in result else {})


def announce(checkpoint: str, step: int | None, plan: Plan) -> None:
    """Print what is about to be evaluated."""
    print(f"{checkpoint}{'' if step is None else f', step {step}'}: {plan.wording}")
    for piece in plan.pieces:
        print(f"on {piece.name} ({plan.split}): {piece.documents:,} documents, {piece.scored:,} tokens", flush=True)


def show(result: Figures, console: Console | None = None) -> None:
    """Print the table of a result: a column per source, and one for all if there are several."""
    parts = [*result["parts"], *([result | {"name": "all together"}] if len(result["parts"]) > 1 else [])]
    table = Table("measure")
    for part in parts:
        table.add_column("value" if len(parts) == 1 else part["name"], justify="right", overflow="fold")
    of_heads = {name: (name, "{:.4f}") for part in parts for name in part if name.endswith(("/loss", "/accuracy"))}
    for name, spelled in (SPELLED | of_heads).items():
        if any(name in part for part in parts):
            table.add_row(spelled[0], *(spelled[1].format(part[name]) if name in part else "" for part in parts))
    (console or Console()).print(table)


SPELLED = {
    "nats_per_token": ("nats per token", "{:.4f}"),
    "nats_per_masked_token": ("nats per masked token", "{:.4f}"),
    "perplexity": ("perplexity per token", "{:.3f}"),
    "pseudo_perplexity": ("pseudo-perplexity per token", "{:.3f}"),
    "bits_per_byte": ("bits per byte", "{:.4f}"),
    "accuracy": ("accuracy", "{:.2%}"),
    "scored_tokens": ("tokens scored", "{:,}"),
    "scored_bytes": ("bytes scored", "{:,}"),
    "documents": ("documents", "{:,}"),
    "tokens_per_second": ("tokens per second", "{:,.0f}"),
}


def write(result: Figures, path: str) -> None:
    try:
        Path(path).expanduser().write_text(json.dumps(result, indent=2) + "\n")
    except OSError as e:
        raise UserError(f"cannot write --out={path}: {e.strerror}") from e
