"""Files and configs of models with experts that do not fit one another: one line says what is wrong."""

import pytest

from lm.core.errors import UserError
from lm.hub.config import read_config
from lm.hub.folder import read_folder
from lm.zoo.registry import build
from tests.hub import tiny

pytest.importorskip("safetensors.numpy")
NUMBERS = {  # the field that tells how many experts there are; the dict in which it stands
    "mixtral": ("num_local_experts", ""),
    "qwen2_moe": ("num_experts", ""),
    "gpt_oss": ("num_local_experts", ""),
    "granitemoe": ("num_local_experts", ""),
    "dbrx": ("moe_num_experts", "ffn_config"),
    "jetmoe": ("num_local_experts", ""),
}


def of(model_type: str, experts: int) -> dict:
    field, within = NUMBERS[model_type]
    config = tiny.configs()[model_type]
    return config | ({within: config[within] | {field: experts}} if within else {field: experts})


@pytest.mark.parametrize("experts", [4, 7])
@pytest.mark.parametrize("model_type", NUMBERS)
def test_another_number_of_experts(tmp_path, model_type, experts):
    folder = tiny.write(tmp_path, of(model_type, 6), tiny.tensors_of(of(model_type, experts)))
    model = build(read_config(of(model_type, 6)).knobs)
    with pytest.raises(UserError, match=r"^[^\n]*(unknown to this model|missing|the model's \[)[^\n]*$"):
        read_folder(folder, model)


@pytest.mark.parametrize(
    ("model_type", "fields", "words"),
    [
        ("mixtral", {"num_experts_per_tok": 9}, "num_experts_per_tok=9 exceeds num_local_experts=5"),
        ("qwen3_moe", {"num_experts_per_tok": 9}, "num_experts_per_tok=9 exceeds num_experts=5"),
        ("olmoe", {"num_experts": 0}, "num_experts=0 must be at least 1"),
        ("qwen2_moe", {"decoder_sparse_step": 0}, "decoder_sparse_step=0 must be at least 1"),
        ("qwen2_moe", {"use_sliding_window": False, "layer_types": ["sliding_attention"] * 4}, "use_sliding_window"),
        ("gpt_oss", {"swiglu_alpha": 1.5}, "swiglu_alpha=1.5"),
        ("phimoe", {"num_experts_per_tok": 3}, "num_experts_per_tok=3 is not supported, only 2"),
        ("phimoe", {"rope_scaling": {"rope_type": "linear", "factor": 2.0}}, "only 'longrope'"),
        ("dbrx", {"rope_theta": 5.0}, "attn_config.rope_theta=100.0 is not what"),
        ("dbrx", {"ffn_config": {"uniform_expert_assignment": True}}, "uniform_expert_assignment=True"),
    ],
)
def test_unfit_configs(model_type, fields, words):
    config = {k: v for k, v in tiny.configs()[model_type].items() if k != "rope_parameters"}
    with pytest.raises(UserError) as refused:
        read_config(config | fields)
    assert words in str(refused.value) and "\n" not in str(refused.value)
