"""A config.json with an odd value in any field is read, or refused in one line; none ends in a traceback."""

import itertools
import random
from typing import Any

import pytest

from lm.core.errors import UserError
from lm.hub.config import read_config
from lm.hub.model_types import MODEL_TYPES
from tests.hub.tiny import configs

ODD: tuple[Any, ...] = (None, "x", -1, 0, 1.5, [], {})
LARGE: tuple[Any, ...] = (1024, 10**9, 10**18, 1e300, True, "1", [1], -1.5)
HEADS = ("architectures", "model_type", "id2label", "num_labels", "eos_token_id")


def odd_configs(model_type: str, values: tuple[Any, ...]) -> list[tuple[str, Any]]:
    fields = {name for field in MODEL_TYPES[model_type].fields for name in field.keys}
    return [*itertools.product(sorted(fields | configs()[model_type].keys() | {*HEADS}), values)]


def check(model_type: str, name: str, value: Any) -> None:
    config = configs()[model_type] | {name: value}
    try:
        read_config(config)
    except UserError as e:
        assert "\n" not in str(e) and len(str(e)) > 10, f"{name}={value!r}"
    except Exception as e:  # what this test is about
        raise AssertionError(f"{model_type}: {name}={value!r} ends in {type(e).__name__}: {e}") from e


def test_a_sample_of_odd_configs():
    every = [(kind, *pair) for kind in MODEL_TYPES for pair in odd_configs(kind, ODD + LARGE[1:])]
    for kind, name, value in random.Random(0).sample(every, 300):
        check(kind, name, value)


@pytest.mark.slow
@pytest.mark.parametrize("model_type", MODEL_TYPES)
@pytest.mark.parametrize("values", [ODD, LARGE], ids=["odd", "large"])
def test_all_odd_configs(model_type, values):
    for name, value in odd_configs(model_type, values):
        check(model_type, name, value)


@pytest.mark.parametrize("value", ["x", -1, 0, 1.5, [], {}, 10**9, 10**18])
@pytest.mark.parametrize(
    ("model_type", "name"),
    [
        ("llama", "num_hidden_layers"),
        ("llama", "num_key_value_heads"),
        ("t5", "num_decoder_layers"),
        ("t5", "feed_forward_proj"),
        ("gpt_neo", "attention_types"),
        ("bart", "decoder_layers"),
        ("albert", "num_hidden_groups"),
        ("llama", "rope_parameters"),
        ("bert", "architectures"),
    ],
)
def test_the_field_is_named(model_type, name, value):
    config = {k: v for k, v in configs()[model_type].items() if k != "rope_theta"} | {name: value}
    if value in ([], {}) and name in ("rope_parameters", "architectures", "attention_types"):
        return  # as good as nothing there
    with pytest.raises(UserError, match=name):
        read_config(config)


@pytest.mark.parametrize(
    ("model_type", "name"),
    [
        ("llama", "num_key_value_heads"),
        ("llama", "head_dim"),
        ("llama", "rope_parameters"),
        ("t5", "num_decoder_layers"),
        ("t5", "is_gated_act"),
        ("bert", "position_embedding_type"),
        ("bart", "normalize_before"),
        ("bart", "scale_embedding"),
        ("deberta-v2", "share_att_key"),
        ("deberta", "pooler_hidden_size"),
        ("gemma2", "sliding_window_pattern"),
        ("bert", "architectures"),
    ],
)
def test_null_is_the_default_where_transformers_has_it_so(model_type, name):
    config = {k: v for k, v in configs()[model_type].items() if k not in (name, "rope_theta")}
    assert read_config(config | {name: None}).knobs == read_config(config).knobs


def test_a_field_of_another_unit_is_named_by_its_name_here():
    config = configs()["llama"] | {"hidden_size": 10, "num_attention_heads": 3, "head_dim": None}
    with pytest.raises(UserError, match="hidden_size=10 is no multiple of num_attention_heads=3"):
        read_config(config)
    with pytest.raises(UserError, match=r"vocab_size=1000000000 and the other sizes make .* parameters: check them"):
        read_config(configs()["llama"] | {"vocab_size": 10**9, "hidden_size": 6 * 10**6})


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("model_type", "gpt2", "decoder: model_type='gpt2' is not supported; known: bert, bert-generation"),
        ("max_position_embeddings", "x", "decoder.max_position_embeddings='x' is a str"),
        ("num_attention_heads", 3, "decoder.hidden_size=28 is no multiple of decoder.num_attention_heads=3"),
        ("hidden_act", "mish", "decoder: hidden_act='mish' is an unknown activation"),
    ],
)
def test_a_field_of_a_tower_is_named_with_its_tower(name, value, message):
    config = configs()["encoder-decoder"]
    with pytest.raises(UserError, match=message):
        read_config(config | {"decoder": config["decoder"] | {name: value}})
