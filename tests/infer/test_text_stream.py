"""Text given out token by token is the text, and never half a character."""

from hypothesis import given
from hypothesis import strategies as st

from lm.text.stream import TextStream
from lm.text.tokenizers import ByteTokenizer

BYTES = ByteTokenizer()


@given(st.text())
def test_pieces_make_the_text(text):
    stream = TextStream(BYTES)
    pieces = [stream.push(token) for token in BYTES.encode(text).tolist()]
    assert "".join([*pieces, stream.finish()]) == text
    whole = [piece for piece in pieces if piece]
    assert all(piece in text for piece in whole)


@given(st.lists(st.integers(0, BYTES.vocab_size - 1)))
def test_any_tokens_make_their_text(tokens):
    stream = TextStream(BYTES)
    assert "".join([*(stream.push(t) for t in tokens), stream.finish()]) == BYTES.decode(tokens)


def test_a_character_waits_for_its_last_byte():
    stream = TextStream(BYTES)
    first, *rest = BYTES.encode("€!").tolist()
    assert [stream.push(first), *map(stream.push, rest)] == ["", "", "€", "!"]
    assert stream.push(first) == ""
    assert stream.finish() == "\N{REPLACEMENT CHARACTER}"
