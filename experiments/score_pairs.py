"""How well an encoder-decoder writes: greedy outputs for the held-out pairs of its run, scored by chrF (Popovic 2015)
and BLEU as sacrebleu computes them, with a few of them to look at. Needs the extra `score`.

    python -m experiments.score_pairs --checkpoint=runs/translate
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from absl import flags
from ml_collections.config_dict import ConfigDict

from lm.commands import cli
from lm.core.errors import UserError
from lm.core.optional import package
from lm.data.cache import TokenCache
from lm.infer.generate import Generator
from lm.infer.sampling import Sampler
from lm.model.transformer import EncoderDecoder
from lm.open import open_any
from lm.train.data import open_data_of
from lm.train.record import completed

CHECKPOINT = flags.DEFINE_string("checkpoint", None, "Folder of a training run on pairs.", required=True)
PAIRS = flags.DEFINE_integer("pairs", 500, "Most held-out pairs to write outputs for.", lower_bound=1)
SHOWN = flags.DEFINE_integer("shown", 5, "Outputs to print.", lower_bound=0)
BATCH = 50  # outputs that are written side by side


class Pair(NamedTuple):
    read: np.ndarray  # what the encoder reads
    begun: np.ndarray  # the first tokens of the decoder
    target: np.ndarray  # without its end


def pairs_of(cache: TokenCache) -> Iterator[Pair]:
    for start, stop in zip(cache.offsets[:-1], cache.offsets[1:], strict=True):
        tokens = cache.read(int(start), int(stop))
        part, target = (cache.read_channel(name, int(start), int(stop)) for name in ("part", "target"))
        yield Pair(tokens[part == 0], tokens[(part > 0) & (target == 0)], tokens[target > 0][:-1])


def written(opened: Any, pairs: list[Pair]) -> list[str]:
    """The greedy output for each pair, in their order; pairs of like length share a batch."""
    generator = Generator(opened.model, opened.params)
    order = sorted(range(len(pairs)), key=lambda i: len(pairs[i].read))
    longest = max(len(pair.target) for pair in pairs)
    outputs: dict[int, str] = {}
    for first in range(0, len(order), BATCH):
        chosen = order[first : first + BATCH]
        made = generator(
            [pairs[i].begun for i in chosen],
            max_new=longest,
            sampler=Sampler(temperature=0.0),
            seed=0,
            eos_id=opened.text.ends,
            encoder=[pairs[i].read for i in chosen],
        )
        outputs |= {i: opened.text.tokenizer.decode(ids) for i, ids in zip(chosen, made, strict=True)}
    return [outputs[i] for i in range(len(pairs))]


def main(_: list[str]) -> None:
    sacrebleu = package("sacrebleu", "scoring", "score")
    opened = open_any(CHECKPOINT.value)
    if not isinstance(opened.model, EncoderDecoder):
        raise UserError(f"{CHECKPOINT.value} holds no encoder-decoder: give a run of objective Seq2Seq")
    config = ConfigDict(completed(opened.config.to_dict()))
    data = open_data_of(config, opened.text, encoder=True)
    pairs = [pair for cache in data.validation for pair in pairs_of(cache)][: PAIRS.value]
    decode = opened.text.tokenizer.decode
    outputs, targets = written(opened, pairs), [decode(pair.target) for pair in pairs]
    for pair, output, target in list(zip(pairs, outputs, targets, strict=True))[: SHOWN.value]:
        print(f"read    {decode(pair.read)}\nwritten {output}\ntarget  {target}\n")
    copied = sacrebleu.corpus_chrf([decode(pair.read) for pair in pairs], [targets]).score
    chrf = sacrebleu.corpus_chrf(outputs, [targets]).score
    bleu = sacrebleu.corpus_bleu(outputs, [targets], tokenize="char").score
    print(f"{len(pairs)} pairs: chrF {chrf:.1f} (inputs copied: {copied:.1f}), BLEU of characters {bleu:.1f}")


if __name__ == "__main__":
    cli.run(main)
