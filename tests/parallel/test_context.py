"""Attention among tokens on several devices is what it is on one, gradients too."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.tree_util import Partial

from lm.core.ctx import Ctx, Execution
from lm.core.errors import UserError
from lm.core.mesh import Sharding, make_mesh
from lm.core.rows import Tokens
from lm.core.rules import PRESETS
from lm.kernels.attention import reference, ring
from lm.kernels.attention.ring import Ring
from lm.kernels.attention.spec import AttentionSpec, Own
from lm.kernels.place import Place
from lm.model.attend import attend
from lm.model.attention_bias import Alibi, BucketedBias
from lm.model.masks import Bidirectional, Causal, Chunked, Dilated, Prefix, Strided, Window
from lm.parallel.zigzag import in_row_order, zigzagged

B, WIDTH, VALUE = 2, 8, 6
CAUSAL = AttentionSpec(Causal(), 0.5, aligned=True)
T5 = BucketedBias(buckets=6, max_distance=9)


def mesh_of(rules="default", **sizes) -> Sharding:
    return Sharding(make_mesh(sizes, jax.devices()[: math.prod(sizes.values())]), PRESETS[rules])


def tokens_of(length: int, texts: int = 3, seed: int = 0) -> Tokens:
    """Rows of several texts, of other lengths in each, with padding behind them; each text begins with a prefix."""
    rng = np.random.default_rng(seed)
    positions, segments = np.zeros((2, B, length), np.int32)
    for row in range(B):
        ends = [0, *np.sort(rng.integers(1, length, texts)), length]
        for number, (start, end) in enumerate(itertools.pairwise(ends), 1):
            positions[row, start:end], segments[row, start:end] = np.arange(end - start), number % (texts + 1)
    return Tokens(jnp.asarray(positions), jnp.asarray(segments), jnp.asarray((positions < 3) & (segments > 0)))


def arrays(spec: AttentionSpec, heads: int, kv: int, s: int, t: int) -> tuple:
    """What an attention has gradients for, and the weights of its outputs."""
    rng = np.random.default_rng(0)
    draw = lambda *shape: jnp.asarray(rng.standard_normal(shape), jnp.float32)  # noqa: E731
    given = {"qkv": (draw(B, heads, s, WIDTH), draw(B, kv, t, WIDTH), draw(B, kv, t, VALUE))}
    given["sinks"] = draw(heads) if spec.sinks else None
    given["own"] = Own(draw(B, heads, s), draw(B, heads, s, VALUE)) if spec.own else None
    given["table"] = draw(T5.buckets, heads)
    return given, draw(B, heads, s, VALUE)


def added(table, q_tokens, k_tokens):
    """T5's bias by that table [buckets, H], and ALiBi's."""
    ctx, shape = Ctx(shared={"relative_bias": table}), jax.ShapeDtypeStruct((B, table.shape[1], 1, 1), jnp.float32)
    return sum(b({}, shape, shape, q_tokens, k_tokens, ctx, 0.5) for b in (T5, Alibi()))


def value_and_grads(attend, spec, given, target):
    """`attend(q, k, v, bias=, sinks=, own=)`: its values, and gradients by everything."""

    def loss(given):
        bias = Partial(added, given["table"]) if spec.bias else None
        y = attend(*given["qkv"], bias=bias, sinks=given["sinks"], own=given["own"])
        return (y * target).sum(), y

    (_, y), grads = jax.jit(jax.value_and_grad(loss, has_aux=True))(given)
    return y, grads


def compared(spec, sharding, way, heads=4, kv=2, s=32, t=None, zigzag=False, rate=0.0):
    """On the mesh, and on one device."""
    t, n = t or s, math.prod(sharding.mesh.shape[axis] for axis in ("context",))
    given, target = arrays(spec, heads, kv, s, t)
    q_tokens = tokens_of(s)
    k_tokens = q_tokens if spec.aligned else tokens_of(t, seed=1)
    back = np.argsort(np.asarray(zigzagged(jnp.arange(s)[None], n))[0]) if zigzag else np.arange(s)
    there = np.argsort(back)

    def spread(q, k, v, **given):
        k, v, of_keys = (k[:, :, there], v[:, :, there], k_tokens[there]) if spec.aligned else (k, v, k_tokens)
        ctx = Ctx(sharding=sharding, execution=Execution(context=way), zigzag=zigzag)
        return attend(q[:, :, there], k, v, spec, q_tokens[there], of_keys, ctx, {}, **given)[:, :, back]

    def alone(q, k, v, **given):
        return reference.reference(q, k, v, spec, q_tokens, k_tokens, place=Place("cpu"), **given)

    got, want = (value_and_grads(f, spec, given, target) for f in (spread, alone))
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-5 * max(1, np.abs(b).max()), rtol=2e-5)


BIASED = AttentionSpec(Causal(), 0.5, cap=2.0, bias="pairwise", sinks=True, aligned=True)


@pytest.mark.parametrize(
    ("spec", "mesh", "more"),
    [
        (CAUSAL, {"context": 8}, {}),
        (CAUSAL, {"data": 2, "context": 4}, {"heads": 8, "kv": 1, "zigzag": True}),
        (AttentionSpec(Window(5), 0.5, sinks=True, aligned=True), {"context": 4}, {"zigzag": True}),
        (AttentionSpec(Window(5, 3), 0.5, aligned=True), {"data": 2, "context": 4}, {}),
        (AttentionSpec(Prefix(), 0.5, aligned=True), {"context": 4}, {"zigzag": True}),
        (BIASED, {"fsdp": 2, "context": 2, "tensor": 2}, {"zigzag": True}),
        (AttentionSpec(Bidirectional(), 0.5, bias="pairwise"), {"context": 4}, {"t": 24}),  # another text
    ],
    ids=lambda v: type(v.mask).__name__ if isinstance(v, AttentionSpec) else None,
)
def test_a_ring(spec, mesh, more, monkeypatch):
    """Packed texts with padding, in several blocks a device."""
    monkeypatch.setattr(ring, "BLOCK", 2)
    compared(spec, mesh_of(**mesh), "ring", **more)


MASKS = [Causal(), Window(3), Window(9, 4), Strided(3), Dilated(2, 3), Chunked(6), Chunked(5, causal=False), Prefix()]


@pytest.mark.slow
@settings(max_examples=12)
@given(st.data())
def test_a_ring_of_any_shape(data):
    draw = data.draw
    ways, chunk, kv = draw(st.sampled_from([2, 4, 8])), draw(st.integers(1, 7)), draw(st.integers(1, 2))
    spec = AttentionSpec(
        draw(st.sampled_from(MASKS)),
        0.5,
        cap=draw(st.sampled_from([None, 1.0])),
        sinks=draw(st.booleans()),
        bias=draw(st.sampled_from([None, "pairwise"])),
        aligned=True,
    )
    heads, zigzag = kv * draw(st.integers(1, 3)), draw(st.booleans())
    compared(spec, mesh_of(context=ways), "ring", heads, kv, 2 * ways * chunk, zigzag=zigzag)


@pytest.mark.parametrize(
    ("spec", "mesh", "more"),
    [
        (CAUSAL, {"data": 2, "context": 4}, {"heads": 8, "kv": 1}),
        (BIASED, {"context": 2, "tensor": 2}, {}),
        (AttentionSpec(Causal(), 0.5, own=True, aligned=True), {"context": 4}, {}),
    ],
)
def test_heads_for_tokens(spec, mesh, more):
    compared(spec, mesh_of(**mesh), "ulysses", **more)


def program_of(way: str, sharding: Sharding, kv: int, heads: int = 8, s: int = 32) -> str:
    """The compiled gradient of a causal attention, as text."""
    of = lambda n: jax.ShapeDtypeStruct(  # noqa: E731
        (B, n, s, WIDTH), jnp.float32, sharding=sharding.named(("batch", "heads", "seq", None))
    )
    row = jax.ShapeDtypeStruct((B, s), jnp.int32, sharding=sharding.named(("batch", None)))

    def loss(q, k, v, positions):
        tokens = Tokens(positions)
        ctx = Ctx(sharding=sharding, execution=Execution(context=way))
        return jnp.square(attend(q, k, v, CAUSAL, tokens, tokens, ctx, {})).sum()

    return jax.jit(jax.grad(loss, argnums=(0, 1, 2))).lower(of(heads), of(kv), of(kv), row).compile().as_text()


@pytest.mark.parametrize(("mesh", "kv"), [({"data": 2, "context": 4}, 1), ({"context": 4, "tensor": 2}, 8)])
def test_what_is_sent(mesh, kv):
    """No way but the one named so gathers keys and values."""
    collectives = {way: program_of(way, mesh_of(**mesh), kv) for way in ("ring", "ulysses", "gather")}
    sent = {
        way: {kind for kind in ("all-gather", "all-to-all", "collective-permute") if f" {kind}(" in text}
        for way, text in collectives.items()
    }
    assert sent["ring"] == {"collective-permute"}
    assert sent["ulysses"] == {"all-to-all"}
    assert "all-gather" in sent["gather"]


# ---------------------------------------------------------------------------------------------------------------------
# Who does what


@pytest.mark.parametrize("ways", [2, 4, 16])
def test_zigzag_gives_all_devices_as_much_to_do(ways):
    length = 64 * ways
    contiguous, zigzag = (Ring(CAUSAL, ("context",), ways, order, block=8).work(length) for order in (False, True))
    assert len(set(zigzag)) == 1 and sum(zigzag) == sum(contiguous)
    assert max(contiguous) > 1.4 * sum(contiguous) / ways  # the last device, for whom all others wait
    half = length * length / 2  # what a causal mask shows of all pairs
    assert half <= sum(zigzag) <= half * (1 + 8 / 64)


def test_what_the_band_hides_is_not_computed(monkeypatch):
    """Blocks of scores made by each device, counted while it runs, are those that `work` tells of."""
    made = np.zeros(4, int)
    scores = ring._scores

    def counted(*args):
        jax.debug.callback(lambda i: np.add.at(made, int(i), 1), jax.lax.axis_index("context"))
        return scores(*args)

    monkeypatch.setattr(ring, "BLOCK", 2)
    monkeypatch.setattr(ring, "_scores", counted)
    given, _ = arrays(CAUSAL, 2, 2, 32, 32)
    tokens = Tokens(jnp.tile(jnp.arange(32), (B, 1)))
    for zigzag in (False, True):
        made[:] = 0
        ctx = Ctx(sharding=mesh_of(context=4), zigzag=zigzag)
        jax.block_until_ready(jax.jit(lambda ctx=ctx: attend(*given["qkv"], CAUSAL, tokens, tokens, ctx, {}))())
        jax.effects_barrier()
        work = Ring(CAUSAL, ("context",), 4, zigzag, block=2).work(32)
        assert made.tolist() == [pairs // 4 for pairs in work]


@pytest.mark.parametrize(
    ("mask", "zigzag", "expected"),
    [
        (Causal(), False, (0, 8)),
        (Causal(), True, (0, 8)),
        (Window(4), False, (0, 2)),  # the own keys, and those of the device before
        (Window(4), True, (7, 3)),  # of chunks that go down as well as up, those behind too
        (Window(1), False, (0, 1)),
        (Window(20), False, (0, 4)),
        (Window(4, 3), False, (7, 3)),
        (Bidirectional(), False, (0, 8)),
    ],
)
def test_keys_go_no_farther_than_they_are_seen(mask, zigzag, expected):
    assert Ring(AttentionSpec(mask, 1.0, aligned=True), ("context",), 8, zigzag).hops(64) == expected


@settings(max_examples=40)
@given(st.sampled_from([1, 2, 4, 8]), st.integers(1, 5), st.booleans(), st.integers(1, 40), st.integers(1, 40))
def test_hops_reach_all_that_is_seen(ways, chunk, zigzag, left, right):
    length = 2 * ways * chunk
    ring = Ring(AttentionSpec(Window(left, right), 1.0, aligned=True), ("context",), ways, zigzag, block=3)
    first, number = ring.hops(length)
    assert 1 <= number <= ways
    q, k = np.mgrid[:length, :length]
    size = length // len(ring.chunks(0)) // ways
    home = {chunk: device for device in range(ways) for chunk in ring.chunks(device)}
    for a, b in {(i // size, j // size) for i, j in zip(*np.nonzero((k - q > -left) & (k - q < right)), strict=True)}:
        assert (home[a] - home[b] - first) % ways < number


# ---------------------------------------------------------------------------------------------------------------------
# Orders, choices, refusals


@pytest.mark.parametrize("ways", [2, 4, 8])
def test_there_and_back(ways):
    sharding = mesh_of(context=ways)
    x = jnp.arange(B * 6 * ways * 2.0).reshape(B, 6 * ways, 2)
    first = np.asarray(zigzagged(x, ways)[0, :6, 0]) / 2
    assert first.tolist() == [0, 1, 2, 6 * ways - 3, 6 * ways - 2, 6 * ways - 1]
    back = jax.jit(lambda x: in_row_order(zigzagged(x, ways), sharding.mesh, ("context",), ways))(x)
    np.testing.assert_array_equal(back, x)


def attended(spec, way, sharding, heads=4, s=32, zigzag=False):
    given, _ = arrays(spec, heads, 2, s, s)
    tokens = tokens_of(s)
    ctx = Ctx(sharding=sharding, execution=Execution(context=way), zigzag=zigzag)
    bias = (lambda q, k: jnp.zeros((1, 1, q.positions.shape[1], s))) if spec.bias else None
    run = lambda: attend(*given["qkv"], spec, tokens, tokens, ctx, {}, bias=bias)  # noqa: E731
    return jax.jit(run).lower().as_text()


def test_the_best_way_is_taken(caplog):
    """A ring; where it cannot do it, heads for tokens; and, said once, what always goes."""
    sharding = mesh_of(data=2, context=4)
    whole = AttentionSpec(Causal(), 0.5, bias="whole", aligned=True)
    assert "collective_permute" in attended(CAUSAL, "auto", sharding)
    assert "collective_permute" not in attended(whole, "auto", sharding)
    assert not caplog.messages
    for _ in range(2):
        assert "collective_permute" not in attended(whole, "auto", sharding, heads=2)
    (line,) = caplog.messages
    assert line.startswith("attention: every device gathers the keys and values of whole rows (ring: a bias needs all")
    assert line.endswith("; ulysses: 2 heads do not spread evenly over 4 devices)")


@pytest.mark.parametrize(
    ("way", "change", "reason"),
    [
        (
            "ring",
            {"spec": AttentionSpec(Causal(), 0.5, bias="whole")},
            r"\(a bias needs all queries and keys at once\)",
        ),
        ("ring", {"s": 30}, r"\(30 queries do not spread evenly over 4 devices\)"),
        ("ulysses", {"heads": 2}, r"\(2 heads do not spread evenly over 4 devices\)"),
        ("rings", {}, r"^context='rings' is no way to attend; did you mean 'ring'\?"),
    ],
)
def test_a_way_that_cannot_go_is_refused(way, change, reason):
    given = {"spec": CAUSAL, "sharding": mesh_of(context=4)} | change
    with pytest.raises(UserError, match=reason):
        attended(way=way, **given)


def test_a_tensor_axis_alone_is_no_context():
    """With the rules `sequence` it cuts the tokens between sub-layers, but heads within attention."""
    assert "collective_permute" not in attended(CAUSAL, "auto", mesh_of("sequence", tensor=4))
