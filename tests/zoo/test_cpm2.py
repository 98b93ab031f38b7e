"""CPM-2's mixture of experts against the dense model that it grows out of, which goldens of T5 hold."""

import jax
import numpy as np

from lm.adapt.surgery.copies import CopyExperts
from lm.adapt.surgery.surgery import operate
from lm.zoo.cpm2 import DISPATCH, ROUTER
from lm.zoo.registry import build
from tests import toys

SHAPE = {"layers": 2, "d_model": 8, "heads": 2, "head_dim": 4, "d_ff": 12, "vocab": toys.VOCAB}


def test_the_mixture_is_the_dense_model_until_an_expert_changes():
    dense, sparse = build({"family": "cpm2", **SHAPE}), build({"family": "cpm2_moe", **SHAPE, "experts": 3})
    grow = CopyExperts(3, (0, 1), router=ROUTER, dispatch=DISPATCH)
    assert grow.model(dense) == sparse
    old = toys.values(dense.spec())
    new = operate((grow,), dense, old, jax.random.key(0))
    batch = {"encoder/tokens": toys.tokens(2), "tokens": toys.tokens(2, seed=1)}
    before = np.asarray(dense(old, batch))
    toys.close(sparse(new, batch), before)
    down = new["decoder"]["stack"]["0"]["0"]["mlp"]["experts"]["down"]  # [layers, experts, d_ff, d]
    down["w"] = down["w"].at[1, 0].multiply(2.0)
    moved = np.abs(np.asarray(sparse(new, batch)) - before).max(axis=-1) > 1e-4
    assert 0 < moved.sum() < moved.size, "tokens of that expert, and no others"
