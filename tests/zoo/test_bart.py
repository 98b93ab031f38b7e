"""What files of BART's kin may lack or hold besides, and what is not theirs."""

import numpy as np
import pytest

from lm.core.errors import UserError
from lm.core.param import flatten
from lm.hub.binding import Binding
from lm.hub.config import read_config, write_config
from lm.model.positions import Sinusoidal
from lm.zoo.registry import build
from tests import toys

CONFIG = {
    "model_type": "bart",
    "architectures": ["BartForConditionalGeneration"],
    "vocab_size": toys.VOCAB,
    "d_model": 8,
    "max_position_embeddings": 10,
    **{f"{side}_{name}": 2 for side in ("encoder", "decoder") for name in ("layers", "attention_heads", "ffn_dim")},
}
TABLE = "model.shared.weight"


def tensors(**config):
    described = read_config(CONFIG | config)
    model, names = build(described.knobs), described.spelling.names
    return model, names, Binding(model, names).to_tensors(toys.values(model.spec()))


def test_a_file_without_final_logits_bias_has_none():
    model, names, held = tensors()
    assert held["final_logits_bias"].shape == (1, toys.VOCAB)
    assert (
        not Binding(model, names)
        .to_params({k: v for k, v in held.items() if k != "final_logits_bias"})["head"]["offset"]
        .any()
    )
    np.testing.assert_array_equal(Binding(model, names).to_params(held)["head"]["offset"], held["final_logits_bias"])


def test_a_tied_table_may_stand_there_four_times():
    model, names, held = tensors()
    again = ("model.encoder.embed_tokens.weight", "model.decoder.embed_tokens.weight", "lm_head.weight")
    many = held | dict.fromkeys(again, held[TABLE])
    assert dict(flatten(Binding(model, names).to_params(many))).keys() == dict(flatten(model.spec())).keys()
    with pytest.raises(UserError, match="differ"):
        Binding(model, names).to_params(many | {again[1]: held[TABLE] + 1})


def test_tables_of_their_own_leave_the_shared_one_unread():
    model, names, held = tensors(tie_word_embeddings=False)
    assert TABLE not in held and "model.encoder.embed_tokens.weight" in held
    Binding(model, names).to_params(held | {TABLE: held["lm_head.weight"] + 1})


def test_files_that_say_they_norm_elsewhere_are_refused():
    with pytest.raises(UserError, match="normalize_before=True"):
        read_config(CONFIG | {"normalize_before": True})


def test_other_positions_have_no_name_there():
    with pytest.raises(UserError, match="position"):
        write_config("bart", read_config(CONFIG).knobs | {"position": Sinusoidal()})
