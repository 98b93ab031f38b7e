"""How well a trained model predicts text: nats per token, perplexity, bits per byte.

    python -m lm.evaluate --checkpoint=runs/quickstart                      # the run's own validation data
    python -m lm.evaluate --checkpoint=runs/quickstart --data=notes.txt     # another text, all of it
    python -m lm.evaluate --checkpoint=runs/quickstart --data=src/ --pattern="*.py,*.md" --out=result.json
    python -m lm.evaluate --checkpoint=SmolLM2-135M --data=docs.jsonl --field=body      # a Hugging Face folder
    python -m lm.evaluate --checkpoint=t5-small --data=pairs.jsonl --field=source,target    # an encoder-decoder
    python -m lm.evaluate --checkpoint=bert-base --data=notes.txt           # a masked model: pseudo-perplexity

A run's own data is read in rows as in training, except by a masked model. Any other is read document by document, each
worded as generation words a prompt: behind the begin-of-text and before the end-of-text, where the model has them. The
begin-of-text is given, not scored; every token behind it is (with --nofirst not the first of a text); a first token
that nothing stands before is not scored. A document longer than --length is read in windows that overlap by a token, or
that begin --stride apart. A masked model scores each token of a document hidden in turn.

Bits per byte do not depend on the tokenizer, so they compare models with different ones; perplexities do not.
"""

import functools
import time
from pathlib import Path
from typing import Any

from absl import flags

from lm.commands import cli
from lm.core.errors import UserError

FLAGS = flags.FlagValues()  # its own, so that several command lines can be imported into one process
CHECKPOINT = flags.DEFINE_string(
    "checkpoint",
    None,
    "Folder of a training run (its --workdir), Hugging Face folder, or .gguf file.",
    required=True,
    flag_values=FLAGS,
)
STEP = flags.DEFINE_integer("step", None, "Step of the checkpoint; the latest if not given.", flag_values=FLAGS)
DATA = flags.DEFINE_string(
    "data", None, "File, folder, glob or python-stdlib; if not given the run's data.", flag_values=FLAGS
)
SPLIT = flags.DEFINE_enum(
    "split",
    None,
    ["validation", "train", "all"],
    "Which part of the data; if not given all of --data=PATH, or the run's validation part.",
    flag_values=FLAGS,
)
PATTERN = flags.DEFINE_string(
    "pattern", None, "Files of a folder, as *.py,*.md; if not given as in the run.", flag_values=FLAGS
)
FIELD = flags.DEFINE_string(
    "field",
    None,
    "Field of JSON (meta.text: in another), column of a table; if not given as in the run. Two of them, as "
    "source,target, are the pairs of an encoder-decoder.",
    flag_values=FLAGS,
)
LENGTH = flags.DEFINE_integer(
    "length",
    None,
    "Tokens per row; if not given as in the run, or the model's context, at most 2048.",
    flag_values=FLAGS,
)
STRIDE = flags.DEFINE_integer(
    "stride",
    None,
    "Windows of a long document begin so many tokens apart, and each token is scored once, with at least length - "
    "stride before it; if not given windows overlap by one token.",
    flag_values=FLAGS,
)
FIRST = flags.DEFINE_boolean(
    "first", True, "Score the first token of a text too, where a begin-of-text stands before it.", flag_values=FLAGS
)
BATCH_SIZE = flags.DEFINE_integer(
    "batch_size", None, "Rows per batch; if not given as many as fit 1 GiB.", flag_values=FLAGS
)
BATCHES = flags.DEFINE_integer("batches", None, "Only so many batches; all if not given.", flag_values=FLAGS)
OUT = flags.DEFINE_string("out", None, "JSON file to write the result to as well.", flag_values=FLAGS)


def main(argv: list[str]) -> None:
    for flag in (BATCHES, LENGTH, STRIDE, BATCH_SIZE):
        if flag.value is not None and flag.value < 1:
            raise UserError(f"--{flag.name}={flag.value} must be at least 1")
    if OUT.value is not None and not Path(OUT.value).expanduser().parent.is_dir():
        raise UserError(f"--out={OUT.value}: that folder does not exist; create it first")
    with cli.doing(f"opening {CHECKPOINT.value}"):
        from lm.evaluate.plan import Asked  # here, so that --help answers at once
        from lm.evaluate.report import show, write
        from lm.open import open_any

        opened = open_any(CHECKPOINT.value, STEP.value)
    asked: dict[str, Any] = {name: FLAGS[name].value for name in Asked._fields}
    result = scored(opened, Asked(**asked), CHECKPOINT.value)
    show(result)
    if OUT.value is not None:
        write(result, OUT.value)


def scored(opened: Any, asked: Any, name: str) -> dict[str, Any]:
    """The figures of an opened model for what is `asked` (`lm.evaluate.plan`), announced before they are computed.
    `name`: of the checkpoint. Raises `UserError` where they cannot be."""
    from ml_collections.config_dict import ConfigDict

    from lm.core.metrics import added, values
    from lm.data.progress import tell
    from lm.evaluate.evaluator import Evaluator
    from lm.evaluate.plan import LONGEST, Setting, plan, with_scoring_head
    from lm.evaluate.progress import watched
    from lm.evaluate.report import announce, figures
    from lm.runs.components import restored
    from lm.train.record import completed
    from lm.train.setup import assemble, check_fit

    config = ConfigDict(completed(opened.config.to_dict()))
    c = config.data
    model, params = with_scoring_head(opened.model, opened.params)
    of_run = bool(c.source or c.mixture) and opened.step != 0  # at 0 a model was imported, whatever its config says
    if asked.data is None and not of_run:
        raise UserError(f"{name} has no data of its own: give --data=FILE, a folder or python-stdlib")
    c.length = asked.length or (c.length if of_run else min(c.length, LONGEST))
    c.batch_size = asked.batch_size or c.batch_size
    check_fit(config, model, opened.tokenizer)
    if opened.text.context and c.length > opened.text.context:
        tell(
            f"note: rows of {c.length} tokens are longer than the {opened.text.context} that the model was made to read"
        )
    objective = restored(config.objective.to_dict(), opened.defined, "config.objective", name)
    parts_of = functools.partial(assemble, config, model=model, objective=objective, sharding=None)
    memory, dtype, execution = (own := parts_of()).memory, own.dtype, own.execution
    setting = Setting(model, opened.text, c, objective, memory, dtype, lambda data: parts_of(data=data).held_out)
    made = plan(setting, asked)
    evaluator = Evaluator(model, made.objective, dtype, execution=execution, memory=made.memory)
    announce(name, opened.step, made)
    results, parts = [], []
    begun = time.perf_counter()
    for piece in made.pieces:
        results.append(evaluator(params, watched(piece.batches, piece.scored)))
        parts.append({"name": piece.name, "documents": piece.documents, **figures(values(results[-1]), made.measure)})
    seconds = time.perf_counter() - begun
    together = figures(values(added(results)), made.measure)
    return {
        "checkpoint": name,
        "step": opened.step,
        "split": made.split,
        "rows": made.wording,
        "parts": parts,
        "documents": sum(piece.documents for piece in made.pieces),
        **together,
        "seconds": seconds,
        "tokens_per_second": together["scored_tokens"] / seconds,
    }


if __name__ == "__main__":
    cli.run(main, usage="--checkpoint=PATH [--data=PATH] [flags]", flag_values=FLAGS)
