"""cuDNN's attention. Without a GPU: that it lowers for one, and that XLA, asked for the same, gives what the reference
gives."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest

from lm.core.rows import Tokens
from lm.kernels.attention import cudnn
from lm.kernels.attention.select import KERNELS, select
from lm.kernels.attention.spec import AttentionSpec
from lm.kernels.place import Place
from lm.model.masks import Bidirectional, Causal, Chunked, Prefix, Strided, Window
from tests.kernels.attentions import CPU, agrees, asked, texts

EVEN = AttentionSpec(Causal(), 0.5, aligned=True)
PACKED = dataclasses.replace(EVEN, packed=True)
GPU = Place("gpu")
ROW = Tokens(jnp.arange(20)[None])


@pytest.mark.parametrize(
    ("spec", "q", "k"),
    [
        (EVEN, ROW, ROW),
        (dataclasses.replace(EVEN, mask=Window(4)), ROW, ROW),
        (PACKED, texts(40, [9], padding=5), texts(40, [9], padding=5)),
        (dataclasses.replace(PACKED, mask=Window(4, 2)), texts(40, [9]), texts(40, [9])),
        (dataclasses.replace(PACKED, mask=Prefix()), texts(40, [9]), texts(40, [9])),
        (dataclasses.replace(PACKED, mask=Bidirectional(), aligned=False), texts(20, [9]), texts(30, [20])),
    ],
    ids=["causal", "window", "packed", "packed window", "prefix", "another text"],
)
def test_what_it_is_asked_for_is_the_reference(spec, q, k):
    agrees(cudnn.cudnn, asked(spec, q, k, (4, 2), (8, 8)), 2e-5, implementation="xla")


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({}, True),
        ({"mask": Window(4)}, True),
        ({"mask": Bidirectional(), "aligned": False}, True),
        ({"packed": True}, False),
        ({"aligned": False}, False),
        ({"extra": 2}, False),
        ({"mask": Window(4, 2)}, False),
        ({"mask": Strided(4)}, False),
        ({"mask": Strided(50)}, True),  # longer than the row
        ({"mask": Prefix()}, False),
        ({"mask": Chunked(4)}, False),
    ],
)
def test_an_array_is_made_of_what_it_cannot_be_told(changes, told):
    assert cudnn.told(dataclasses.replace(EVEN, **changes), (20, 20)) == told


@pytest.mark.parametrize(
    ("changes", "length", "widths", "dtype", "says"),
    [
        ({}, 8193, (64, 64), jnp.bfloat16, None),
        ({"packed": True}, 4096, (64, 64), jnp.float16, None),
        ({"packed": True}, 8192, (64, 64), jnp.bfloat16, "an array of 8192 x 8192"),
        ({"packed": True}, 255, (64, 64), jnp.bfloat16, "even numbers"),
        ({}, 256, (64, 64), jnp.float32, "not float32"),
        ({}, 256, (256, 256), jnp.bfloat16, "heads of width 256"),
        ({}, 256, (64, 128), jnp.bfloat16, "heads of width 64 and 128"),
        ({"cap": 30.0}, 256, (64, 64), jnp.bfloat16, "no cap"),
        ({"bias": "pairwise"}, 256, (64, 64), jnp.bfloat16, "rounded"),
        ({"probs": True}, 256, (64, 64), jnp.bfloat16, "dropped out or recorded"),
    ],
)
def test_it_says_what_it_supports(changes, length, widths, dtype, says):
    spec = dataclasses.replace(EVEN, **changes)
    q, k, v = (
        jax.ShapeDtypeStruct((2, h, length, d), dtype) for h, d in zip((4, 2, 2), (widths[0], *widths), strict=True)
    )
    found = cudnn.supports(spec, q, k, v, GPU)
    assert found is None if says is None else says in found
    assert (select(spec, q, k, v, GPU) is KERNELS["cudnn"].attend) == (says is None)


@pytest.mark.parametrize(("spec", "bias"), [(EVEN, False), (PACKED, True)])
def test_it_lowers_for_gpus(spec, bias, monkeypatch):
    monkeypatch.setattr("jax._src.cudnn.fused_attention_stablehlo.check_cudnn_version", lambda: 91000)
    tokens = texts(64, [30]) if spec.packed else Tokens(jnp.arange(64)[None])

    def loss(q, k, v):
        return cudnn.cudnn(q, k, v, spec, tokens, tokens, place=CPU).astype(jnp.float32).sum()

    shapes = (jax.ShapeDtypeStruct((1, heads, 64, 16), jnp.bfloat16) for heads in (4, 2, 2))
    lowered = jax.jit(jax.grad(loss, argnums=(0, 1, 2))).trace(*shapes).lower(lowering_platforms=("cuda",)).as_text()
    assert lowered.count("custom_call @__cudnn$fmha") == 2 and "SoftmaxBackward" in lowered
    assert ("ScaleBias" in lowered) == bias
