"""Models and denoisers: which read what, and small ones learn more from it than how often tokens occur."""

import jax
import numpy as np
import optax
import pytest

from lm.core.ctx import Ctx, Execution
from lm.core.errors import UserError
from lm.core.param import FanIn, Normal, initialize
from lm.core.walk import Unrolled
from lm.model.attention import Attention, Projections, Softmax
from lm.model.attention_bias import BiasTable, BucketedBias
from lm.model.block import Block
from lm.model.embed import Embed
from lm.model.heads import LMHead
from lm.model.kv_sources import CrossKV
from lm.model.layers import RMSNorm
from lm.model.masks import Bidirectional, Causal, Prefix
from lm.model.mlp import MLP
from lm.model.residual import PreNorm
from lm.model.stack import Stack
from lm.model.transformer import EncoderDecoder, LanguageModel, Transformer, tied
from lm.objectives.causal import PrefixNextToken
from lm.objectives.denoising import MixtureOfDenoisers, PrefixMixtureOfDenoisers
from lm.objectives.examples.published import CAUSAL_TOO, CONTINUED, INFILLED, RESTORED
from lm.objectives.middle import FillInTheMiddle
from lm.objectives.objective import check_needs
from lm.text.tokenizers import ByteTokenizer

SMALL = ByteTokenizer(extra_ids=16)
CORPUS = np.array(SMALL.encode("abcdefghijklmnop " * 20), np.int32)
LENGTH, BATCH, STEPS = 32, 8, 40


def attention(mask, heads, d_model, **knobs):
    init = FanIn(heads / d_model)  # in place of the scale, as T5
    return Attention(
        heads,
        d_model // heads,
        mask=mask,
        softmax=Softmax(1.0),
        projections=Projections(init=init, out_init=FanIn()),
        **knobs,
    )


def tower(mask, *more, d_model=32, heads=2):
    """As T5: a table of relative biases, RMSNorm before each part, no biases, no 1 / sqrt(head_dim)."""
    term = BucketedBias(buckets=16, max_distance=64, bidirectional=not isinstance(mask, Causal))
    own = attention(mask, heads, d_model, bias=(term,))
    other = [(name, attention(Bidirectional(), heads, d_model, source=source)) for name, source in more]
    mlp = MLP(2 * d_model, activation="relu", bias=False, init=FanIn(), out_init=FanIn())
    block = Block((("attention", own), *other, ("mlp", mlp)), PreNorm(RMSNorm()))
    stack = Stack.of([block], norm=RMSNorm(), tables=((term.name, BiasTable(term.buckets, heads)),))
    return Transformer(d_model, Embed(SMALL.vocab_size, init=Normal(1.0)), stack)


def toy_encoder_decoder():
    encoder, decoder = tower(Bidirectional()), tower(Causal(), ("cross", CrossKV()))
    head = LMHead(SMALL.vocab_size, scale=decoder.d_model**-0.5)
    return EncoderDecoder(encoder, decoder, head, tied(("decoder/embed/token", "head/w"), "encoder/embed/token"))


def toy_prefix_decoder():
    body = tower(Prefix())
    head = LMHead(SMALL.vocab_size, scale=body.d_model**-0.5)
    return LanguageModel(body, head, tied(["head/w"], "body/embed/token"))


def batches(objective):
    build, rng = objective.examples(SMALL), np.random.default_rng(0)
    segments = np.ones(LENGTH + 1, np.int32)  # one more token is that of the next row
    for _ in range(STEPS):
        at = rng.integers(0, len(CORPUS) - LENGTH, BATCH)
        examples = [build({"tokens": CORPUS[i : i + LENGTH + 1], "segments": segments}, rng) for i in at]
        yield {k: np.stack([e[k] for e in examples]) for k in examples[0]}


def test_models_that_would_not_read_the_inputs_are_refused():
    check_needs(MixtureOfDenoisers.of(LENGTH), toy_encoder_decoder())
    check_needs(PrefixMixtureOfDenoisers.of(LENGTH), toy_prefix_decoder())
    with pytest.raises(UserError, match=r"rows 'encoder/tokens' .* a model with EncoderDecoder, or another objective"):
        check_needs(MixtureOfDenoisers.of(LENGTH), toy_prefix_decoder())
    with pytest.raises(UserError, match=r"rows 'prefix' of objective PrefixMixture.* a model with Prefix, or"):
        check_needs(PrefixMixtureOfDenoisers.of(LENGTH), toy_encoder_decoder())


def unigram_entropy(objective):
    """Nats per target of a model that knows how often each token occurs, and nothing else."""
    targets = np.concatenate([b["targets"][b["weights"] > 0] for b in batches(objective)])
    p = np.bincount(targets) / len(targets)
    return -(p[p > 0] * np.log(p[p > 0])).sum()


def train(model, objective):
    """Nats per target at each step."""
    optimizer = optax.adam(1e-2)

    def mean_loss(params, batch):
        loss = objective(model, params, batch, Ctx(execution=Execution(walk=Unrolled())))
        return loss.total / loss.weight

    @jax.jit
    def step(params, state, batch):
        loss, grads = jax.value_and_grad(mean_loss)(params, batch)
        updates, state = optimizer.update(grads, state)
        return optax.apply_updates(params, updates), state, loss

    params = jax.jit(lambda: initialize(model.spec(), jax.random.key(0)))()
    state, losses = optimizer.init(params), []
    for batch in batches(objective):
        params, state, loss = step(params, state, batch)
        losses.append(float(loss))
    return losses


def slow(*case):
    return pytest.param(*case, marks=pytest.mark.slow)


@pytest.mark.parametrize(
    ("model", "objective"),
    [
        (toy_encoder_decoder(), MixtureOfDenoisers.of(LENGTH)),
        (toy_prefix_decoder(), PrefixMixtureOfDenoisers.of(LENGTH)),
        slow(toy_encoder_decoder(), MixtureOfDenoisers.of(LENGTH, INFILLED)),
        slow(toy_encoder_decoder(), MixtureOfDenoisers.of(LENGTH, RESTORED)),
        slow(toy_encoder_decoder(), MixtureOfDenoisers.of(LENGTH, CAUSAL_TOO)),
        slow(toy_prefix_decoder(), PrefixMixtureOfDenoisers.of(LENGTH, CONTINUED)),
        slow(toy_prefix_decoder(), PrefixNextToken()),
        slow(toy_prefix_decoder(), FillInTheMiddle()),
    ],
    ids=[
        "encoder-decoder",
        "prefix-decoder",
        "infilled",
        "restored",
        "causal too",
        "continued",
        "prefix",
        "fim",
    ],
)
def test_training_beats_token_frequencies(model, objective):
    losses = train(model, objective)
    assert np.mean(losses[-5:]) < 0.7 * unigram_entropy(objective) < losses[0]
