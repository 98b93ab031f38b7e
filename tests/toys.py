"""Toy models in which every component of lm.model occurs, and what tests do with them."""

import dataclasses
import functools
from typing import Any

import jax
import numpy as np

from lm.core.ctx import Ctx, Execution
from lm.core.param import Constant, Normal, Param, Xavier, flatten
from lm.model.attention import Attention, Projections, QKNorm, Softmax
from lm.model.attention_bias import Alibi, BiasTable, BucketedBias, RelativeBias
from lm.model.block import Block, Parallel
from lm.model.cache import CacheShape
from lm.model.embed import Embed
from lm.model.heads import LMHead
from lm.model.kv_sources import SegmentMemory
from lm.model.layers import LayerNorm, RMSNorm
from lm.model.masks import (
    Causal,
    Chunked,
    Dilated,
    Permuted,
    Prefix,
    Strided,
    Window,
)
from lm.model.mlp import MLP, GatedMLP
from lm.model.moe.balanced import BalancedAssignment, Sinkhorn
from lm.model.moe.dispatch import Capacity, Dispatch, Dropless
from lm.model.moe.hash import Hash
from lm.model.moe.layer import MoE
from lm.model.moe.routers import Router
from lm.model.moe.sparse_mixer import SparseMixer
from lm.model.moe.top_k import Groups, TopK
from lm.model.positions import Learned, Sinusoidal
from lm.model.residual import Plain, PostNorm, PreNorm, ResiDual, Sandwich
from lm.model.rotary import (
    DynamicScaling,
    FrequencyScaling,
    LinearScaling,
    LongScaling,
    NTKScaling,
    PowerScaling,
    Rotary,
    Rotary2D,
    YarnScaling,
)
from lm.model.special.adaptive import AdaptiveEmbed, AdaptiveHead
from lm.model.special.block_sparse import BlockSparse
from lm.model.special.disentangled import ContentToPosition, Distances, PositionToContent
from lm.model.special.head_experts import HeadExperts
from lm.model.special.latent import LatentAttention
from lm.model.special.multi_token import MultiTokenHead
from lm.model.special.query_attention import QueryAttention
from lm.model.special.resize import Resize
from lm.model.special.same_type import SameType
from lm.model.special.sub_norm import SubNormAttention
from lm.model.stack import Stack
from lm.model.transformer import LanguageModel, Transformer

D, HEADS, SIZE, VOCAB, LENGTH = 8, 2, 4, 13, 8
WIDE = Normal(0.4)  # wide enough that a mistake shows

maps = functools.partial(Projections, init=WIDE, out_init=WIDE)
attention = functools.partial(Attention, HEADS, SIZE, projections=maps())
gated = GatedMLP(12, init=WIDE, out_init=WIDE)
mlp = MLP(12, init=WIDE, out_init=WIDE)
pre = PreNorm(RMSNorm())


def block(self_attention: Any, feed_forward: Any = gated, residual: Any = pre, **more: Any) -> Block:
    parts = {"attention": self_attention, **more, "mlp": feed_forward}
    return Block(tuple(parts.items()), residual)


def tower(blocks: list[Block], position: Any = None, tied: bool = False, **stack: Any) -> Transformer:
    stack = {"norm": RMSNorm()} | stack
    return Transformer(D, Embed(VOCAB, position, init=WIDE), Stack.of(blocks, tied=tied, **stack))


def language_model(blocks: list[Block], position: Any = None, **stack: Any) -> LanguageModel:
    return LanguageModel(tower(blocks, position, **stack), LMHead(VOCAB, init=WIDE))


rotary = Rotary(theta=100.0)
local = block(attention(mask=Window(3), rotary=rotary))
everywhere = block(attention(rotary=Rotary(theta=1000.0, fraction=0.5, interleaved=True)))
dropping = PreNorm(RMSNorm(), dropout=0.25)


def experts(router: Router, dispatch: Dispatch = Capacity()) -> MoE:
    return MoE(experts=4, expert=GatedMLP(6, init=WIDE, out_init=WIDE), router=router, dispatch=dispatch)


def learned_positions() -> LanguageModel:
    """GPT-2's choices, with a tied head and dropout inside the sub-layers."""
    one = block(
        attention(projections=maps(("q", "k", "v", "o")), dropout=0.25),
        dataclasses.replace(mlp, dropout=0.25),
        PreNorm(LayerNorm()),
    )
    body = Transformer(
        D, Embed(VOCAB, Learned(16, init=WIDE), dropout=0.25, init=WIDE), Stack.of([one] * 2, norm=LayerNorm())
    )
    return LanguageModel(body, LMHead(VOCAB, bias=True), ties=(("head/w", "body/embed/token"),))


def grouped_queries() -> LanguageModel:
    """LLaMA's choices, with norms of queries and keys and both scalings."""
    one = attention(
        kv_heads=1,
        rotary=Rotary(scaling=FrequencyScaling(low=0.05, high=20.0, original=64)),
        qk_norm=QKNorm(RMSNorm(), LayerNorm()),
    )
    two = attention(kv_heads=1, rotary=Rotary(scaling=LinearScaling(2.0)), softmax=Softmax(0.3))
    return language_model([block(one), block(two)])


def windows() -> LanguageModel:
    """Two local layers to a global one, with a tail: 2 x 3 + 1 layers."""
    return language_model((([local] * 2 + [everywhere]) * 3)[:7])


def wirings() -> LanguageModel:
    """A different residual wiring in each layer."""
    one = attention(rotary=rotary)
    both = (("attention", one), ("mlp", mlp))
    return language_model(
        [
            block(one, mlp, Sandwich(RMSNorm(), LayerNorm(bias=False))),
            block(one, mlp, PostNorm(LayerNorm(), alpha=1.5)),
            Block((("both", Parallel(both)),), PreNorm(LayerNorm())),
            Block((("both", Parallel(both, norms=LayerNorm())),), Plain()),
        ]
    )


def stretched() -> LanguageModel:
    """A way to stretch rotary positions in each layer, and xPos in the last."""
    scalings = (
        NTKScaling(3.0),
        DynamicScaling(3.0, LENGTH),
        YarnScaling(3.0, 64, 3.2, 0.2, 0.7, rounded=False),
        LongScaling((1.0, 1.5), (2.0, 3.0), LENGTH, 1.3),
        PowerScaling(0.5),
        None,
    )
    rotaries = [Rotary(theta=100.0, scaling=s, decay=None if s else 20.0) for s in scalings]
    return language_model([block(attention(rotary=r)) for r in rotaries])


def sparse() -> LanguageModel:
    """Masks with holes, and biases of distance."""
    masks = (Strided(3), Dilated(2, 2), Chunked(4), Causal())
    terms = (Alibi(), Alibi(scaled=True), Alibi(scaled=True, rounded=True), BlockSparse(2, 1, 4))
    layers = [attention(mask=m, bias=(t,)) for m, t in zip(masks, terms, strict=True)]
    return language_model([block(dataclasses.replace(layer, heads=3)) for layer in layers])  # slopes of no power of two


def bounded() -> LanguageModel:
    """Caps, clips, sinks, norms of everything, and narrow embeddings."""
    norms = {"q": RMSNorm(), "k": RMSNorm(gain="1+w")}
    one = attention(rotary=rotary, softmax=Softmax(cap=2.0, sinks=True), qk_norm=QKNorm(**norms, after_rotation=True))
    each = QKNorm(**norms, over="each")
    clipped = maps(clip=1.0, v_init=Xavier())
    two = attention(rotary=rotary, projections=clipped, qk_norm=each, softmax=Softmax(by_layer=True))
    three = SubNormAttention(attention(qk_norm=QKNorm(**norms, over="whole")), LayerNorm(gain="none", bias=False))
    sub_norm = dataclasses.replace(mlp, inner_norm=LayerNorm())
    narrow = {"width": 4, "project": "tokens", "project_bias": True}
    embed = Embed(VOCAB, Learned(18, 2, WIDE), token_norm=LayerNorm(), init=WIDE, **narrow)
    blocks = [
        block(one, dataclasses.replace(gated, limit=0.5, shift=1.0), Sandwich(None, RMSNorm())),
        block(two, sub_norm),
        block(three, mlp, PreNorm(LayerNorm(), normed=True)),
    ]
    body = Transformer(D, embed, Stack.of(blocks, norm=LayerNorm()))
    return LanguageModel(body, LMHead(VOCAB, offset=True, cap=3.0, width=4, init=WIDE))


def two_streams() -> LanguageModel:
    return language_model([block(attention(), mlp, ResiDual(LayerNorm()))] * 3, Sinusoidal(100.0))


def shared_layers() -> LanguageModel:
    return language_model(
        [block(attention(), mlp, PostNorm(LayerNorm()))] * 2, Learned(16, init=WIDE), tied=True, norm=None
    )


def balanced(**knobs: Any) -> TopK:
    """DeepSeek-V3's router."""
    return TopK(**{"score": "sigmoid", "normalize": 1.0, "rate": 1e-3, **knobs})


def dense_first(dispatch: Dispatch = Capacity(4.0, group=4), dropout: float = 0.0) -> LanguageModel:
    """A dense layer, then two with experts and balance buffers."""
    residual = PreNorm(RMSNorm(), dropout=dropout)
    moe = experts(balanced(k=2, rate=0.01, init=WIDE), dispatch)
    return language_model([block(attention(rotary=rotary), m, residual) for m in (gated, moe, moe)])


def routed() -> LanguageModel:
    groups = Groups(2, kept=1, best=1)
    router = TopK(k=2, normalize=2.0, scale=1.5, groups=groups, bias=True, jitter=0.25, init=WIDE)
    shared = GatedMLP(5, init=WIDE, out_init=WIDE)
    moe = dataclasses.replace(experts(router, Dropless()), shared=shared, shared_gate=True)
    return language_model([block(attention(), moe)] * 2)


def drawn() -> LanguageModel:
    """Experts that training draws or assigns, and such as are drawn once for all."""
    by_id = Hash(k=2, domains=2)
    base, s_base = BalancedAssignment(group=4, init=WIDE), BalancedAssignment(Sinkhorn(), "softmax", init=WIDE)
    routers = (SparseMixer(0.2, jitter=0.25, init=WIDE), by_id, base, s_base)
    return language_model([block(attention(), experts(router, Dropless())) for router in routers])


def relative_embeddings(mask: Any = Causal()) -> LanguageModel:
    """DeBERTa's: the table is one per stack, the projections one per layer."""
    distances = Distances(4, max_distance=6)
    terms = (ContentToPosition(distances, bias=True, init=WIDE), PositionToContent(distances, init=WIDE))
    one = attention(bias=terms, softmax=Softmax((3 * SIZE) ** -0.5), mask=mask)
    return language_model([block(one, mlp)] * 2, tables=(("relative", BiasTable(8, norm=LayerNorm(), init=WIDE)),))


def bucketed() -> LanguageModel:
    """T5's bias in a decoder-only tower."""
    one = attention(bias=(BucketedBias(buckets=6, max_distance=7),), softmax=Softmax(1.0))
    return language_model([block(one)] * 2, tables=(("relative_bias", BiasTable(6, HEADS, init=WIDE)),))


def recurrent(memory: int = LENGTH) -> LanguageModel:
    one = attention(bias=(RelativeBias(init=WIDE),), source=SegmentMemory(memory))
    return language_model([block(one, mlp, PostNorm(LayerNorm()))] * 2, norm=None)


def banded() -> LanguageModel:
    """Transformer-XL's choices: a vocabulary in bands, tied but for the first projection, and biases for all layers."""
    term = RelativeBias("biases", clamp=4, init=WIDE)
    one = block(attention(mask=Window(LENGTH), bias=(term,), source=SegmentMemory(LENGTH)), mlp, PostNorm(LayerNorm()))
    bands = {"vocab": VOCAB, "cutoffs": (4, 9), "shrink": 2, "init": WIDE}
    tables = (("biases", BiasTable(2, HEADS * SIZE, init=WIDE)),)
    return LanguageModel(
        Transformer(D, AdaptiveEmbed(scale=2.0, dropout=0.25, **bands), Stack.of([one] * 2, tables=tables)),
        AdaptiveHead(**bands),
        tuple((f"head/{i}/w", f"body/embed/{i}/w") for i in range(3)) + (("head/1/project", "body/embed/1/project"),),
    )


def in_any_order() -> LanguageModel:
    """XLNet's, reading ahead no more than the row `order` allows, and without it nothing."""
    terms = (RelativeBias(init=WIDE), SameType(init=WIDE))
    one = attention(mask=Permuted(causal=True), bias=terms, source=SegmentMemory(LENGTH))
    body = Transformer(D, Embed(VOCAB, blank=True, init=WIDE), Stack.of([block(one, mlp, PostNorm(LayerNorm()))] * 2))
    return LanguageModel(body, LMHead(VOCAB, init=WIDE))


def prefixed() -> LanguageModel:
    """GLM's masks; the second layer turns half of each head by the place within a span."""
    two = dataclasses.replace(attention(mask=Prefix(), rotary=Rotary2D(rotary)), head_dim=8)
    return language_model([block(attention(mask=Prefix(), rotary=rotary)), block(two)])


def query_layer() -> LanguageModel:
    """PanGu-alpha's: in the last layer, the next position's embedding asks."""
    last = dataclasses.replace(block(QueryAttention(attention(), Learned(16, init=WIDE)), mlp), norm=LayerNorm())
    return language_model([block(attention(), mlp)] * 2 + [last], Learned(16, init=WIDE))


def latents() -> LanguageModel:
    """DeepSeek's attention, with a latent of the queries and without."""
    knobs = {"heads": HEADS, "nope_dim": 4, "rope_dim": 4, "value_dim": 3, "kv_rank": 6, "init": WIDE, "out_init": WIDE}
    one = LatentAttention(q_rank=5, rotary=rotary, dropout=0.25, **knobs)
    two = LatentAttention(bias=True, norm=LayerNorm(), mask=Window(3), scale=0.7, **knobs)
    return language_model([block(one), block(two)])


def routed_heads() -> LanguageModel:
    """JetMoE's attention, and experts whose sum has a bias."""
    knobs = {"experts": 3, "heads": 2, "head_dim": 4, "rotary": rotary, "dropout": 0.25, "init": WIDE}
    one = HeadExperts(router=TopK(2, normalize=1.0, init=WIDE), out_init=WIDE, **knobs)
    two = HeadExperts(router=TopK(1, rate=0.1, init=WIDE), mask=Window(3), bias=False, out_init=WIDE, **knobs)
    return language_model([block(one, MoE(3, mlp, TopK(2), Dropless(), bias=True)), block(two)])


def narrowing() -> LanguageModel:
    """Another width from the second layer on."""
    first, second = (Stack.of([block(attention(rotary=rotary))] * n).segments for n in (1, 2))
    stack = Stack((*first, Resize(6, RMSNorm(), bias=True, init=WIDE), *second), norm=LayerNorm())
    return LanguageModel(Transformer(D, Embed(VOCAB, init=WIDE), stack), LMHead(VOCAB, init=WIDE))


def many_ahead() -> LanguageModel:
    """Two tokens beyond the next, by modules of one layer."""
    body = tower([block(attention(rotary=rotary))] * 2)
    module = Stack.of([block(attention(rotary=rotary))], norm=RMSNorm())
    ties = (("head/lm/w", "body/embed/token"), ("head/token", "body/embed/token"))
    return LanguageModel(body, MultiTokenHead(LMHead(VOCAB), module, depth=2, norm=LayerNorm(), init=WIDE), ties)


DECODERS = {
    f.__name__: f
    for f in (
        learned_positions,
        grouped_queries,
        windows,
        wirings,
        two_streams,
        shared_layers,
        dense_first,
        routed,
        drawn,
        relative_embeddings,
        bucketed,
        recurrent,
        banded,
        in_any_order,
        prefixed,
        query_layer,
        latents,
        routed_heads,
        narrowing,
        stretched,
        sparse,
        bounded,
    )
}


def values(spec: Any, seed: int = 0) -> Any:
    """Parameters of a spec, with nothing left at zero or one. By numpy, and put on the
    device as they are: no program is compiled for each shape (`jnp.asarray` would)."""
    rng = np.random.default_rng(seed)

    def one(p: Param) -> np.ndarray:
        mean, std = (p.init.value, 0.1) if isinstance(p.init, Constant) else (0.0, 0.4)
        return (mean + std * rng.standard_normal(p.shape)).astype(np.float32)

    return jax.device_put(jax.tree.map(one, spec))


def tokens(batch: int, length: int = LENGTH, seed: int = 0) -> jax.Array:
    return jax.device_put(np.random.default_rng(seed).integers(0, VOCAB, (batch, length)).astype(np.int32))


@functools.partial(jax.jit, static_argnums=0, static_argnames="execution")
def forward(
    model: Any, params: Any, batch: dict, key: Any = None, cache: Any = None, *, execution: Execution = Execution()
) -> Any:
    """logits, cache, out."""
    ctx = Ctx(key=key, execution=execution)
    x, cache, out = model.hidden(params, batch, ctx, cache)
    return model.logits(params, x, ctx), cache, out


def shape(batch: int, length: int = LENGTH, memory: int = 0) -> CacheShape:
    return CacheShape(batch, length, memory)


def close(a: Any, b: Any, atol: float = 1e-5) -> None:
    """Two trees agree, leaf by leaf."""
    a, b = dict(flatten(a)), dict(flatten(b))
    assert a.keys() == b.keys()
    for path in a:
        np.testing.assert_allclose(a[path], b[path], atol=atol, rtol=1e-4, err_msg=path)


def differ(a: jax.Array, b: jax.Array) -> bool:
    return bool(np.abs(np.asarray(a) - np.asarray(b)).max() > 1e-3)
