"""What the configs of models with latent attention may say."""

import pytest

from lm.core.errors import UserError
from lm.hub.config import read_config, write_config
from lm.model.rotary import YarnScaling
from lm.zoo.registry import build
from tests.golden.cases.deepseek import CASES

CONFIG = {"model_type": "deepseek_v3", **CASES["deepseek_v3"].config}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"first_k_dense_replace": 1}, "first_k_dense_replace=1 of num_hidden_layers=3: layers with experts"),
        ({"num_key_value_heads": 2}, "num_key_value_heads=2 is not supported: latent attention has one for each of 4"),
        ({"kv_lora_rank": 0}, "kv_lora_rank=0 must be at least 1"),
    ],
)
def test_what_is_refused(changes, message):
    with pytest.raises(UserError, match=message):
        build(read_config({**CONFIG, **changes}).knobs)


def test_experts_are_the_default():
    """A config that does not say how many layers are dense means three, or none."""
    without = {k: v for k, v in CONFIG.items() if k != "first_k_dense_replace"}
    assert build(read_config(without).knobs).body.stack.layers == 3
    for changes in ({"num_hidden_layers": 4}, {"model_type": "deepseek_v2"}):
        with pytest.raises(UserError, match="layers with experts"):
            read_config({**without, **changes})


def test_scores_are_tempered_as_far_as_the_text_is_stretched():
    knobs = read_config(
        {**CONFIG, **{k: v for k, v in CASES["deepseek_v3_halves"].config.items() if "rope" in k}}
    ).knobs
    assert knobs["temper"] == 1.3 and isinstance(knobs["scaling"], YarnScaling)
    attention = build(knobs).body.stack.blocks()[0].parts[0][1]
    assert attention.scale == pytest.approx(13**-0.5 * (0.13 * 1.3862944 + 1) ** 2)


def test_what_no_config_tells_is_not_exported():
    with pytest.raises(UserError, match=r"latent_eps=0\.01 has no name in the config\.json of a deepseek_v3"):
        write_config("deepseek_v3", read_config(CONFIG).knobs | {"latent_eps": 0.01})
    with pytest.raises(UserError, match="mlp_bias=True has no name"):
        write_config("deepseek_v3", read_config(CONFIG).knobs | {"mlp_bias": True})
