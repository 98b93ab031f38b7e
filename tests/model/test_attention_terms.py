"""Attention's variants against transcriptions of their formulas, written with loops."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lm.core.ctx import Ctx
from lm.core.errors import UserError
from lm.core.rows import Tokens
from lm.model.attention import Softmax
from lm.model.attention_bias import BiasTable, BucketedBias, RelativeBias
from lm.model.layers import LayerNorm
from lm.model.masks import Bidirectional
from lm.model.positions import Learned
from lm.model.special.block_sparse import EdgeBlocks
from lm.model.special.disentangled import ContentToPosition, Distances, PositionToContent
from lm.model.special.query_attention import QueryAttention
from tests import toys
from tests.toys import HEADS, LENGTH, SIZE, D, attention


def heads(x: np.ndarray, w: np.ndarray) -> np.ndarray:
    """x [S, D] w [D, heads size] -> [heads, S, size]."""
    return np.moveaxis((x @ np.asarray(w)).reshape(len(x), HEADS, SIZE), 1, 0)


def finish(scores: np.ndarray, v: np.ndarray, o: np.ndarray) -> np.ndarray:
    """scores [heads, S, T], v [heads, T, size] -> [S, D]."""
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    y = (weights / weights.sum(-1, keepdims=True)) @ v
    return np.moveaxis(y, 0, 1).reshape(len(y[0]), -1) @ np.asarray(o)


@functools.partial(jax.jit, static_argnums=0)
def call(layer, p, x, shared=None):
    ctx = Ctx(rows={"positions": jnp.broadcast_to(jnp.arange(x.shape[1]), x.shape[:2])}, shared=shared or {})
    return layer(p, x, ctx, None, {})[0]


@pytest.fixture(scope="module")
def x() -> np.ndarray:
    return np.random.default_rng(1).standard_normal((1, LENGTH, D)).astype(np.float32)


def parts(p, x):
    return (heads(x[0], p[n]["w"]) for n in "qkv")


def bucket_of_distance(distance: int, span: int, farthest: int | None) -> int:
    """As DeBERTa's second version has it: exact up to half the span, then logarithmic."""
    half, near = span // 2, abs(distance)
    if farthest is None or near <= half:
        return distance
    far = half + math.ceil(math.log(near / half) / math.log((farthest - 1) / half) * (half - 1))
    return far if distance > 0 else -far


@pytest.mark.parametrize("farthest", [None, 7])
@pytest.mark.parametrize("names", ["both", "key", "query"])
def test_disentangled_attention(x, names, farthest):
    span = 4
    distances = Distances(span, farthest)
    both = (ContentToPosition(distances, bias=farthest is None), PositionToContent(distances, bias=True))
    terms = {"both": both, "key": both[:1], "query": both[1:]}[names]
    layer = attention(bias=terms, mask=Bidirectional(), softmax=Softmax(((1 + len(terms)) * SIZE) ** -0.5))
    table = BiasTable(2 * span, norm=LayerNorm())
    p, table_p = toys.values(layer.spec(D)), toys.values(table.spec(D))
    relative = np.asarray(table(table_p, Ctx()))
    q, k, v = parts(p, x)
    projected = {}
    for i, _ in enumerate(terms):
        for name, linear in p["terms"][str(i)].items():
            projected[name] = heads(relative, linear["w"])
            if "b" in linear:
                projected[name] += np.asarray(linear["b"]).reshape(HEADS, 1, SIZE)
    scores = np.zeros((HEADS, LENGTH, LENGTH))
    for h in range(HEADS):
        for i in range(LENGTH):
            for j in range(LENGTH):
                row = min(max(bucket_of_distance(i - j, span, farthest) + span, 0), 2 * span - 1)
                scores[h, i, j] = q[h, i] @ k[h, j]
                if "key" in projected:
                    scores[h, i, j] += q[h, i] @ projected["key"][h, row]
                if "query" in projected:
                    scores[h, i, j] += k[h, j] @ projected["query"][h, row]
    scores /= math.sqrt((1 + len(terms)) * SIZE)
    toys.close(call(layer, p, x, {"relative": relative})[0], finish(scores, v, p["o"]["w"]))


@pytest.mark.parametrize(("span", "farthest"), [(256, 512), (7, 12), (2, 9), (128, 4096), (9, None)])
def test_rows_of_distances(span, farthest):
    """Far beyond `farthest`, on both sides."""
    positions = jnp.arange(0, 5000)[None]
    rows = Distances(span, farthest).rows(Tokens(positions[:, ::4999]), Tokens(positions))[0]
    for i, query in enumerate((0, 4999)):
        expected = [bucket_of_distance(query - j, span, farthest) + span for j in range(5000)]
        np.testing.assert_array_equal(rows[i], np.clip(expected, 0, 2 * span - 1))


def test_buckets_must_fit():
    with pytest.raises(UserError, match="max_distance=4 cannot have span=6: it must be at least 2 and less than 6"):
        Distances(6, max_distance=4)


def test_relative_positions_of_segment_recurrence(x):
    layer = attention(bias=(RelativeBias(),))
    p = toys.values(layer.spec(D))
    q, k, v = parts(p, x)
    term = p["terms"]["0"]
    scores = np.full((HEADS, LENGTH, LENGTH), -np.inf)
    for i in range(LENGTH):
        for j in range(i + 1):
            angles = np.array([(i - j) / 10000 ** (2 * f / D) for f in range(D // 2)])
            r = heads(np.concatenate([np.sin(angles), np.cos(angles)])[None].astype(np.float32), term["r"]["w"])
            for h in range(HEADS):
                u, w = np.asarray(term["u"])[h], np.asarray(term["v"])[h]
                scores[h, i, j] = ((q[h, i] + u) @ k[h, j] + (q[h, i] + w) @ r[h, 0]) / math.sqrt(SIZE)
    toys.close(call(layer, p, x)[0], finish(scores, v, p["o"]["w"]))


def bucket(ahead: int, buckets: int, farthest: int, bidirectional: bool) -> int:
    first = 0
    if bidirectional:
        buckets //= 2
        first = buckets if ahead > 0 else 0
        distance = abs(ahead)
    else:
        distance = max(-ahead, 0)
    exact = buckets // 2
    if distance < exact:
        return first + distance
    return first + min(
        exact + int(math.log(distance / exact) / math.log(farthest / exact) * (buckets - exact)), buckets - 1
    )


@pytest.mark.parametrize(("buckets", "farthest", "bidirectional"), [(32, 128, True), (32, 128, False), (8, 20, True)])
def test_buckets_of_distance(buckets, farthest, bidirectional):
    ahead = np.arange(-2 * farthest, 2 * farthest)
    expected = [bucket(int(a), buckets, farthest, bidirectional) for a in ahead]
    assert BucketedBias("t", buckets, farthest, bidirectional).bucket(jnp.asarray(ahead)).tolist() == expected


def test_shared_bias_per_head(x):
    layer = attention(
        bias=(BucketedBias(buckets=6, max_distance=7, bidirectional=True),), mask=Bidirectional(), softmax=Softmax(1.0)
    )
    p, table = toys.values(layer.spec(D)), np.random.default_rng(2).standard_normal((6, HEADS)).astype(np.float32)
    q, k, v = parts(p, x)
    bias = [[table[bucket(j - i, 6, 7, True)] for j in range(LENGTH)] for i in range(LENGTH)]
    scores = q @ np.swapaxes(k, 1, 2) + np.moveaxis(np.asarray(bias), -1, 0)
    toys.close(call(layer, p, x, {"relative_bias": table})[0], finish(scores, v, p["o"]["w"]))


@pytest.mark.parametrize("whole", [0, LENGTH])
def test_blocks_at_the_edges(x, whole):
    """Blocks [0 1] [2 3] [4 5] [6 7]: inner ones see the first thrice, their neighbours and the last."""
    layer = attention(bias=(EdgeBlocks(2, 2, whole),), mask=Bidirectional())
    p = toys.values(layer.spec(D))
    q, k, v = parts(p, x)
    scores = q @ np.swapaxes(k, 1, 2) / math.sqrt(SIZE)
    for i in range(LENGTH):
        for j in range(LENGTH if whole == 0 else 0):
            own, other = i // 2, j // 2
            if own in (0, 3):
                continue
            if other == 0:
                scores[:, i, j] += math.log(3)
            elif other not in (own - 1, own, own + 1, 3):
                scores[:, i, j] = -np.inf
    toys.close(call(layer, p, x)[0], finish(scores, v, p["o"]["w"]))


def test_edges_are_those_of_each_text():
    """Blocks of one: of six tokens packed with three others, and padding."""
    tokens = Tokens(jnp.array([[0, 1, 2, 3, 4, 5, 0, 1, 2, 0]]), jnp.array([[1] * 6 + [2] * 3 + [0]]))
    q = jnp.zeros((1, 1, 10, 1))
    seen = EdgeBlocks(1, 0)({}, q, q, tokens, tokens, Ctx(), 1.0)[0, 0] == 0
    assert [np.flatnonzero(seen[i, :6]).tolist() for i in (0, 1, 2, 5)] == [
        [0, 1, 2, 3, 4, 5],
        [0, 1, 2, 5],
        [0, 1, 2, 3, 5],
        [0, 1, 2, 3, 4, 5],
    ]
    assert seen[6:9, 6:9].all()


def test_query_layer_asks_with_its_own_table(x):
    layer = QueryAttention(attention(), Learned(16))
    p = toys.values(layer.spec(D))
    _, k, v = parts(p, x)
    scores = heads(np.asarray(p["query"]["w"])[:LENGTH], p["q"]["w"]) @ np.swapaxes(k, 1, 2) / math.sqrt(SIZE)
    scores[:, ~np.tri(LENGTH, dtype=bool)] = -np.inf
    toys.close(call(layer, p, x)[0], finish(scores, v, p["o"]["w"]))


@pytest.mark.parametrize(
    ("term", "shared", "named"),
    [
        (BucketedBias("bias", 6), {"bais": (6, HEADS)}, "'bias', which its stack lacks; did you mean 'bais'"),
        (BucketedBias("bias", 6), {"bias": (5, HEADS)}, "table 'bias' has rows=5, but an attention bias reads 6"),
        (
            ContentToPosition(Distances(4, name="rel")),
            {"rel": (7, D)},
            "table 'rel' has rows=7, but an attention bias reads 8",
        ),
    ],
)
def test_a_term_and_its_table_must_agree(term, shared, named, x):
    layer = attention(bias=(term,))
    with pytest.raises(UserError, match=named):
        call(layer, toys.values(layer.spec(D)), x, {k: jnp.zeros(shape) for k, shape in shared.items()})


# ---------------------------------------------------------------------------------------------------------------------
# Memory of earlier segments


@dataclasses.dataclass(frozen=True)
class Recent:
    """What two segments of `length` with a memory of `memory` tokens see, as one mask."""

    length: int
    memory: int

    def allowed(self, q, k):
        q, k = q.positions[:, :, None], k.positions[:, None, :]
        return (k <= q) & ((q < self.length) | (k >= self.length - self.memory))

    def band(self):
        return None, None

    def separated(self):
        return None


@pytest.fixture(scope="module")
def recurrent():
    """A model with a memory of 3, its parameters, two segments, and the cache after the first."""
    model = toys.recurrent(memory=3)
    params, whole = toys.values(model.spec()), toys.tokens(2)
    at = jnp.broadcast_to(jnp.arange(LENGTH), whole.shape)
    one, two = ({"tokens": whole[:, s], "positions": at[:, s]} for s in (slice(0, 4), slice(4, 8)))
    first, cache, _ = toys.forward(model, params, one, cache=model.cache(toys.shape(2)))
    return model, params, whole, two, first, cache


def test_two_segments_with_memory_equal_one_long_call(recurrent):
    model, params, whole, two, first, cache = recurrent
    second, _, _ = toys.forward(model, params, two, cache=cache)
    block = model.body.stack.segments[0].pattern[0]
    masked = dataclasses.replace(block.parts[0][1], mask=Recent(4, 3))
    whole_model = toys.language_model(
        [dataclasses.replace(block, parts=(("attention", masked), block.parts[1]))] * 2, norm=None
    )
    expected, _, _ = toys.forward(whole_model, params, {"tokens": whole})
    toys.close(jnp.concatenate([first, second], axis=1), expected)


def test_no_gradient_into_the_memory(recurrent):
    model, params, _, two, _, cache = recurrent

    def loss(scale):
        scaled = [s | {"attention": dataclasses.replace(s["attention"], x=s["attention"].x * scale)} for s in cache]
        return jnp.square(toys.forward(model, params, two, cache=scaled)[0]).sum()

    value, slope = jax.jit(jax.vmap(jax.value_and_grad(loss)))(jnp.array([1.0, 1.5]))
    assert toys.differ(value[0], value[1])
    assert slope.tolist() == [0.0, 0.0]
