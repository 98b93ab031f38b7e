"""Masked language modelling: what is hidden, and that the loss is of that."""

import dataclasses

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lm.core.ctx import Ctx
from lm.core.errors import UserError
from lm.data.cache import TokenCache
from lm.data.packing import read_of
from lm.data.record_rows import packed
from lm.objectives.examples.hiding import WholeWords
from lm.objectives.masked import MaskedTokens
from lm.objectives.objective import check_needs
from lm.objectives.token_loss import TokenLoss
from lm.text.tokenizers import ByteTokenizer
from lm.zoo.bert import bert
from lm.zoo.registry import build
from tests import toys

BYTES = ByteTokenizer()
MASK, EOS = BYTES.sentinel(0), BYTES.eos_id


def row(length: int, padding: int = 0, seed: int = 0) -> dict:
    """Text of two documents, each behind an end-of-text, then padding."""
    index = np.arange(length + 1)
    tokens = np.random.default_rng(seed).integers(3, 259, length + 1)
    tokens[[0, length // 2]] = EOS
    segments = np.where(index > length - padding, 0, 1 + (index > length // 2))
    return {"tokens": tokens.astype(np.int32), "segments": segments, "bytes": np.ones(length + 1, np.int32)}


@given(
    st.integers(4, 60), st.integers(0, 3), st.floats(0.05, 1), st.floats(0, 0.7), st.floats(0, 0.3), st.integers(0, 99)
)
def test_what_is_hidden(length, padding, share, masked, random, seed):
    given_row = row(length, padding, seed)
    build = MaskedTokens(share, masked, random).examples(BYTES)
    made = build(given_row, np.random.default_rng(seed))
    asked, tokens = made["weights"] > 0, given_row["tokens"][:-1]
    text = (given_row["segments"][:-1] > 0) & (tokens != EOS)
    assert asked.sum() == max(1, round(share * text.sum())) and not (asked & ~text).any()
    np.testing.assert_array_equal(made["targets"], tokens)
    np.testing.assert_array_equal(made["tokens"][~asked], tokens[~asked])
    again = build(given_row, np.random.default_rng(seed))
    assert all(np.array_equal(made[name], again[name]) for name in made)
    assert made["bytes"].shape == made["positions"].shape == (length,)


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.integers(1, 14), min_size=1, max_size=9),
    st.integers(4, 12),
    st.sampled_from(("concat", "best-fit", "one")),
    st.sampled_from((MaskedTokens(0.4), MaskedTokens(0.4, hiding=WholeWords()), MaskedTokens(0.4, predictions=3))),
)
def test_nothing_is_lost_and_nothing_leaks_however_rows_are_packed(tmp_path_factory, sizes, length, packing, objective):
    """Documents of distinct tokens, each behind [CLS]: what a model reads is all of the text, but for the last token of
    a row that has no room for it; what is to be predicted is not among it unless by chance; documents begin at 0."""
    text = BYTES.with_special(["[CLS]"])
    first = text.piece_id("[CLS]")
    documents = [np.append(np.append(first, 10 + np.arange(n) + 14 * i), EOS) for i, n in enumerate(sizes)]
    tokens, offsets = np.concatenate(documents).astype(np.uint16), np.cumsum([0, *map(len, documents)])
    if packing != "best-fit" and length > len(tokens):
        return
    cache = TokenCache(tmp_path_factory.mktemp("cache"), (tokens,), offsets, len(tokens), 0, "")
    rows, read = packed(cache, length, packing, long="cut"), []
    build = dataclasses.replace(objective.examples(text), masked=1.0, random=0.0)
    for i in range(len(rows)):
        made, there = build(rows[i], np.random.default_rng(i)), read_of(rows[i], "tokens", "segments")
        real = there["segments"] > 0
        assert (made["segments"] == there["segments"]).all() and len(made["tokens"]) == length
        at = made["predicted"] if "predicted" in made else np.arange(length)
        hidden = np.zeros(length, bool)
        hidden[at[made["weights"] > 0]] = True
        assert (made["tokens"][hidden] == build.mask).all() and not (hidden & ~real).any()
        assert (made["targets"] == there["tokens"][at])[made["weights"] > 0].all()
        assert not np.isin(made["targets"][made["weights"] > 0], (first, EOS)).any()
        assert np.array_equal(made["tokens"][~hidden], there["tokens"][~hidden])
        assert (made["positions"][real & (there["tokens"] == first)] == 0).all()
        read += there["tokens"][real].tolist()
    words = [token for token in read if token not in (first, EOS)]
    assert len(words) == len(set(words)), "each is read once"
    assert packing == "concat" or read.count(first) == len(sizes), "no document loses its first token"


def test_shares_of_mask_and_random_tokens():
    made = MaskedTokens(0.5, 0.6, 0.2).examples(BYTES)(row(20_000), np.random.default_rng(0))
    asked = made["weights"] > 0
    shown, there = made["tokens"][asked], made["targets"][asked]
    assert abs((shown == MASK).mean() - 0.6) < 0.02
    assert abs(((shown != MASK) & (shown != there)).mean() - 0.2) < 0.02


def test_the_loss_is_of_the_hidden_tokens():
    model = bert(layers=1, d_model=8, heads=2, vocab=384, context=12)
    params, objective = toys.values(model.spec()), MaskedTokens(0.3, loss=TokenLoss(chunk=5))
    made = [objective.examples(BYTES)(row(12, seed=i), np.random.default_rng(i)) for i in range(2)]
    batch = {name: np.stack([one[name] for one in made]) for name in made[0] if name != "bytes"}
    loss, gradient = jax.value_and_grad(lambda p: objective(model, p, batch, Ctx()).total)(params)
    logs = np.asarray(jax.nn.log_softmax(model(params, batch)), np.float64)
    nll = -np.take_along_axis(logs, batch["targets"][..., None], axis=-1)[..., 0]
    np.testing.assert_allclose(loss, (nll * batch["weights"]).sum(), rtol=1e-5)
    assert np.abs(gradient["head"]["dense"]["w"]).max() > 0


@pytest.mark.parametrize(
    ("knobs", "message"),
    [({"share": 0.0}, r"share=0\.0 of the tokens"), ({"masked": 0.95}, r"masked=0\.95 and random")],
)
def test_wrong_knobs(knobs, message):
    with pytest.raises(UserError, match=message):
        MaskedTokens(**knobs)


def test_models_that_see_one_side_are_refused():
    check_needs(MaskedTokens(), bert(layers=1, d_model=8, heads=2, vocab=384, context=12))
    encoder_decoder = build({"family": "t5", "layers": 1, "d_model": 8, "heads": 2, "d_ff": 8, "vocab": 384})
    for model in (toys.windows(), encoder_decoder):
        with pytest.raises(UserError, match=r"^objective MaskedTokens predicts tokens from both sides, but no token"):
            check_needs(MaskedTokens(), model)


def test_what_hides_a_scored_token_is_what_hid_it_in_training():
    assert MaskedTokens().scoring(BYTES).mask == MASK == MaskedTokens().examples(BYTES).mask


def test_a_vocabulary_must_have_something_to_hide_with():
    with pytest.raises(UserError, match="neither a mask nor sentinels"):
        MaskedTokens().examples(ByteTokenizer(extra_ids=0))
