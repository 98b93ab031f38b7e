"""Transformer-XL and Gopher against transcriptions of their papers' equations, token by token, in numpy."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lm.core.ctx import Ctx
from lm.core.errors import UserError
from lm.core.param import count, with_aliases
from lm.model.special.adaptive import AdaptiveHead
from lm.objectives.causal import NextToken
from lm.zoo.gopher import gopher
from lm.zoo.transformer_xl import transformer_xl
from tests import toys

D, HEADS, SIZE, VOCAB, LENGTH = 12, 3, 5, 23, 6
SHAPE = {"layers": 2, "d_model": D, "heads": HEADS, "head_dim": SIZE, "d_ff": 14, "vocab": VOCAB, "eps": 1e-2}
SHRINKING = {"cutoffs": (4, 10), "shrink": 2, "embed_width": 8}


def sinusoid(distance):
    angles = np.array([distance / 10000 ** (2 * f / D) for f in range(D // 2)])
    return np.concatenate([np.sin(angles), np.cos(angles)])


def log_softmax(x):
    return x - x.max() - math.log(np.exp(x - x.max()).sum())


def layer_norm(p, x):
    return (x - x.mean()) / math.sqrt(x.var() + 1e-2) * p["w"] + p["b"]


def attend(p, u, v, queries, keys, sees, clamp=None):
    """queries [(place, state)], keys [(place, state)] -> what each query gets."""

    def heads(name, x):
        return (x @ p[name]["w"]).reshape(HEADS, SIZE)

    found = []
    for place, x in queries:
        seen = [(other, y) for other, y in keys if sees(place, other)]
        out = np.zeros((HEADS, SIZE))
        for h in range(HEADS):
            q, scores = heads("q", x)[h], []
            for other, y in seen:
                distance = place - other if clamp is None else min(place - other, clamp)
                r = (sinusoid(distance) @ p["terms"]["0"]["r"]["w"]).reshape(HEADS, SIZE)[h]
                k = heads("k", y)[h]
                scores.append((q @ k + q @ r + u[h] @ k + v[h] @ r) / math.sqrt(SIZE))
            weights = np.exp(log_softmax(np.array(scores)))
            out[h] = sum(w * heads("v", y)[h] for w, (_, y) in zip(weights, seen, strict=True))
        found.append(out.reshape(-1) @ p["o"]["w"])
    return found


class Reference:
    """The paper's model, with the memory that each layer keeps from segment to segment."""

    def __init__(self, model, params, memory, cutoffs=(), clamp=None, same_length=False, **_):
        params = jax.tree.map(np.asarray, with_aliases(params, model.ties))
        self.embed, self.head, stack = params["body"]["embed"], params["head"], params["body"]["stack"]
        self.layers = [jax.tree.map(lambda x, i=i: x[i], stack["0"]["0"]) for i in range(2)]
        self.shared = stack["tables"]["biases"]["w"].reshape(2, HEADS, SIZE) if "tables" in stack else None
        self.edges, self.size, self.clamp, self.same_length = [0, *cutoffs, VOCAB], memory, clamp, same_length
        self.memory, self.at = [[] for _ in self.layers], 0

    def row(self, token):
        band = max(i for i, first in enumerate(self.edges) if first <= token)
        own = self.embed[str(band)]
        x = own["w"][token - self.edges[band]]
        return (x @ own["project"]["w"] if "project" in own else x) * math.sqrt(D)

    def log_probabilities(self, x):
        def logits(p, h):
            return p["w"] @ h + p["b"]

        hidden = [
            self.head[str(i)]["project"]["w"] @ x if "project" in self.head[str(i)] else x
            for i in range(len(self.edges) - 1)
        ]
        first = logits(self.head["0"], hidden[0])
        if len(hidden) == 1:
            return log_softmax(first)
        first = log_softmax(np.concatenate([first, logits(self.head["bands"], hidden[0])]))
        rest = [
            log_softmax(logits(self.head[str(i)], h)) + first[self.edges[1] + i - 1]
            for i, h in enumerate(hidden[1:], 1)
        ]
        return np.concatenate([first[: self.edges[1]], *rest])

    def sees(self, place, other):
        return other <= place and (not self.same_length or place - other < self.size)

    def __call__(self, tokens):
        """Log-probabilities [S, VOCAB] of one segment."""
        states = [(self.at + i, self.row(token)) for i, token in enumerate(tokens)]
        for n, p in enumerate(self.layers):
            own = p["attention"]["terms"]["0"]
            u, v = (own["u"], own["v"]) if self.shared is None else self.shared
            keys = self.memory[n] + states
            self.memory[n] = keys[len(keys) - min(self.size, len(keys)) :]
            added = attend(p["attention"], u, v, states, keys, self.sees, self.clamp)
            places, xs = zip(*states, strict=True)
            xs = [layer_norm(p["attention_norm"], x + y) for x, y in zip(xs, added, strict=True)]
            up, down = p["mlp"]["up"], p["mlp"]["down"]
            xs = [
                layer_norm(p["mlp_norm"], x + np.maximum(x @ up["w"] + up["b"], 0) @ down["w"] + down["b"]) for x in xs
            ]
            states = list(zip(places, xs, strict=True))
        self.at += len(tokens)
        return np.stack([self.log_probabilities(x) for _, x in states])


def in_segments(model, params, tokens, sizes, cache=None):
    """tokens [B, S] fed a few at a time, each call remembering the ones before."""
    cache, found = model.cache(toys.shape(len(tokens))) if cache is None else cache, []
    for first, last in itertools.pairwise(np.cumsum([0, *sizes])):
        at = jnp.broadcast_to(jnp.arange(first, last), (len(tokens), last - first))
        y, cache, _ = toys.forward(model, params, {"tokens": tokens[:, first:last], "positions": at}, cache=cache)
        found.append(y)
    return np.concatenate(found, axis=1)


KNOBS = (
    {},
    {"cutoffs": (4, 10)},
    {**SHRINKING, "clamp": 4},
    {**SHRINKING, "tied_projections": False, "biases_by_layer": True},
    {"cutoffs": (7,), "embed_width": 8, "tied": False},
    {"same_length": True},
)


@pytest.mark.parametrize("knobs", KNOBS, ids=str)
def test_segments_with_memory(knobs):
    memory = 4  # less than a segment, so that the paper's cut shows
    model = transformer_xl(**SHAPE, memory=memory, **knobs)
    params = toys.values(model.spec())
    tokens = np.random.default_rng(0).integers(0, VOCAB, (1, 3 * LENGTH))
    reference = Reference(model, params, memory, **knobs)
    expected = np.concatenate([reference(s) for s in np.split(tokens[0], 3)])
    ours = in_segments(model, params, tokens, [LENGTH] * 3)
    toys.close(ours[0], expected, atol=2e-5)
    alone, _, _ = toys.forward(model, params, {"tokens": tokens[:, :LENGTH]})
    toys.close(alone[0], expected[:LENGTH], atol=2e-5)


@pytest.mark.parametrize("sizes", [(6, 6, 6), (1,) * 18, (7, 1, 2, 8)], ids=str)
def test_segments_equal_one_pass(sizes):
    """With a memory of all that came before, and with one as long as what each query sees."""
    tokens = np.random.default_rng(0).integers(0, VOCAB, (2, 18))
    for knobs in ({"memory": 18}, {"memory": 5, "same_length": True}):
        model = transformer_xl(**SHAPE, **SHRINKING, **knobs)
        params = toys.values(model.spec())
        whole, _, _ = toys.forward(model, params, {"tokens": tokens})
        toys.close(in_segments(model, params, tokens, sizes), whole, atol=2e-5)


def test_probabilities_add_up_to_one_and_teach_every_tensor():
    model = transformer_xl(**SHAPE, **SHRINKING, memory=4)
    params = toys.values(model.spec())
    rows = [{"tokens": r, "segments": np.ones_like(r)} for r in np.random.default_rng(0).integers(0, VOCAB, (4, 30))]
    examples = [NextToken().examples()(row, np.random.default_rng(0)) for row in rows]
    batch = {key: np.stack([e[key] for e in examples]) for key in examples[0]}
    logs = model(params, batch)
    toys.close(np.exp(logs).sum(-1), np.ones(logs.shape[:2]))
    total, gradient = jax.value_and_grad(lambda p: NextToken()(model, p, batch, Ctx()).total)(params)
    nll = -np.take_along_axis(np.asarray(logs), batch["targets"][..., None], axis=-1).sum()
    np.testing.assert_allclose(total, nll, rtol=1e-5)
    assert all(np.abs(g).max() > 0 for g in jax.tree.leaves(gradient))


def test_ties_of_bands():
    def size(**knobs):
        return count(transformer_xl(**SHAPE, memory=4, **knobs).spec())

    # Bands of 4, 6 and 13 tokens, 8, 4 and 2 wide: tables, projections (the first of the head's is never tied).
    tables, projections = 4 * 8 + 6 * 4 + 13 * 2, D * (8 + 4 + 2)
    assert size(**SHRINKING, tied=False) - size(**SHRINKING) == tables
    assert size(**SHRINKING, tied_projections=False) - size(**SHRINKING) == projections - D * 8
    assert size(**SHRINKING) - size() == (tables + projections + D * 8 + 2 * (8 + 1)) - VOCAB * D
    # Bands of one width: one projection on the way in, and one of the head's own.
    assert size(cutoffs=(7,), embed_width=8) - size() == (VOCAB * 8 + 2 * D * 8 + 8 + 1) - VOCAB * D


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"cutoffs": (9, 4)}, r"cutoffs=\(9, 4\) of a vocabulary of 23 must rise"),
        ({"cutoffs": (23,)}, "must rise, and lie between 0 and that"),
        ({"cutoffs": (4, 10), "shrink": 4}, "width=12 divided by shrink=4 for each of 2 cutoffs leaves nothing"),
    ],
)
def test_bands_that_cannot_be(knobs, message):
    with pytest.raises(UserError, match=message):
        AdaptiveHead(VOCAB, **knobs).spec(D)


def test_gopher():
    model = gopher(layers=2, d_model=D, heads=HEADS, head_dim=SIZE, vocab=VOCAB, clamp=4, eps=1e-2)
    params = toys.values(model.spec())
    tokens = np.random.default_rng(0).integers(0, VOCAB, (1, LENGTH))
    p = jax.tree.map(np.asarray, params)

    def norm(own, x):
        return x / math.sqrt((x**2).mean() + 1e-2) * own["w"]

    def gelu(x):
        return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))

    table, stack = p["body"]["embed"]["token"], p["body"]["stack"]
    xs = [table[t] for t in tokens[0]]
    for i in range(2):
        layer = jax.tree.map(lambda x, i=i: x[i], stack["0"]["0"])
        states = list(enumerate(norm(layer["attention_norm"], x) for x in xs))
        term = layer["attention"]["terms"]["0"]
        added = attend(layer["attention"], term["u"], term["v"], states, states, lambda a, b: b <= a, 4)
        xs = [x + y for x, y in zip(xs, added, strict=True)]
        mlp = layer["mlp"]
        xs = [x + gelu(norm(layer["mlp_norm"], x) @ mlp["up"]["w"]) @ mlp["down"]["w"] for x in xs]
    expected = np.stack([table @ norm(stack["norm"], x) for x in xs])
    toys.close(toys.forward(model, params, {"tokens": tokens})[0][0], expected, atol=2e-5)
