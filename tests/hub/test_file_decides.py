"""Where file and config.json say different things, and what files hold besides: as transformers 5 reads them."""

import logging
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from lm.core.errors import UserError
from lm.core.param import flatten, get, put
from lm.hub.config import read_config
from lm.hub.open import open_folder
from lm.model.rotary import DynamicScaling, LinearScaling, LongScaling, Scaling
from tests.hub.tiny import configs, tensors_of, write

pytest.importorskip("safetensors")


def folder_of(folder: Path, model_type: str, kind: str, extra: dict[str, Any] | None = None, **own: Any) -> Path:
    """A folder of that class, where `extra` are further tensors, or None for those that it lacks."""
    config = configs()[model_type] | {"architectures": [kind], **own}
    tensors = tensors_of(config) | (extra or {})
    return write(folder, config, {name: t for name, t in tensors.items() if t is not None})


# ---------------------------------------------------------------------------------------------------------------------
# Tables of positions.


@pytest.mark.parametrize(
    ("model_type", "kind"), [("pegasus", "PegasusForConditionalGeneration"), ("marian", "MarianMTModel")]
)
def test_stored_sinusoids_count(tmp_path, model_type, kind):
    """Each tower's own table; one that is not there is computed: sines in the first half of a row."""
    path, theirs = "{}/embed/position/w", "model.{}.embed_positions.weight"
    config = configs()[model_type] | {"architectures": [kind]}
    rows = config.get("max_position_embeddings", 1024)
    tensors = tensors_of(config)
    table = tensors[theirs.format("encoder")]
    other = np.random.default_rng(0).normal(size=table.shape).astype(np.float32)
    named = {theirs.format("encoder"): other, theirs.format("decoder"): None}
    params = dict(flatten(open_folder(folder_of(tmp_path, model_type, kind, named)).params))
    np.testing.assert_array_equal(params[path.format("encoder")], other)
    d = table.shape[1]
    angles = np.arange(rows)[:, None] / 10000 ** (np.arange(0, d, 2) / d)
    expected = np.concatenate([np.sin(angles), np.cos(angles)], axis=1)
    np.testing.assert_allclose(params[path.format("decoder")], expected, atol=1e-6)


def test_stored_positions_change_the_outputs(tmp_path):
    rows = {"tokens": np.full((1, 4), 5), "encoder/tokens": np.full((1, 4), 5)}
    opened = open_folder(folder_of(tmp_path, "pegasus", "PegasusForConditionalGeneration"))
    scores = jax.jit(lambda params: opened.model(params, rows))
    before = np.asarray(scores(opened.params))
    for tower in ("encoder", "decoder"):
        path = f"{tower}/embed/position/w"
        other = put(opened.params, path, np.zeros_like(get(opened.params, path)))
        assert not np.allclose(before, scores(other))


# ---------------------------------------------------------------------------------------------------------------------
# Rotary parameters in both spellings. Values are what AutoConfig of transformers 5.23 makes of the same fields.

NEW = {"rope_theta": 500.0, "rope_type": "default"}
LINEAR = {"rope_type": "linear", "factor": 4.0}


@pytest.mark.parametrize(
    ("model_type", "own", "theta", "scaling"),
    [
        ("llama", {"rope_parameters": NEW, "rope_scaling": LINEAR, "rope_theta": 300.0}, 300.0, LinearScaling(4.0)),
        ("llama", {"rope_parameters": NEW, "rope_scaling": LINEAR | {"rope_theta": 7.0}}, 7.0, LinearScaling(4.0)),
        ("llama", {"rope_parameters": NEW, "rope_theta": 300.0}, 500.0, None),
        ("llama", {"rope_parameters": NEW, "rope_scaling": {}}, 500.0, None),
        ("llama", {"rope_parameters": {"rope_type": "default"}, "rope_scaling": LINEAR}, 10000.0, LinearScaling(4.0)),
        ("llama", {"rope_scaling": LINEAR | {"type": "dynamic"}}, 10000.0, LinearScaling(4.0)),
        ("gpt_neox", {"rotary_emb_base": 77, "rotary_pct": 0.9, "rope_parameters": None}, 77.0, None),
        ("gpt_neox", {"rotary_emb_base": 77, "rope_parameters": NEW}, 500.0, None),
        ("gemma3_text", {"rope_scaling": LINEAR, "rope_theta": 5.0, "rope_parameters": None}, 5.0, LinearScaling(4.0)),
        (
            "gemma3_text",
            {
                "rope_scaling": {"rope_type": "dynamic", "factor": 2.0},
                "rope_parameters": {"full_attention": {**LINEAR, "rope_theta": 5.0}},
                "max_position_embeddings": 64,
            },
            5.0,
            DynamicScaling(2.0, 64),
        ),
    ],
)
def test_rotary_parameters_in_both_spellings(model_type, own, theta, scaling):
    config = {k: v for k, v in configs()[model_type].items() if not k.startswith(("rope", "rotary", "partial"))} | own
    knobs = read_config(config).knobs
    assert (knobs["theta"], knobs["scaling"]) == (theta, scaling)


PHI3 = {"short_factor": [1.0] * 3, "long_factor": [2.0] * 3}


@pytest.mark.parametrize(
    ("own", "scaling"),
    [
        (PHI3 | {"type": "longrope", "original_max_position_embeddings": 55}, LongScaling),
        (PHI3 | {"type": "su"}, LongScaling),
        (PHI3 | {"type": "longrope", "rope_type": "default"}, None),
    ],
)
def test_phi3_names_its_original_length_beside(own, scaling: type[Scaling] | None):
    config = {k: v for k, v in configs()["phi3"].items() if not k.startswith(("rope", "partial"))}
    config |= {"original_max_position_embeddings": 77, "max_position_embeddings": 154, "rope_scaling": own}
    found = read_config(config).knobs["scaling"]
    assert isinstance(found, scaling) and found.original == 77 if scaling else found is None


@pytest.mark.parametrize(
    ("model_type", "own", "match"),
    [
        (
            "llama",
            {"rope_parameters": NEW, "rope_scaling": LINEAR},
            "whose rope_theta=500.0 would be lost: give rope_the",
        ),
        (
            "phi",
            {"rope_parameters": {"partial_rotary_factor": 0.3}, "rope_scaling": LINEAR},
            "partial_rotary_factor=0.3",
        ),
        ("gpt_neox", {"rotary_emb_base": 77, "rope_theta": 33}, "rope_theta=33 is not what rotary_emb_base"),
        (
            "llama",
            {
                "rope_scaling": {"rope_type": "yarn", "factor": 2.0},
                "original_max_position_embeddings": 9,
                "max_position_embeddings": 64,
            },
            "original_max_position_embeddings=9 is not what the rotary parameters say, 64",
        ),
        ("gemma3_text", {"rope_parameters": NEW}, "rope_parameters has 'rope_theta': give one dict for full_attention"),
        (
            "gemma3_text",
            {"rope_scaling": {"type": "linear", "factor": 2.0}},
            "rope_scaling has 'type'.*: call it rope_type",
        ),
        ("llama", {"rope_scaling": {"rope_type": None, "factor": 2.0}}, "rope_type=None is not supported"),
        ("llama", {"rope_theta": None}, "rope_theta=None is not understood: give a number above 0"),
        ("llama", {"rope_scaling": {"rope_type": "linear", "factor": 0}}, "rope_scaling.factor=0 is not supported"),
        (
            "phi",
            {"partial_rotary_factor": 1.5},
            "partial_rotary_factor=1.5 is not supported: give a number above 0 up to 1",
        ),
        ("t5", {"d_model": 8, "hidden_size": 16}, "d_model=8 and hidden_size=16 are the same thing"),
        ("gpt2", {"n_layer": 3, "num_hidden_layers": 2}, "n_layer=3 and num_hidden_layers=2 are the same thing"),
    ],
)
def test_contradictions_are_told(model_type, own, match):
    config = {k: v for k, v in configs()[model_type].items() if not k.startswith(("rope", "rotary", "partial"))} | own
    with pytest.raises(UserError, match=match) as info:
        read_config(config)
    assert "\n" not in str(info.value)


# ---------------------------------------------------------------------------------------------------------------------
# Token tables.


@pytest.mark.parametrize("model_type", ["t5", "mt5", "umt5", "longt5"])
def test_one_table_that_is_said_to_be_untied(tmp_path, model_type):
    """It is tied, as transformers 5 does; what tie_word_embeddings says of the head's scale still counts."""
    kind = next(name for name in configs() if name == model_type).upper().replace("LONGT5", "LongT5")
    kind = f"{kind}ForConditionalGeneration"
    extra = {"lm_head.weight": None}
    opened = open_folder(folder_of(tmp_path, model_type, kind, extra, tie_word_embeddings=False))
    assert opened.knobs["tied"] is True and opened.model.head.scale == 1.0
    own = {"tie_word_embeddings": False, "scale_decoder_outputs": True}
    if model_type != "mt5":  # which has no such field
        opened = open_folder(folder_of(tmp_path, model_type, kind, extra, **own))
        assert opened.knobs["tied"] is True and opened.model.head.scale < 1.0


# ---------------------------------------------------------------------------------------------------------------------
# Extra tensors.

ONE = np.ones(3, np.float32)
INTS = np.arange(6)[None]
DEAD = [
    ("deberta-v2", "DebertaV2ForMaskedLM", "mask_predictions.dense.weight"),
    ("deberta", "DebertaForMaskedLM", "deberta.embeddings.position_ids"),
    ("deberta-v2", "DebertaV2Model", "embeddings.position_ids"),
    ("bart", "BartForConditionalGeneration", "model.encoder.version"),
    ("bart", "BartModel", "decoder.version"),
    ("bert", "BertForMaskedLM", "bert.embeddings.position_ids"),
    ("distilbert", "DistilBertModel", "embeddings.position_ids"),
    ("electra", "ElectraModel", "electra.embeddings.token_type_ids"),
    ("m2m_100", "M2M100ForConditionalGeneration", "model.encoder.embed_positions._float_tensor"),
    ("gpt2", "GPT2LMHeadModel", "h.1.attn.bias"),
    ("gpt2", "GPT2LMHeadModel", "transformer.h.0.attn.masked_bias"),
    ("gpt_neo", "GPTNeoForCausalLM", "transformer.h.0.attn.attention.masked_bias"),
    ("gptj", "GPTJForCausalLM", "transformer.h.0.attn.masked_bias"),
    ("codegen", "CodeGenForCausalLM", "transformer.h.0.attn.causal_mask"),
    ("gpt_neox", "GPTNeoXForCausalLM", "gpt_neox.layers.0.attention.rotary_emb.inv_freq"),
    ("llama", "LlamaForCausalLM", "model.layers.0.self_attn.rotary_emb.inv_freq"),
    ("llama", "LlamaForCausalLM", "model.layers.0.self_attn.rotary_emb.cos_cached"),
    ("gemma3_text", "Gemma3ForCausalLM", "model.rotary_emb.sliding_attention_inv_freq"),
    ("t5", "T5ForConditionalGeneration", "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"),
    ("openai-gpt", "OpenAIGPTLMHeadModel", "position_ids"),
    ("xlm-roberta-xl", "XLMRobertaXLForMaskedLM", "roberta.embeddings.position_ids"),
]
FOREIGN = [
    ("llama", "LlamaForCausalLM", "score.weight"),
    ("llama", "LlamaForCausalLM", "vision_tower.layers.0.self_attn.q_proj.weight"),
    ("m2m_100", "M2M100ForConditionalGeneration", "model.encoder.embed_positions.weights"),
    ("roberta", "RobertaForMaskedLM", "classifier.dense.weight"),
]
ALIVE = [
    ("llama", "LlamaForCausalLM", "model.layers.0.self_attn.q_proj.bias"),
    ("llama", "LlamaForCausalLM", "layers.0.self_attn.q_norm.weight"),
    ("llama", "LlamaForCausalLM", "lm_head.bias"),
    ("llama", "LlamaModel", "model.layers.9.mlp.up_proj.weight"),
    ("llama", "LlamaForCausalLM", "model.layers.1.mlp.up_proj.weight_scale"),
    ("bert", "BertModel", "encoder.layer.0.attention.self.distance_embedding.weight"),
    ("t5", "T5EncoderModel", "encoder.block.1.layer.0.SelfAttention.relative_attention_bias.weight"),
    ("gpt2", "GPT2Model", "h.0.crossattention.c_attn.weight"),
    ("bart", "BartModel", "encoder.layernorm_embedding.scale"),
]


@pytest.mark.parametrize(("model_type", "kind", "name"), DEAD)
def test_dead_buffers_are_passed_over(tmp_path, caplog, model_type, kind, name):
    before = open_folder(folder_of(tmp_path, model_type, kind))
    with caplog.at_level(logging.WARNING):
        opened = open_folder(folder_of(tmp_path, model_type, kind, {name: INTS}))
    assert opened.model == before.model and not caplog.records


def test_modules_that_predict_further_tokens(tmp_path):
    """DeepSeek-V3's stand behind its last layer, and only there."""
    kind, layers = "DeepseekV3ForCausalLM", configs()["deepseek_v3"]["num_hidden_layers"]
    own = {"num_nextn_predict_layers": 1}
    names = [f"model.layers.{layers + i}.mlp.up_proj.weight" for i in (0, 1)]
    open_folder(folder_of(tmp_path, "deepseek_v3", kind, {names[0]: ONE}, **own))
    with pytest.raises(UserError, match=f"tensor '{names[1]}' .* is unknown"):
        open_folder(folder_of(tmp_path, "deepseek_v3", kind, dict.fromkeys(names, ONE), **own))


@pytest.mark.parametrize(("model_type", "kind", "name"), FOREIGN)
def test_what_no_output_depends_on_is_told(tmp_path, caplog, model_type, kind, name):
    with caplog.at_level(logging.WARNING):
        open_folder(folder_of(tmp_path, model_type, kind, {name: ONE}))
    (record,) = caplog.records
    assert record.getMessage() == f"{tmp_path}: not part of this model and not read: {name}"


@pytest.mark.parametrize(("model_type", "kind", "name"), ALIVE)
def test_what_the_model_should_have_had_is_refused(tmp_path, model_type, kind, name):
    with pytest.raises(UserError, match=f"tensor '{name}' of model.safetensors is unknown"):
        open_folder(folder_of(tmp_path, model_type, kind, {name: ONE}))


def test_a_file_of_another_model_is_told_by_both(tmp_path):
    name = "model.layers.0.mlp.up_proj.weight"
    folder = folder_of(tmp_path, "llama", "LlamaForCausalLM", {name: None, "backbone.up.weight": ONE})
    with pytest.raises(UserError, match=f"'{name}' is missing from model.safetensors, which has 'backbone.up.weight'"):
        open_folder(folder)
