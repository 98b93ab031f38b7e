"""Generating with a cache gives what the model gives without one, whatever shares the batch."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lm.core.errors import UserError
from lm.infer.generate import ENDED, Generator, unrolled
from lm.infer.sampling import Sampler
from lm.zoo.llama import llama
from tests import toy_towers, toys

GREEDY = Sampler(temperature=0)
NEW = 4  # everywhere, so that tests share programs
PROMPTS = [np.array([5, 1, 7]), np.array([2]), np.array([3, 9, 4, 8])]


@functools.cache
def generator(name: str = "grouped_queries") -> tuple:
    """A toy model, its parameters and a generator, shared by tests so that programs compile once."""
    model = toys.DECODERS[name]()
    params = toys.values(model.spec())
    return model, params, Generator(model, params)


def best_next(model, params, prompt: np.ndarray, found: np.ndarray) -> np.ndarray:
    """The most probable token after the prompt and after each token found, by one call without a cache."""
    whole = np.concatenate([prompt, found])
    padded = np.pad(whole, (0, toys.LENGTH - len(whole)))[None]  # of one length: compiled once
    logits = toys.forward(model, params, {"tokens": jnp.asarray(padded)})[0][0]
    return np.asarray(logits[len(prompt) - 1 : len(whole) - 1].argmax(-1))


@pytest.mark.parametrize("name", ["learned_positions", "grouped_queries", "shared_layers", "dense_first", "bucketed"])
def test_greedy_equals_recomputing_everything(name):
    model, params, generate = generator(name)
    for prompt, found in zip(PROMPTS, generate(PROMPTS, max_new=NEW, sampler=GREEDY), strict=True):
        assert found.shape == (NEW,)
        np.testing.assert_array_equal(found, best_next(model, params, prompt, found))


def test_an_encoder_decoder_reads_its_input_once():
    model = toy_towers.encoder_decoder()
    params = toys.values(model.spec())
    start, inputs = [np.array([0])] * 2, [np.array([4, 2, 9, 9]), np.array([6, 1, 8, 3])]
    generate = Generator(model, params)
    for source, found in zip(inputs, generate(start, encoder=inputs, max_new=NEW, sampler=GREEDY), strict=True):
        tokens = jnp.asarray(np.concatenate([start[0], found])[None])
        logits = toys.forward(model, params, {"encoder/tokens": jnp.asarray(source[None]), "tokens": tokens})[0]
        np.testing.assert_array_equal(found, logits[0, :-1].argmax(-1))
    with pytest.raises(UserError, match="encoder input for each of the 2 prompts"):
        generate(start, encoder=inputs[:1], max_new=5)
    with pytest.raises(UserError, match="has no encoder"):
        generator()[2](start, encoder=inputs, max_new=5)


def test_grouped_queries_of_the_zoo():
    model = llama(layers=2, d_model=16, heads=4, kv_heads=2, d_ff=24, vocab=toys.VOCAB)
    params = toys.values(model.spec())
    for prompt, found in zip(PROMPTS, Generator(model, params)(PROMPTS, max_new=NEW, sampler=GREEDY), strict=True):
        np.testing.assert_array_equal(found, best_next(model, params, prompt, found))


def test_a_row_is_the_same_alone_and_in_a_batch():
    generate = generator()[2]
    together = generate(PROMPTS, max_new=NEW, seed=3)
    for row, prompt in enumerate(PROMPTS):
        [alone] = generate([prompt], max_new=NEW, seed=3, first_row=row)
        np.testing.assert_array_equal(alone, together[row])
    longer = generate([*PROMPTS, np.arange(20) % toys.VOCAB], max_new=NEW, seed=3)  # another bucket
    np.testing.assert_array_equal(longer[:3], together)


def test_rows_and_seeds_differ():
    generate = generator()[2]
    found = [text for seed in range(2) for text in generate([PROMPTS[0]] * 3, max_new=NEW, seed=seed)]
    assert len({tuple(text) for text in found}) > 3


def test_going_on_from_a_part_gives_the_same_text():
    generate, prompt = generator()[2], PROMPTS[0]
    [whole] = generate([prompt], max_new=NEW)
    [rest] = generate([np.concatenate([prompt, whole[:2]])], max_new=NEW)
    np.testing.assert_array_equal(rest[: NEW - 2], whole[2:])


def test_rows_end_at_end_of_text():
    generate = generator()[2]
    full = generate(PROMPTS, max_new=NEW, sampler=GREEDY)
    eos = int(full[0][2])
    steps = list(generate.stream(PROMPTS, max_new=NEW, sampler=GREEDY, eos_id=eos))
    ended = generate(PROMPTS, max_new=NEW, sampler=GREEDY, eos_id=eos)
    for row, (before, after) in enumerate(zip(full, ended, strict=True)):
        cut = int(np.argmax(before == eos)) if eos in before else NEW
        np.testing.assert_array_equal(after, before[:cut])
        assert [int(s[row]) for s in steps] == [*after, *[ENDED] * (len(steps) - cut)]
    assert len(steps) == max(map(len, ended))


def test_nothing_is_compiled_after_the_first_token():
    generate = generator()[2]
    next(generate.stream(PROMPTS, max_new=NEW))
    before = generate._prefill._cache_size(), generate._decode._cache_size()
    for seed in range(2):
        generate([*PROMPTS[1:], np.array([6])], max_new=NEW, seed=seed)
    assert (generate._prefill._cache_size(), generate._decode._cache_size()) == before


def test_a_text_that_grows_within_its_bucket_compiles_nothing():
    model, params, plain = generator()
    chat = Generator(model, params, least=32)
    for read in (1, 3, 9, 20, 28):
        prompt = np.arange(read) % toys.VOCAB
        assert chat.cache_length(read, NEW) == 32
        [found], [same] = (g([prompt], max_new=NEW, seed=1) for g in (chat, plain))
        np.testing.assert_array_equal(found, same)
    assert (chat._prefill._cache_size(), chat._decode._cache_size()) == (1, 1)
    assert chat.cache_length(29, NEW) == 64 and generator("learned_positions")[2].cache_length(8, NEW) == 16


def test_tokens_come_one_by_one():
    stream = generator()[2].stream(PROMPTS, max_new=NEW)
    assert next(stream).shape == (3,)
    assert len(list(stream)) == NEW - 1


def test_no_prompts_give_nothing():
    assert generator()[2]([], max_new=3) == []


def test_unrolling_changes_the_layout_only():
    model, params, _ = generator("dense_first")
    apart, own = unrolled(model, params)
    assert jax.tree.map(jnp.shape, own) == jax.tree.map(lambda p: p.shape, apart.spec())
    assert {s.repeats for s in apart.body.stack.segments} == {1}
    assert apart.body.stack.blocks() == model.body.stack.blocks()


@pytest.mark.parametrize(
    ("prompt", "max_new", "named"),
    [
        ([1] * 20, 4, "prompt 1 of 20 tokens and max_new=4 exceed the 16 positions.*shorten it by 8"),
        ([1] * 10, 9, "10 tokens and max_new=9 exceed the 16 .*shorten it by 3, or set max_new=6"),
        ([], 4, "prompt 1 is empty"),
        ([1, toys.VOCAB], 4, "prompt 1 has token id 13, but the vocabulary is 0 to 12"),
        ([-1], 4, "token id -1"),
        ([0.5], 4, "give a vector of token ids"),
        ([[1, 2]], 4, "give a vector of token ids"),
        ([1], 0, "max_new=0"),
    ],
)
def test_bad_prompts_are_named(prompt, max_new, named):
    generate = generator("learned_positions")[2]  # 16 of them
    with pytest.raises(UserError, match=named):
        generate([np.array([1]), np.array(prompt)], max_new=max_new)


def test_all_positions_can_be_used():
    generate = generator("learned_positions")[2]
    found = generate([np.array([1, 2]), np.array([3] * 9)], max_new=7, sampler=GREEDY)
    assert [len(f) for f in found] == [7, 7]


def test_half_precision_caches_are_used():
    model, params, _ = generator()
    [found] = Generator(model, params, dtype=jnp.bfloat16)([PROMPTS[0]], max_new=2, sampler=GREEDY)
    assert found.shape == (2,)
