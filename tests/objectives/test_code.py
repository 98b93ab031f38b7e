"""Code from a description that is corrupted: what is predicted, and where."""

import numpy as np
import pytest

from lm.core.errors import UserError
from lm.objectives.code import CodeFromText
from lm.objectives.examples.code import CodeTokens
from lm.objectives.objective import check_needs
from lm.text.tokenizers import ByteTokenizer
from lm.zoo.registry import build

N, MASK, EOS = 400, 90, 1
TARGET = (np.arange(N) % 40 >= 25).astype(np.int32)  # ten pairs of 25 tokens of text and 15 of code
ROW = {
    "tokens": np.where(np.arange(N) % 40 == 39, EOS, 10 + np.arange(N) % 37).astype(np.int32),
    "segments": (np.arange(N) // 40 + 1).astype(np.int32),
    "target": TARGET,
    "bytes": np.ones(N, np.int32),
}
TEXT = TARGET[:-1] == 0


def example(seed: int = 0, **knobs) -> dict[str, np.ndarray]:
    values = {"corrupted": 0.15, "masked": 0.8, "recovered": True, "prefix": False} | knobs
    return CodeTokens(**values, mask=MASK, vocab=80, kept=(EOS,))(ROW, np.random.default_rng(seed))


def test_the_loss_is_on_code_alone_where_nothing_is_recovered():
    made = example(recovered=False)
    assert (made["weights"] > 0).tolist() == (TARGET[1:] == 1).tolist()
    assert (made["targets"] == ROW["tokens"][1:]).all()
    assert (made["tokens"][~TEXT] == ROW["tokens"][:-1][~TEXT]).all()  # code is never corrupted
    plain = example(corrupted=0.0)
    assert (plain["tokens"] == ROW["tokens"][:-1]).all() and (plain["weights"] == made["weights"]).all()


def test_corrupted_tokens_are_recovered_at_their_own_position():
    made = example()
    own = TEXT & (made["weights"] > 0) & (np.roll(TARGET, -1)[:-1] == 0)
    changed = np.flatnonzero(TEXT & (made["tokens"] != ROW["tokens"][:-1]))
    assert own.any() and (made["targets"][own] == ROW["tokens"][:-1][own]).all()
    last = TARGET[1:][changed] == 1  # the last token of a description predicts the code
    assert own[changed[~last]].all()
    code = TARGET[1:] == 1
    assert (made["targets"][code] == ROW["tokens"][1:][code]).all() and (made["weights"][code] == 1).all()


def test_rates_over_many_rows():
    drawn = [example(seed, recovered=False)["tokens"][TEXT] for seed in range(200)]
    before = ROW["tokens"][:-1][TEXT]
    masked = np.mean([(tokens == MASK).mean() for tokens in drawn])
    random = np.mean([((tokens != before) & (tokens != MASK)).mean() for tokens in drawn])
    assert abs(masked - 0.15 * 0.8) < 0.004 and abs(random - 0.15 * 0.2 * 79 / 80) < 0.003
    assert all((example(3)[k] == example(3)[k]).all() for k in example(3))


def test_a_description_may_see_itself():
    assert (example(prefix=True)["prefix"] == TEXT).all()
    shape = {"family": "gpt2", "layers": 1, "d_model": 8, "heads": 2, "vocab": 97, "context": 16}
    check_needs(CodeFromText(), build(shape))
    with pytest.raises(UserError, match="Prefix"):
        check_needs(CodeFromText(prefix=True), build(shape))
    assert CodeFromText().needs().channels == ("target",)
    with pytest.raises(UserError, match=r"config.data.reserved=\[MASK\]"):
        CodeFromText().examples(ByteTokenizer(extra_ids=0))
    made, shapes = (CodeFromText().examples(t)(ROW, np.random.default_rng(0)) for t in (ByteTokenizer(), None))
    assert {k: (v.shape, v.dtype) for k, v in made.items()} == {k: (v.shape, v.dtype) for k, v in shapes.items()}
