"""`architecture` opens a part of what a file holds: the base model of a classifier, an encoder or a decoder alone."""

import jax
import numpy as np
import pytest

from lm.core.errors import UserError
from lm.core.param import flatten
from lm.hub.binding import Binding
from lm.hub.config import spelling
from lm.hub.model_types import MODEL_TYPES
from lm.hub.open import open_folder
from lm.hub.save import config_of
from lm.model.heads import Heads
from tests.hub.tiny import configs, tensors_of, write

pytest.importorskip("safetensors")
QUICK = ("bert", "llama", "t5", "marian")


def parts(model_type: str) -> list[str]:
    """The classes whose tensors are in the files of others: base models, an encoder alone, a decoder alone."""
    classes = MODEL_TYPES[model_type].classes
    pairs = any(c.knobs.get("decoder_only") is False for c in classes.values())
    ends = ("Model", "ForCausalLM") if pairs else ("Model",)
    return [
        name for name in classes if name.endswith(ends) and not name.endswith(("LMHeadModel", "MTModel", "MTPModel"))
    ]


@pytest.mark.parametrize(
    "model_type", [kind if kind in QUICK else pytest.param(kind, marks=pytest.mark.slow) for kind in MODEL_TYPES]
)
def test_the_parts_of_every_class(tmp_path, model_type):
    """With the values of the file; and the whole of a part's file is enough, its prefix there or not."""
    for kind in MODEL_TYPES[model_type].classes:
        config = configs()[model_type] | {"architectures": [kind]}
        if kind.endswith("MTPModel"):  # a config tells of modules that predict further tokens, and these have experts
            config |= {"num_nextn_predict_layers": 1, "n_routed_experts": 16, "moe_intermediate_size": 4}
        tensors = tensors_of(config)
        folder = write(tmp_path / kind, config, tensors)
        for part in parts(model_type):
            try:
                opened = open_folder(folder, part)
            except UserError:  # a part of two towers, a file of one
                alone = ("EncoderModel", "ForCausalLM", *(["ForTokenClassification"] if "T5" in kind else []))
                assert kind.endswith(alone) and not part.endswith(alone), f"{kind} as {part}"
                continue
            part_config = config | {"architectures": [part]}
            again = Binding(opened.model, spelling(part_config).names).to_tensors(opened.params)
            for name, tensor in again.items():
                if name in tensors:
                    np.testing.assert_array_equal(tensor, tensors[name], err_msg=f"{kind} as {part}: {name}")


def test_a_part_of_a_part_with_and_without_prefix(tmp_path):
    config = configs()["llama"] | {"architectures": ["LlamaForQuestionAnswering"]}
    tensors = tensors_of(config)
    assert "transformer.layers.0.mlp.up_proj.weight" in tensors
    base = open_folder(write(tmp_path / "answers", config, tensors), "LlamaModel")
    bare = {name.removeprefix("transformer."): t for name, t in tensors.items() if not name.startswith("qa_")}
    config["architectures"] = ["LlamaModel"]
    for prefix in ("", "model.", "transformer."):
        folder = write(tmp_path / f"prefix{prefix}", config, {prefix + name: t for name, t in bare.items()})
        jax.tree.map(np.testing.assert_array_equal, open_folder(folder).params, base.params)


@pytest.mark.parametrize("model_type", ["bert", "roberta", "albert", "big_bird", "longformer", "ernie"])
def test_an_embedder_without_pooler(tmp_path, model_type):
    """Hidden states need none; a pooler of which half is there is still told; what was opened can be exported."""
    kind = next(name for name in MODEL_TYPES[model_type].classes if name.endswith("Model"))
    config = configs()[model_type] | {"architectures": [kind]}
    tensors = tensors_of(config)
    whole = open_folder(write(tmp_path / "whole", config, tensors))
    pooler = [name for name in tensors if "pooler" in name]
    assert len(pooler) == 2 and {name for name, _ in whole.model.head.parts} == {"states", "pooler"}
    without = {name: tensor for name, tensor in tensors.items() if name not in pooler}
    opened = open_folder(write(tmp_path / "without", config, without))
    assert isinstance(opened.model.head, Heads) and [name for name, _ in opened.model.head.parts] == ["states"]
    jax.tree.map(np.testing.assert_array_equal, opened.params["body"], whole.params["body"])
    assert config_of(opened.knobs, model_type)["architectures"] == [kind]
    half = without | {pooler[0]: tensors[pooler[0]]}
    with pytest.raises(UserError, match=f"tensor '{pooler[1]}' is missing"):
        open_folder(write(tmp_path / "half", config, half))


def test_what_a_part_needs_and_a_file_lacks_is_told(tmp_path):
    config = configs()["llama"] | {"architectures": ["LlamaModel"], "tie_word_embeddings": False}
    folder = write(tmp_path, config, tensors_of(config))
    with pytest.raises(UserError, match=r"tensor 'score.weight' is missing from model.safetensors: check"):
        open_folder(folder, "LlamaForSequenceClassification")
    with pytest.raises(UserError, match=r"tensor 'lm_head.weight' is missing from .* the config does not tie it"):
        open_folder(folder, "LlamaForCausalLM")
    assert "head" not in dict(flatten(open_folder(folder).params))
