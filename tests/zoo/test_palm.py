"""PaLM against a transcription of the paper's equations, and of U-PaLM's prefix."""

import numpy as np
import pytest

from lm.model.masks import Causal, Prefix
from lm.zoo.registry import build
from tests import toys
from tests.zoo import plain

D, HEADS, SIZE, LAYERS, EPS, THETA = 12, 3, 4, 2, 1e-2, 50.0
SHAPE = {"layers": LAYERS, "d_model": D, "heads": HEADS, "head_dim": SIZE, "d_ff": 20, "vocab": toys.VOCAB}


def expected(params: dict, tokens: np.ndarray, prefix: int) -> np.ndarray:
    """tokens [S] -> logits [S, vocab]; the first `prefix` tokens are seen by all."""
    params = plain.numpy(params)
    table = params["body"]["embed"]["token"]
    x = table[tokens]
    for i in range(LAYERS):
        p = plain.layer(params, i)
        y = plain.each(lambda t, p=p: plain.layer_norm(p["both_norm"], t, EPS), x)
        a, m = p["both"]["attention"], p["both"]["mlp"]
        q, k, v = ((y @ a[n]["w"]).reshape(len(y), -1, SIZE) for n in "qkv")
        q, k = (np.stack([[plain.rotated(h, t, THETA) for h in z[t]] for t in range(len(z))]) for z in (q, k))
        read = plain.attention(q, k, v, lambda i, j: j <= i or j < prefix) @ a["o"]["w"]
        gated = (plain.silu(y @ m["gate"]["w"]) * (y @ m["up"]["w"])) @ m["down"]["w"]
        x = x + gated + read
    x = plain.each(lambda t: plain.layer_norm(params["body"]["stack"]["norm"], t, EPS), x)
    return x @ table.T / np.sqrt(D)


@pytest.mark.parametrize(("mask", "prefix"), [(Causal(), 0), (Prefix(), 3)])
def test_palm(mask, prefix):
    model = build({"family": "palm", **SHAPE, "mask": mask, "theta": THETA, "eps": EPS})
    params, tokens = toys.values(model.spec()), toys.tokens(1)
    assert params["body"]["stack"]["0"]["0"]["both"]["attention"]["k"]["w"].shape == (LAYERS, D, SIZE)  # one head
    rows = {"tokens": tokens, "prefix": np.arange(toys.LENGTH)[None] < prefix}
    plain.close(model(params, rows)[0], expected(params, np.asarray(tokens[0]), prefix))
