"""What the configs of models with latent attention may say."""

import jax
import numpy as np
import pytest

from lm.core.ctx import Ctx
from lm.core.errors import UserError
from lm.core.param import count
from lm.hub.binding import Binding
from lm.hub.config import read_config, write_config
from lm.model.heads import LMHead
from lm.model.moe.layer import MoE
from lm.model.rotary import YarnScaling
from lm.model.transformer import LanguageModel
from lm.zoo.registry import build
from tests.golden.cases.deepseek import CASES
from tests.golden.weights import tensors

CONFIG = {"model_type": "deepseek_v3", **CASES["deepseek_v3"].config}
SPARSE = {
    **CONFIG,
    "first_k_dense_replace": 1,
    "n_routed_experts": 6,
    "n_group": 3,
    "topk_group": 2,
    "num_experts_per_tok": 3,
    "moe_intermediate_size": 6,
    "num_nextn_predict_layers": 2,
}
V2 = {"model_type": "deepseek_v2"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (SPARSE | {"num_experts_per_tok": 5}, "router.k=5 exceeds the 4 experts of the groups.kept=2 groups"),
        (SPARSE | {"n_group": 4}, "n_group=4 does not divide n_routed_experts=6"),
        (SPARSE | {"topk_method": "greedy"}, "topk_method='greedy' is not supported, only 'noaux_tc'"),
        (SPARSE | {"scoring_func": "softmax"}, "scoring_func='softmax' is not supported, only 'sigmoid'"),
        (SPARSE | V2 | {"topk_method": "noaux_tc"}, "topk_method='noaux_tc' is not supported, only 'greedy' or"),
        (SPARSE | V2 | {"norm_topk_prob": True}, "norm_topk_prob=True is not supported, only False"),
        (
            SPARSE | V2 | {"num_experts_per_tok": None},
            "num_experts_per_tok is missing: say how many of n_routed_experts",
        ),
        (SPARSE | V2 | {"num_experts_per_tok": 7}, "num_experts_per_tok=7 exceeds n_routed_experts=6: lower"),
        ({"num_key_value_heads": 2}, "num_key_value_heads=2 is not supported: latent attention has one for each of 4"),
        ({"kv_lora_rank": 0}, "kv_lora_rank=0 must be at least 1"),
    ],
)
def test_what_is_refused(changes, message):
    with pytest.raises(UserError, match=message):
        build(read_config({**CONFIG, **changes}).knobs)


def test_experts_are_the_default():
    """A config that does not say how many layers are dense means three, or none."""
    without = {k: v for k, v in SPARSE.items() if k != "first_k_dense_replace"} | {"num_hidden_layers": 4}
    for changes, sparse in (({}, [3]), (V2 | {"topk_method": "greedy"}, [0, 1, 2, 3]), ({"moe_layer_freq": 2}, [])):
        blocks = build(read_config(without | changes).knobs).body.stack.blocks()
        assert [i for i, b in enumerate(blocks) if isinstance(b.parts[1][1], MoE)] == sparse


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


def described(config: dict) -> tuple[LanguageModel, Binding]:
    found = read_config(config)
    model = build(found.knobs)
    return model, Binding(model, found.spelling.names)


def test_modules_that_predict_further_tokens():
    """Each against a model of one layer that reads, as its table of tokens, what the module makes of the states before
    and of the tokens ahead."""
    config = {**SPARSE, "architectures": ["DeepSeekMTPModel"]}
    model, binding = described(config)
    file = tensors({link.name: link.shape for link in binding.links.values()})
    for i in (3, 4):  # copies
        file[f"model.layers.{i}.embed_tokens.weight"] = file["model.embed_tokens.weight"]
        file[f"model.layers.{i}.shared_head.head.weight"] = file["lm_head.weight"]
    params, tokens = binding.to_params(file), np.array([[5, 3, 8, 13, 21, 34, 2, 1]])
    scores = jax.jit(model)(params, {"tokens": tokens})
    states = np.asarray(model.hidden(params, {"tokens": tokens}, Ctx())[0][0])

    def normed(name: str, x: np.ndarray) -> np.ndarray:
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + config["rms_norm_eps"]) * file[name]

    plain = {**SPARSE, "num_hidden_layers": 1, "first_k_dense_replace": 0, "vocab_size": tokens.size}
    single, names = described(plain | {"architectures": ["DeepseekV3Model"]})
    for depth, layer in ((1, "model.layers.3."), (2, "model.layers.4.")):
        ahead = np.concatenate([tokens[0, depth:], np.zeros(depth, int)])
        embedded = normed(f"{layer}enorm.weight", file["model.embed_tokens.weight"][ahead])
        states = np.concatenate([embedded, normed(f"{layer}hnorm.weight", states)], -1)
        own = {name.replace(layer, "model.layers.0."): x for name, x in file.items() if name.startswith(layer)}
        own |= {
            "model.embed_tokens.weight": states @ file[f"{layer}eh_proj.weight"].T,
            "model.norm.weight": file[f"{layer}shared_head.norm.weight"],
        }
        own = {name: own[name] for name in names.links}
        states = np.asarray(single(names.to_params(own), {"tokens": np.arange(tokens.size)[None]})[0])
        np.testing.assert_allclose(scores[str(depth)][0], states @ file["lm_head.weight"].T, rtol=1e-4, atol=1e-4)


def test_modules_are_read_by_a_class_of_their_own():
    """And passed over by the others. What is written names the class that reads it."""
    model, binding = described({**SPARSE, "architectures": ["DeepseekV3ForCausalLM"]})
    assert isinstance(model.head, LMHead)
    assert not binding.belongs("model.layers.4.eh_proj.weight") and binding.belongs("model.layers.5.eh_proj.weight")
    knobs = read_config({**SPARSE, "architectures": ["DeepSeekMTPModel"]}).knobs
    written = write_config("deepseek_v3", knobs)
    assert written["architectures"] == ["DeepSeekMTPModel"] and written["num_nextn_predict_layers"] == 2
    assert build(read_config(written).knobs) == build(knobs)
    assert write_config("deepseek_v3", knobs | {"further": 0})["architectures"] == ["DeepseekV3ForCausalLM"]
    model, binding = described({**SPARSE, "architectures": ["DeepSeekMTPModel"], "num_nextn_predict_layers": 0})
    assert isinstance(model.head, LMHead) and binding.belongs("model.layers.3.eh_proj.weight")


def test_the_module_of_v3_has_as_many_parameters_as_published():
    """11.6 billion, beside the tables that it shares."""
    sizes = [count(build({"family": "deepseek_v3", "size": "671b", "further": n}).spec()) for n in (0, 1)]
    assert sizes[1] - sizes[0] == 11_610_067_968
