"""FLOP conventions: published tables, formulas by hand, the exact count and XLA's."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lm.core.ctx import Ctx, Execution
from lm.core.errors import UserError
from lm.core.param import abstract, count
from lm.core.walk import Unrolled
from lm.inspect.cost import forward_flops
from lm.zoo.gpt2 import gpt2
from scaling import flops
from scaling.flops import CONVENTIONS, Shape, per_token, shape_of, with_embeddings
from scaling.laws import EPOCH, HOFFMANN_PRINTED
from tests import toys

# Hoffmann et al. 2022, tables A4 and A9: width, F, head width, heads, layers, and our count over 6 N D.
CHINCHILLAS = {
    "73M": (640, 2560, 64, 10, 10, 1.026),
    "305M": (1024, 4096, 64, 16, 20, 1.102),
    "552M": (1280, 5120, 128, 10, 24, 1.084),
    "1.1B": (1792, 7168, 128, 14, 26, 1.045),
    "1.6B": (2048, 8192, 128, 16, 28, 1.033),
    "6.8B": (3584, 14336, 128, 28, 40, 0.994),
}

shapes = st.builds(
    lambda layers, heads, width, ratio, vocab, length: Shape(
        layers, heads * width, heads, heads * width, ratio * heads * width, vocab, length
    ),
    *(st.integers(1, 40), st.integers(1, 16), st.integers(8, 128), st.integers(1, 8)),
    *(st.integers(256, 200_000), st.integers(16, 8192)),
)


@pytest.mark.parametrize("size", CHINCHILLAS)
def test_hoffmann_s_table(size):
    """N has their matrix of relative positions, D x heads x width, in each layer."""
    d, f, width, heads, layers, ratio = CHINCHILLAS[size]
    shape = Shape(layers, d, heads, width * heads, f, 32_000, 2048)
    params = shape.params + layers * d * width * heads
    assert flops.hoffmann(shape) / (6 * params) == pytest.approx(ratio, abs=0.001)
    if size == "73M":  # where the head dominates, it matters most whether it is counted
        assert flops.hoffmann(shape, vocabulary=True) / (6 * params) == pytest.approx(1.58, abs=0.01)


@given(shapes)
def test_conventions_differ_by_what_they_say(shape):
    d, layers, length, vocab = shape.d_model, shape.layers, shape.length, shape.vocab
    assert shape.block_params == 2 * d * layers * (2 * shape.d_attn + shape.d_ff)  # Kaplan et al., table 1
    attention = 6 * layers * length * d
    assert flops.kaplan(shape, attention=True) - flops.kaplan(shape) == pytest.approx(attention)
    assert flops.porian(shape, attention=True) - flops.porian(shape) == pytest.approx(attention)
    assert flops.porian(shape) - flops.kaplan(shape) == pytest.approx(6 * vocab * d)
    assert flops.six_nd(shape) == pytest.approx(flops.porian(shape))  # one table, which is the head
    if shape.d_ff == 4 * d:
        assert flops.deepseek(shape) - flops.kaplan(shape) == pytest.approx(2 * attention)


@pytest.mark.parametrize(
    ("layers", "d", "blocks", "ratio", "total", "total_ratio", "M"),
    [
        (8, 512, 25.2e6, 0.43, 77.6e6, 1.32, 352e6),
        (12, 768, 84.9e6, 0.53, 164e6, 1.02, 963e6),
        (24, 1024, 302e6, 0.60, 407e6, 0.81, 3.02e9),
        (24, 2048, 1.21e9, 0.75, 1.42e9, 0.88, 9.66e9),
        (32, 4096, 6.44e9, 0.85, 6.86e9, 0.91, 45.1e9),
        (40, 5120, 12.6e9, 0.88, 13.1e9, 0.92, 85.6e9),
        (80, 8192, 64.4e9, 0.92, 65.3e9, 0.94, 419e9),
    ],
)
def test_deepseek_s_table(layers, d, blocks, ratio, total, total_ratio, M):
    """Bi et al. 2024, table 3: what 6 N misses of M, without and with the vocabulary of 102,400, in texts of 4096."""
    shape = Shape(layers, d, d // 64, d, 4 * d, 102_400, 4096)
    assert (shape.block_params, shape.params, flops.deepseek(shape)) == pytest.approx((blocks, total, M), rel=4e-3)
    assert flops.kaplan(shape) / flops.deepseek(shape) == pytest.approx(ratio, abs=0.01)
    assert flops.six_nd(shape) / flops.deepseek(shape) == pytest.approx(total_ratio, abs=0.01)


def test_the_shape_of_a_model():
    model = gpt2(layers=3, d_model=16, heads=2, d_ff=40, vocab=50, context=64)
    shape = shape_of(model, 64)
    assert shape == Shape(3, 16, 2, 16, 40, 50, 64, 16, 2, False)
    small = count(model.spec())  # with norms, biases and positions
    assert shape.params < small < 1.2 * shape.params + 64 * 16
    gated = shape_of(toys.DECODERS["windows"](), 8)
    assert gated.mlp_matrices == 3


def test_the_exact_count_is_hoffmann_s_with_the_head_and_without_softmax():
    model = gpt2(layers=3, d_model=16, heads=2, d_ff=40, vocab=50, context=64)
    shape = shape_of(model, 64)
    lookup, softmax = 3 * 2 * 50 * 16, 3 * 3 * 3 * 2 * 64
    assert per_token("jaxpr", model, 64) == flops.hoffmann(shape, vocabulary=True) - lookup - softmax


def test_the_exact_count_beside_xla_s():
    """The compiler's count has every element-wise operation too, which wide layers make few of."""
    model = gpt2(layers=2, d_model=128, heads=2, d_ff=512, vocab=512, context=64)
    batch = {"tokens": jax.ShapeDtypeStruct((1, 64), jnp.int32)}
    ctx = Ctx(execution=Execution(attention="reference", walk=Unrolled()))
    compiled = jax.jit(lambda p, b: model(p, b, ctx)).lower(abstract(model.spec()), batch).compile()
    assert 1 <= compiled.cost_analysis()["flops"] / forward_flops(model, 64) < 1.1


def test_experts_count_where_a_token_meets_them():
    model = toys.dense_first()
    assert per_token("6ND", model, 8) < per_token("6ND-total", model, 8)
    with pytest.raises(UserError, match="one attention and one MLP each"):
        per_token("deepseek", model, 8)
    with pytest.raises(UserError, match="no FLOP convention 'deepsek'; did you mean 'deepseek'"):
        per_token("deepsek", model, 8)


def test_the_table_has_every_convention(capsys):
    flops.main(["scaling.flops", "gpt2", "small", "--length=64"])
    shown = capsys.readouterr().out
    assert all(name in shown for name in CONVENTIONS)
    flops.main(["scaling.flops", "t5", "small", "--length=16"])
    assert re.search(r"kaplan +- +- ", capsys.readouterr().out)  # a formula of decoders
    for wrong in (["gpt2"], ["gpt5", "small"], ["gpt2", "small", "--length=4096"]):
        with pytest.raises(SystemExit):
            flops.main(["scaling.flops", *wrong])


@pytest.mark.parametrize(("law", "exponent"), [(HOFFMANN_PRINTED, 0.74), (EPOCH, 0.78)])
def test_kaplan_s_exponent_comes_of_leaving_out_embeddings(law, exponent):
    """Pearce & Song 2024: Chinchilla's law, seen in parameters n and compute 6 n D without embeddings at Kaplan's
    sizes, has an exponent of 0.74 to 0.78 (their budgets, of runs they simulate, are not known to the last digit)."""
    n = np.geomspace(768, 1.5e9, 1000)
    total = with_embeddings(n)
    slope = np.gradient(np.log(total), np.log(n))
    # Where 6 n D is best split: d loss / d log n = d loss / d log D.
    D = (law.beta * law.B / (law.alpha * law.A / total**law.alpha * slope)) ** (1 / law.beta)
    log_c = np.log(6 * n * D)
    budgets = np.linspace(log_c[0], log_c[-1], 50)
    counted = np.polyfit(budgets, np.interp(budgets, log_c, np.log(n)), 1)[0]
    assert counted == pytest.approx(exponent, abs=0.01)


def test_in_all_parameters_it_is_a_half():
    n, d = EPOCH.optimal(np.geomspace(1e15, 1e22, 5))
    assert np.polyfit(np.log(6 * n * d), np.log(n), 1)[0] == pytest.approx(0.51, abs=0.005)
