"""Files of encoders as they are published: more tensors than the class in config.json has, older names of norms,
buffers, no prefix. All of them load, and what is missing or unknown is still told."""

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from lm.core.errors import UserError
from lm.hub.binding import Binding
from lm.hub.config import read_config, spelling
from lm.hub.folder import read_folder
from lm.zoo.registry import build
from tests import toys

save_file = pytest.importorskip("safetensors.numpy").save_file

BERT = {
    "attention_probs_dropout_prob": 0.1,
    "gradient_checkpointing": False,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "hidden_size": 8,
    "initializer_range": 0.02,
    "intermediate_size": 12,
    "layer_norm_eps": 1e-12,
    "max_position_embeddings": 10,
    "model_type": "bert",
    "num_attention_heads": 2,
    "num_hidden_layers": 2,
    "pad_token_id": 0,
    "position_embedding_type": "absolute",
    "transformers_version": "4.6.0.dev0",
    "type_vocab_size": 2,
    "use_cache": True,
    "vocab_size": 13,
}
ALBERT = {**BERT, "model_type": "albert", "embedding_size": 4, "num_hidden_groups": 1, "inner_group_num": 1}
ROBERTA = {**BERT, "model_type": "roberta", "pad_token_id": 1, "type_vocab_size": 1}
DISTIL = {
    **{"model_type": "distilbert", "dim": 8, "hidden_dim": 12, "n_heads": 2, "n_layers": 2, "vocab_size": 13},
    **{"sinusoidal_pos_embds": False, "tie_weights_": True, "max_position_embeddings": 10, "activation": "gelu"},
}
ELECTRA = {**BERT, "model_type": "electra", "embedding_size": 4}
POSITIONS = np.arange(10, dtype=np.int64)[None]


def one(*shape: int) -> np.ndarray:
    return np.ones(shape, np.float32)


def published(config: dict[str, Any], kind: str) -> tuple[dict[str, Any], Any, Any, dict[str, np.ndarray]]:
    """config.json, model, parameters, and their tensors by their names there."""
    config = {**config, "architectures": [kind]}
    model = build(read_config(config).knobs)
    params = toys.values(model.spec())
    return config, model, params, Binding(model, spelling(config).names).to_tensors(params)


def loads(folder: Path, config: dict[str, Any], model: Any, params: Any, tensors: dict[str, np.ndarray]) -> None:
    (folder / "config.json").write_text(json.dumps(config))
    save_file({name: np.ascontiguousarray(t) for name, t in tensors.items()}, folder / "model.safetensors")
    jax.tree.map(np.testing.assert_array_equal, read_folder(folder, model), jax.tree.map(np.asarray, params))


def renamed(tensors: dict[str, np.ndarray], *pairs: tuple[str, str]) -> dict[str, np.ndarray]:
    def name(old: str) -> str:
        for a, b in pairs:
            old = old.removesuffix(a) + b if old.endswith(a) else old
        return old

    found = {name(old): tensor for old, tensor in tensors.items()}
    assert found.keys() != tensors.keys()
    return found


def test_a_masked_language_model_with_all_that_pretraining_left(tmp_path):
    config, model, params, tensors = published(BERT, "BertForMaskedLM")
    assert "cls.predictions.bias" in tensors and "cls.predictions.decoder.weight" not in tensors
    table = tensors["bert.embeddings.word_embeddings.weight"]
    more = {
        "bert.embeddings.position_ids": POSITIONS,
        "bert.pooler.dense.weight": one(8, 8),
        "bert.pooler.dense.bias": one(8),
        "cls.predictions.decoder.bias": tensors["cls.predictions.bias"],
        "cls.predictions.decoder.weight": table,
        "cls.seq_relationship.weight": one(2, 8),
        "cls.seq_relationship.bias": one(2),
    }
    old = renamed(tensors, ("LayerNorm.weight", "LayerNorm.gamma"), ("LayerNorm.bias", "LayerNorm.beta"))
    loads(tmp_path, config, model, params, old | more)
    with pytest.raises(UserError, match=r"'cls.predictions.decoder.weight' differ.*: build it untied$"):
        loads(tmp_path, config, model, params, old | more | {"cls.predictions.decoder.weight": table + 1})


def test_a_bias_under_its_other_name_alone(tmp_path):
    config, model, params, tensors = published(BERT, "BertForMaskedLM")
    loads(tmp_path, config, model, params, renamed(tensors, ("predictions.bias", "predictions.decoder.bias")))


def test_a_head_for_pretraining_has_all_of_that(tmp_path):
    config, model, params, tensors = published(BERT, "BertForPreTraining")
    assert {"bert.pooler.dense.weight", "cls.seq_relationship.bias", "cls.predictions.bias"} <= tensors.keys()
    loads(tmp_path, config, model, params, tensors)


@pytest.mark.parametrize("prefix", ["", "bert."])
def test_a_sentence_embedder_is_a_base_model(tmp_path, prefix):
    """Such files have no prefix; those of a model with a head do, and more tensors."""
    config, model, params, tensors = published(BERT, "BertModel")
    tensors = {prefix + name.removeprefix("bert."): t for name, t in tensors.items()}
    assert f"{prefix}pooler.dense.weight" in tensors
    more = {f"{prefix}embeddings.position_ids": POSITIONS}
    if prefix:
        more |= {"cls.predictions.transform.dense.weight": one(8, 8), "cls.predictions.bias": one(13)}
    loads(tmp_path, config, model, params, tensors | more)


def test_classifiers_of_a_file_with_a_pooler(tmp_path):
    config, model, params, tensors = published(
        {**BERT, "id2label": {"0": "O", "1": "B", "2": "I"}}, "BertForTokenClassification"
    )
    assert tensors["classifier.weight"].shape == (3, 8)
    loads(tmp_path, config, model, params, tensors | {"bert.pooler.dense.weight": one(8, 8)})


@pytest.mark.parametrize(
    ("config", "kind", "more"),
    [
        (ALBERT, "AlbertForMaskedLM", ("albert.pooler.weight", "albert.pooler.bias", "sop_classifier.classifier.bias")),
        (ROBERTA, "RobertaForMaskedLM", ("roberta.pooler.dense.weight", "roberta.pooler.dense.bias")),
        (ROBERTA, "RobertaModel", ("lm_head.bias", "lm_head.dense.weight", "lm_head.layer_norm.bias")),
        (DISTIL, "DistilBertModel", ("vocab_projector.bias", "vocab_transform.weight", "vocab_layer_norm.weight")),
        (ELECTRA, "ElectraForPreTraining", ("generator_lm_head.bias", "generator_predictions.dense.weight")),
        (ELECTRA, "ElectraForMaskedLM", ("discriminator_predictions.dense_prediction.bias",)),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_tensors_of_other_heads_are_passed_over(tmp_path, config, kind, more):
    config, model, params, tensors = published(config, kind)
    base = next(name for name in tensors if "word_embeddings" in name).partition(".")[0]
    buffers = {f"{base}.embeddings.position_ids": POSITIONS}
    loads(tmp_path, config, model, params, tensors | buffers | {name: one(3) for name in more})


def test_a_second_copy_of_a_tied_table(tmp_path):
    for config, kind, table, copy in (
        (ROBERTA, "RobertaForMaskedLM", "roberta.embeddings.word_embeddings.weight", "lm_head.decoder.weight"),
        (ALBERT, "AlbertForMaskedLM", "albert.embeddings.word_embeddings.weight", "predictions.decoder.weight"),
        (DISTIL, "DistilBertForMaskedLM", "distilbert.embeddings.word_embeddings.weight", "vocab_projector.weight"),
        (ELECTRA, "ElectraForMaskedLM", "electra.embeddings.word_embeddings.weight", "generator_lm_head.weight"),
    ):
        found, model, params, tensors = published(config, kind)
        loads(tmp_path, found, model, params, tensors | {copy: tensors[table]})


def test_what_no_class_has_is_told(tmp_path):
    config, model, params, tensors = published(BERT, "BertForMaskedLM")
    with pytest.raises(UserError, match=r"tensor 'bert.encoder.layer.0.adapter.weight' .*is unknown"):
        loads(tmp_path, config, model, params, tensors | {"bert.encoder.layer.0.adapter.weight": one(8, 8)})
    del tensors["cls.predictions.transform.LayerNorm.weight"]
    with pytest.raises(UserError, match=r"tensor 'cls.predictions.transform.LayerNorm.weight' is missing"):
        loads(tmp_path, config, model, params, tensors)


def test_relative_positions_are_refused():
    with pytest.raises(UserError, match="position_embedding_type='relative_key' is not supported, only 'absolute'"):
        read_config({**BERT, "position_embedding_type": "relative_key"})
    with pytest.raises(UserError, match="add_cross_attention=True is not supported"):
        read_config({**BERT, "is_decoder": True, "add_cross_attention": True})
