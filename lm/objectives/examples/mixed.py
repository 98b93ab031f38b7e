"""Examples of several objectives in one stream: each row goes to one builder, by its address."""

import dataclasses
from functools import cached_property

import numpy as np

from lm.data.mixture import Mixture
from lm.objectives.examples.builder import Example, ExampleBuilder, Row

# Of a key that only other parts have, all zeros say that there is nothing; except:
SAME_AS = {"text_position": "positions"}
OF_TARGETS = ("targets", "weights")


@dataclasses.dataclass(frozen=True)
class MixedExamples:
    """Row n of a source goes to the part that the mixture of `rates` has for n, so that their proportions are exact on
    every stretch of a source's stream, whatever the number of workers; rows of some sources to a part of their own.
    What a part makes is padded to the keys and shapes that all of them need.

    parts: builders, which add up their `bytes`
    channels: that each part reads
    tied: by the number of a source, the number of the part that all of its rows go to; -1: by the rates"""

    parts: tuple[ExampleBuilder, ...]
    rates: tuple[float, ...]
    channels: tuple[tuple[str, ...], ...]
    tied: tuple[int, ...] = ()

    def __call__(self, row: Row, rng: np.random.Generator) -> Example:
        """A packed row with its address -> an example of one part, and `group`, int32 []: the number of that."""
        number = self.part_of(int(row["source"]), int(row["index"]))
        made = _aligned(self.parts[number](row, rng))
        whole = {key: _padded(key, made, *kind) for key, kind in self._layout(len(row["tokens"])).items()}
        return whole | {"group": np.array(number, np.int32)}

    def part_of(self, source: int, index: int) -> int:
        """The number of the part that row `index` of a source goes to."""
        own = self.tied[source] if source < len(self.tied) else -1
        return self._drawn[self._mixture.locate(index)[0]] if own < 0 else own

    @property
    def _drawn(self) -> list[int]:
        return [number for number, rate in enumerate(self.rates) if rate > 0]

    @cached_property
    def _mixture(self) -> Mixture:
        return Mixture(tuple(self.rates[number] for number in self._drawn))

    @cached_property
    def _layouts(self) -> dict[int, dict[str, tuple]]:
        return {}

    def _layout(self, tokens: int) -> dict[str, tuple]:
        """The shape and type of each key, for rows of so many tokens."""
        if tokens not in self._layouts:
            found: dict[str, tuple] = {}
            for build, channels in zip(self.parts, self.channels, strict=True):
                keys = ("tokens", "segments", "bytes", *channels)
                for key, x in _aligned(build({k: np.zeros(tokens, np.int32) for k in keys}, _any())).items():
                    shape, kind = found.get(key, (x.shape, x.dtype))
                    found[key] = tuple(map(max, shape, x.shape)), kind
            self._layouts[tokens] = found
        return self._layouts[tokens]


def _any() -> np.random.Generator:
    return np.random.default_rng(0)


def _aligned(made: Example) -> Example:
    """With a target for each token: where there are fewer, they are those of the last tokens, or `predicted`."""
    if "predicted" in made:
        at, real = made["predicted"], made["weights"] > 0
        whole = {key: np.zeros(len(made["tokens"]), made[key].dtype) for key in OF_TARGETS}
        for key, values in whole.items():
            values[at[real]] = made[key][real]
        return {key: value for key, value in made.items() if key != "predicted"} | whole
    missing = len(made["tokens"]) - len(made["targets"])
    return made | {key: np.pad(made[key], (missing, 0)) for key in OF_TARGETS} if missing else made


def _padded(key: str, made: Example, shape: tuple[int, ...], kind: np.dtype) -> np.ndarray:
    value = made.get(key, made.get(SAME_AS.get(key, "")))
    if value is None:
        return np.zeros(shape, kind)
    if not shape:
        return value
    return np.pad(value, [(0, most - size) for most, size in zip(shape, value.shape, strict=True)]).astype(kind)
