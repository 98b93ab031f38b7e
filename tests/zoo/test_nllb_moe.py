"""What of NLLB-MoE's config.json is refused, and of Switch's: what its outputs would depend on beside its row."""

import pytest

from lm.core.errors import UserError
from lm.hub.config import read_config
from tests.golden.cases.encdec_bart import CASES
from tests.golden.cases.encdec_t5 import CASES as SWITCH

NLLB = {"model_type": "nllb-moe", **CASES["nllb_moe"].config}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"moe_eval_capacity_token_fraction": 0.5}, "moe_eval_capacity_token_fraction=0.5 is not supported: only 1"),
        ({"moe_eval_capacity_token_fraction": -1}, "moe_eval_capacity_token_fraction=-1.0 is not supported"),
        ({"second_expert_policy": "random"}, "second_expert_policy='random' is not supported, only 'all'"),
        ({"router_dtype": "bfloat16"}, "router_dtype='bfloat16' is not supported"),
        ({"num_experts": 1}, "num_experts=1 must be at least 2"),
        ({"encoder_sparse_step": 0}, "encoder_sparse_step=0 must be at least 1"),
    ],
)
def test_nllb_moe(changes, message):
    with pytest.raises(UserError, match=message):
        read_config({**NLLB, **changes})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"expert_capacity": 0}, "expert_capacity=0 must be at least 1"),
        ({"is_gated_act": True}, "is_gated_act=True is not supported"),
        ({"router_dtype": "float16"}, "router_dtype='float16' is not supported"),
        ({"num_sparse_encoder_layers": 5}, "encoder_sparse_step=0 is not supported: give a whole number above 0"),
    ],
)
def test_switch(changes, message):
    with pytest.raises(UserError, match=message):
        read_config({"model_type": "switch_transformers", **SWITCH["switch"].config, **changes})
