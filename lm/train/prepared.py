"""The parts of a training run, checked before anything is written."""

from pathlib import Path

from ml_collections.config_dict import ConfigDict
from rich.console import Console

from lm.objectives.causal import seen_ahead
from lm.objectives.denoising import short_spans
from lm.runs.goodput import Goodput
from lm.train.data import open_data_of, shapes_of
from lm.train.footprint import check_room, footprint
from lm.train.hardware import memory_limit
from lm.train.origin import completed, operated, origin_of, text_for
from lm.train.setup import assemble

WARNING = "[yellow]warning:[/]"


class Prepared:
    """The parts of a run, checked before its folder is touched."""

    def __init__(self, config: ConfigDict, workdir: Path, console: Console, chief: bool) -> None:
        """`chief`: whether this is the one process, of several, that writes and reports."""
        self.goodput = Goodput(workdir, writes=chief)
        origin = origin_of(config, workdir)
        text = origin and origin.text
        config, origin = operated(config, origin, lambda: open_data_of(config, text).tokenizer.vocab_size)
        config = completed(config, origin)
        self.config, self.workdir, self.console, self.chief = config, workdir, console, chief
        self.parts = parts = assemble(config, text=text)
        _ = (
            parts.stage_configs,
            parts.model,
            parts.objective,
            parts.sharding,
            parts.memory,
        )  # their errors come before those of the data
        parts.check_layout()
        parts.check_fit()
        self.text, notes = text_for(config, origin, parts.model, parts.data)
        unfit = (*short_spans(parts.objective, config.data.length), *seen_ahead(parts.objective, parts.model))
        for note in (*notes, *unfit):
            self.tell(f"[yellow]note:[/] {note}")
        self.limit = memory_limit()
        for first, stage in parts.stages:
            batch = shapes_of(parts.batches, first)
            if warned := check_room(footprint(stage.trainer, parts.abstract_state, batch), self.limit):
                self.tell(f"{WARNING} {warned}")

    def tell(self, line: str) -> None:
        self.console.print(line, soft_wrap=True)
