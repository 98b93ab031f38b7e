"""CodeT5+ and ERNIE 3.0, whose stacks change width, against a transcription of their papers, token by token."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lm.core.ctx import Ctx
from lm.core.param import count, flatten
from lm.model.cache import CacheShape
from lm.zoo.ernie3 import ernie3_pair
from lm.zoo.registry import build
from tests import toys
from tests.zoo import plain

EPS = 1e-2
CODE = {"layers": 3, "d_model": 12, "heads": 3, "rotary_dim": 2, "cross_layers": 1, "vocab": toys.VOCAB, "eps": EPS}
CODE |= {"encoder_layers": 2, "encoder_d_model": 8, "encoder_heads": 2, "encoder_rotary_dim": 4}
ERNIE = {"layers": 2, "d_model": 12, "heads": 3, "d_ff": 20, "vocab": toys.VOCAB, "eps": EPS, "memory": 5}
ERNIE |= {"task_layers": 2, "task_d_model": 8, "task_heads": 2, "task_d_ff": 10}


def norm(p: dict, x: np.ndarray) -> np.ndarray:
    return plain.each(lambda t: plain.layer_norm(p, t, EPS), x)


def side_by_side(p: dict, x: np.ndarray, heads: int, rotary_dim: int, sees) -> np.ndarray:
    """CodeGen's layer: x + attention(norm(x)) + mlp(norm(x)), the first `rotary_dim` elements of each head rotated."""
    y = norm(p["both_norm"], x)
    a, m = p["both"]["attention"], p["both"]["mlp"]
    q, k, v = ((y @ a[n]["w"]).reshape(len(y), heads, -1) for n in "qkv")
    for z in (q, k):
        for position in range(len(z)):
            for h in range(heads):
                part = z[position, h, :rotary_dim].copy()
                z[position, h, :rotary_dim] = plain.rotated(part, position, 10000.0, interleaved=True)
    attended = plain.attention(q, k, v, sees) @ a["o"]["w"]
    return x + attended + plain.linear(m["down"], plain.gelu_tanh(plain.linear(m["up"], y)))


def test_codet5p():
    model = build({"family": "codet5p", **CODE})
    params = toys.values(model.spec())
    target, source = toys.tokens(1), toys.tokens(1, 7, seed=1)
    logits = model(params, {"tokens": target, "encoder/tokens": source})[0]

    p = plain.numpy(params)
    memory = p["encoder"]["embed"]["token"][np.asarray(source[0])]
    for i in range(2):
        layer = jax.tree.map(lambda w, i=i: w[i], p["encoder"]["stack"]["0"]["0"])
        memory = side_by_side(layer, memory, 2, 4, lambda i, j: True)
    out = p["encoder"]["stack"]["1"]
    memory = plain.linear(out, norm(out["norm"], memory))
    x = p["decoder"]["embed"]["token"][np.asarray(target[0])]
    for segment, i in (("0", 0), ("0", 1), ("1", 0)):
        layer = jax.tree.map(lambda w, i=i: w[i], p["decoder"]["stack"][segment]["0"])
        x = side_by_side(layer, x, 3, 2, lambda i, j: j <= i)
    c, y = layer["cross"], norm(layer["cross_norm"], x)
    q, k, v = ((z @ c[n]["w"]).reshape(len(z), 3, -1) for n, z in zip("qkv", (y, memory, memory), strict=True))
    x = x + plain.attention(q, k, v, lambda i, j: True) @ c["o"]["w"]
    x = norm(p["decoder"]["stack"]["norm"], x)
    plain.close(logits, x @ p["head"]["w"].T + p["head"]["b"])


@pytest.mark.parametrize("size", ["2b", "6b", "16b"])
def test_codet5p_counts(size):
    """The decoder is CodeGen's, the encoder the smallest CodeGen without its head."""
    parts = dict(flatten(build({"family": "codet5p", "size": size}).spec()))
    own = [path for path in parts if path.startswith("encoder/stack/1/") or "/cross" in path]
    above = [path for path in parts if path.startswith("encoder/") and path not in own]
    below = [path for path in parts if not path.startswith("encoder/") and path not in own]
    smallest = build({"family": "codegen", "size": "350m"}).spec()
    final_norm = parts["encoder/stack/1/norm/w"].shape[0] * 2
    assert count([parts[path] for path in above]) + final_norm == count(smallest["body"])
    assert count([parts[path] for path in below]) == count(build({"family": "codegen", "size": size}).spec())


def distance(d: int, distance: int) -> np.ndarray:
    """R of a distance: sines, then cosines, of distance / 10000^(2i/d)."""
    angles = [distance / 10000 ** (2 * i / d) for i in range(d // 2)]
    return np.array([math.sin(a) for a in angles] + [math.cos(a) for a in angles])


def recurrent_layer(p: dict, x: np.ndarray, memory: np.ndarray, heads: int, causal: bool) -> np.ndarray:
    """Transformer-XL's layer, with biases and GELU: x [S, D], memory [M, D], which the text x follows."""
    a, d, known = p["attention"], x.shape[1], len(memory)
    both, size = np.concatenate([memory, x]), x.shape[1] // heads
    q, k, v = (plain.linear(a[n], z).reshape(len(z), heads, size) for n, z in zip("qkv", (x, both, both), strict=True))
    terms = a["terms"]["0"]
    y = np.zeros_like(x).reshape(len(x), heads, size)
    for i in range(len(x)):
        seen = [j for j in range(len(both)) if not causal or j <= known + i]
        for h in range(heads):
            scores = []
            for j in seen:
                r = (distance(d, known + i - j) @ terms["r"]["w"]).reshape(heads, size)[h]
                content = (q[i, h] + terms["u"][h]) @ k[j, h]
                scores.append((content + (q[i, h] + terms["v"][h]) @ r) / math.sqrt(size))
            weights = np.exp(scores - np.max(scores))
            y[i, h] = sum(w * v[j, h] for w, j in zip(weights / weights.sum(), seen, strict=True))
    x = norm(p["attention_norm"], x + plain.linear(a["o"], y.reshape(len(x), d)))
    m = p["mlp"]
    return norm(p["mlp_norm"], x + plain.linear(m["down"], plain.gelu(plain.linear(m["up"], x))))


def expected(params: dict, texts: list[np.ndarray], causal: bool) -> list[np.ndarray]:
    """Logits of each of several texts that follow one another; memories are of the last tokens before."""
    p, outputs = plain.numpy(params)["body"], []
    memories: dict[tuple, np.ndarray] = {}
    for text in texts:
        x = norm(p["embed"]["norm"], p["embed"]["token"][text])
        for segment, heads in (("0", ERNIE["heads"]), ("2", ERNIE["task_heads"])):
            for i in range(2):
                layer = jax.tree.map(lambda w, i=i: w[i], p["stack"][segment]["0"])
                memory = memories.get((segment, i), x[:0])
                memories[segment, i] = np.concatenate([memory, x])[-ERNIE["memory"] :]
                x = recurrent_layer(layer, x, memory, heads, causal)
            x = plain.linear(p["stack"]["1"], x) if segment == "0" else x
        outputs.append(x @ plain.numpy(params)["head"]["w"].T)
    return outputs


@pytest.mark.parametrize("causal", [True, False])
def test_ernie3(causal):
    model = build({"family": "ernie3", **ERNIE, "causal": causal})
    params = toys.values(model.spec())
    tokens = np.asarray(toys.tokens(1, 12))
    cache, ours = model.cache(CacheShape(1, 12)), []
    for first in (0, 6):
        positions = jnp.arange(first, first + 6)[None]
        batch = {"tokens": tokens[:, first : first + 6], "positions": positions}
        x, cache, _ = model.hidden(params, batch, Ctx(), cache)
        ours.append(model.logits(params, x, Ctx())[0])
    for one, other in zip(ours, expected(params, [tokens[0, :6], tokens[0, 6:]], causal), strict=True):
        plain.close(one, other)


def test_ernie3_pair_shares_the_wide_part():
    pair = ernie3_pair(**ERNIE)
    params = toys.values(pair.spec())
    assert set(params["generation"]["body"]["stack"]) == {"1", "2"}
    whole = pair.resolve(params)
    tokens = toys.tokens(1)
    for name, model in pair.parts:
        causal = name == "generation"
        logits = model(whole[name], {"tokens": tokens})[0]
        plain.close(logits, expected(whole[name], [np.asarray(tokens[0])], causal)[0])


@pytest.mark.parametrize(("size", "wide"), [("10b", 9_666_232_320), ("titan-260b", 260_934_008_832)])
def test_ernie3_counts(size, wide):
    """Layers without relative positions, as arXiv 2107.02137 and 2112.12731 give their shapes."""
    parts = dict(flatten(build({"family": "ernie3", "size": size}).spec()))

    def layers(segment: int) -> int:
        own = f"body/stack/{segment}/"
        return count([p for path, p in parts.items() if path.startswith(own) and "/terms/" not in path])

    assert (layers(0), layers(2)) == (wide, 85_054_464)
