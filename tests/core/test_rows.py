"""The keys of a batch."""

import jax.numpy as jnp
import pytest

from lm.core.errors import UserError
from lm.core.rows import LOSS_KEYS, MODEL_KEYS, Tokens, check_keys, reads
from lm.model.embed import Embed, RowTable
from lm.model.masks import Prefix


def test_an_unknown_key_is_an_error():
    check_keys(dict.fromkeys([*MODEL_KEYS, *LOSS_KEYS]))
    check_keys({"encoder/segments": 0, "encoder/speaker": 0}, own={"speaker"}, encoder=True)
    with pytest.raises(UserError, match=r"^key 'postions' of a batch is unknown; did you mean 'positions'"):
        check_keys({"tokens": 0, "postions": 0})
    with pytest.raises(UserError, match=r"^key 'encoder/tokens' of a batch is unknown"):
        check_keys({"encoder/tokens": 0})


def test_parts_name_the_keys_that_they_read():
    assert reads((Embed(7, extra=(RowTable("speaker", 3),)), Prefix())) == {"speaker", "prefix"}


def test_tokens_are_found_by_name():
    rows = {name: jnp.full((1, 2), i) for i, name in enumerate(MODEL_KEYS)}
    found = Tokens.of(rows | {"encoder/positions": jnp.full((1, 2), 99)})
    for name, value in vars(found).items():
        assert value is rows[{"globals": "global"}.get(name, name)]
    encoder = Tokens.of(rows | {"encoder/positions": jnp.full((1, 2), 99)}, "encoder/")
    assert (encoder.positions == 99).all() and encoder.segments is None and encoder.globals is None
