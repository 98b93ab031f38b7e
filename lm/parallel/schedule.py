"""What each stage of a pipeline works on at each tick, how long it waits, and how much it keeps.

p stages, m microbatches, and v chunks of layers on each stage: chunk c of v p lies on stage c mod p, so that a
microbatch goes round v times. An item is a chunk's work on a microbatch; each stage has m v of them, in the same order
on all: p microbatches go through all rounds before the next p begin (depth-first; Narayanan et al. 2021, arXiv
2104.04473, section 2.2). Stage s does the forward pass of item n at tick n + s, which is when the stage before has
handed it on, at the end of a round too."""

import dataclasses

import jax

from lm.core.errors import UserError

Number = int | jax.Array


@dataclasses.dataclass(frozen=True)
class Order:
    """Items and ticks of a pipeline. Stages, items and ticks count from 0 and may be traced."""

    stages: int
    microbatches: int
    chunks: int = 1

    @property
    def items(self) -> int:
        """Of each stage."""
        return self.microbatches * self.chunks

    @property
    def ticks(self) -> int:
        """From the first stage's first item to the last one's last."""
        return self.items + self.stages - 1

    @property
    def idle(self) -> float:
        """The share of the time that a stage waits for others. Of the time it works that is (p - 1) / (m v)."""
        return (self.stages - 1) / self.ticks

    def item(self, n: Number) -> tuple[Number, Number]:
        """(round, microbatch) of item n."""
        return n % self._group // self.stages, self._microbatch(n)

    def backward_item(self, n: Number) -> tuple[Number, Number]:
        """(round, microbatch) of item n of the backward pass, which goes through the rounds from the last to the
        first."""
        return self.chunks - 1 - n % self._group // self.stages, self._microbatch(n)

    def number(self, round_: Number, microbatch: Number) -> Number:
        """The inverse of `item`."""
        return microbatch // self.stages * self._group + round_ * self.stages + microbatch % self.stages

    @property
    def delay(self) -> int:
        """One-forward-one-backward: ticks before a backward pass begins, on the last stage, which is when the first
        microbatch has been through all rounds. Stage s does item n of the backward pass at tick
        delay + n + (stages - 1 - s)."""
        return self._group - 1

    @property
    def slots(self) -> int:
        """One-forward-one-backward: items whose backward pass a stage may have yet to do (the first stage most), so
        that no item writes over what another one still needs."""
        return min(2 * self._group - 1, self.ticks)

    @property
    def _group(self) -> int:
        """Items between the rounds of one microbatch and those of the one that follows it by p."""
        return self.stages * self.chunks

    def _microbatch(self, n: Number) -> Number:
        return n // self._group * self.stages + n % self.stages

    def check(self, repeats: int) -> None:
        """Raise `UserError` where a group of so many repeats cannot be walked so."""
        parts = self._group
        if repeats % parts:
            of = f"{self.stages} pipeline stages" + (f" of {self.chunks} chunks each" if self.chunks > 1 else "")
            raise UserError(
                f"{repeats} repeats of a layer group do not spread evenly over {of}: "
                f"take a number of {'parts' if self.chunks > 1 else 'stages'} that divides {repeats}, or change the "
                "layers"
            )
        if self.chunks > 1 and self.microbatches % self.stages:
            raise UserError(
                f"{self.microbatches} microbatches cannot go round {self.stages} pipeline stages {self.chunks} times: "
                f"take a multiple of {self.stages}, or one chunk a stage"
            )
