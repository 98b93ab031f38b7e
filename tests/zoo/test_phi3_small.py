"""Phi-3-small against a transcription: block-sparse and dense layers, a bounded GEGLU, muP's scales."""

import numpy as np
import pytest

from lm.core.errors import UserError
from lm.model.special.block_sparse import BlockSparse
from lm.zoo.phi3_small import phi3_small
from tests import toys
from tests.zoo import plain

D, HEADS, SIZE, LAYERS, EPS, THETA, LIMIT = 16, 4, 4, 3, 1e-2, 50.0, 0.4
SHAPE = {"layers": LAYERS, "d_model": D, "heads": HEADS, "kv_heads": 2, "d_ff": 20, "vocab": toys.VOCAB}
KNOBS = {"eps": EPS, "theta": THETA, "limit": LIMIT, "embed_scale": 3.0, "logits_scale": 0.25}
BLOCK, LOCAL = 2, 1


def geglu(p: dict, x: np.ndarray) -> np.ndarray:
    gate, up = np.minimum(plain.linear(p["gate"], x), LIMIT), np.clip(plain.linear(p["up"], x), -LIMIT, LIMIT)
    return plain.linear(p["down"], gate * plain.sigmoid(1.702 * gate) * (up + 1))


def attended(p: dict, x: np.ndarray, stride: int | None) -> np.ndarray:
    q, k, v = (plain.linear(p[n], x).reshape(len(x), -1, SIZE) for n in "qkv")
    q, k = (np.stack([[plain.rotated(h, t, THETA) for h in z[t]] for t in range(len(z))]) for z in (q, k))
    heads = []
    for h in range(HEADS):

        def sees(i: int, j: int, h: int = h) -> bool:
            local = i // BLOCK - j // BLOCK < LOCAL
            return j <= i and (stride is None or local or (j // BLOCK + h * max(1, stride // HEADS) + 1) % stride == 0)

        one = (q[:, [h]], k[:, [h // 2]], v[:, [h // 2]])
        heads.append(plain.attention(*one, sees, 1 / SIZE))
    return plain.linear(p["o"], np.concatenate(heads, axis=-1))


@pytest.mark.parametrize("stride", [3, 8, None])
def test_phi3_small(stride):
    model = phi3_small(**SHAPE, **KNOBS, sparse=stride and BlockSparse(BLOCK, LOCAL, stride))
    params, tokens = toys.values(model.spec()), toys.tokens(1)
    p = plain.numpy(params)
    x = 3.0 * p["body"]["embed"]["token"][np.asarray(tokens[0])]
    for i in range(LAYERS):
        place = model.body.stack.locate(i)
        at = plain.layer(p, place.repeat, place.segment, place.position)
        y = plain.each(lambda t, at=at: plain.layer_norm(at["attention_norm"], t, EPS), x)
        x = x + attended(at["attention"], y, stride if i in (0, 2) else None)
        x = x + geglu(at["mlp"], plain.each(lambda t, at=at: plain.layer_norm(at["mlp_norm"], t, EPS), x))
    x = plain.each(lambda t: plain.layer_norm(p["body"]["stack"]["norm"], t, EPS), x)
    plain.close(model(params, {"tokens": tokens})[0], 0.25 * x @ p["body"]["embed"]["token"].T)


def test_blocks_that_hide_everything_are_refused():
    with pytest.raises(UserError, match="at least 1"):
        BlockSparse(64, 0, 8)
