"""Records: what a record of a source becomes in the token cache, and the channels that its rows carry."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lm.core.component import to_dict
from lm.core.errors import UserError
from lm.data.cache import TokenCache, shard_digest
from lm.data.channels import CHANNELS, MADE_BY, token_ranges
from lm.data.open import open_data
from lm.data.packing import PACKINGS
from lm.data.records.documents import Documents
from lm.data.sources import open_source
from lm.data.tokenize import build_cache
from lm.text.tokenizers import ByteTokenizer
from lm.train.record import completed

BYTES = ByteTokenizer()


def lines(path, *records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def cached(folder, file, records, **knobs):
    """All records of a file, by bytes."""
    fields = records.fields("text")
    source = open_source(file, "validation", validation=file, fields=fields)
    return build_cache(source, BYTES, folder / "cache", records=records, workers=1, **knobs)


def documents_of(cache, name):
    bounds = zip(cache.offsets[:-1], cache.offsets[1:], strict=True)
    return [cache.read_channel(name, a, b).tolist() for a, b in bounds]


def test_every_channel_says_what_it_is_and_how_to_have_it():
    assert CHANNELS.keys() == MADE_BY.keys()


@given(st.text("aé水😀 \n", max_size=30), st.data())
def test_spans_of_characters_become_those_of_tokens(text, data):
    ids, covered = BYTES.encode_sized(text)
    ends = st.integers(0, len(text))
    spans = data.draw(st.lists(st.tuples(ends, ends).filter(lambda s: s[0] < s[1]), max_size=3))
    for (start, end), (first, behind) in zip(spans, token_ranges(text, covered, spans, "x"), strict=True):
        assert BYTES.decode(ids[first:behind]) == text[start:end]


def test_a_span_begins_within_a_token():
    covered = np.array([4, 4, 1])  # "the", " old", "."
    assert token_ranges("the  old.", covered, [(5, 8), (0, 9), (0, 1)], "x").tolist() == [[1, 2], [0, 3], [0, 1]]
    for wrong in ((2, 2), (-1, 3), (3, 10)):
        with pytest.raises(UserError, match=r"x: span \[.* is none of this text of 9 characters"):
            token_ranges("the  old.", covered, [wrong], "x")


@pytest.mark.parametrize("shard", [1 << 20, 20])
def test_spans_and_sentences_are_marked(tmp_path, shard):
    file = lines(
        tmp_path / "a.jsonl",
        {"text": "One. Two é! 三。四", "spans": [[5, 8], [12, 13, "NUMBER"]]},
        {"text": "no spans"},
        {"text": ""},
    )
    cache = cached(tmp_path, file, Documents("punctuation", "spans"), shard=shard)
    assert (cache.documents, cache.dropped, set(cache.channels)) == (2, 1, {"sentence", "span"})
    first, second = documents_of(cache, "sentence")
    text = "One. Two é! 三。四".encode()
    assert [text[at:][:3].decode(errors="ignore") for at in np.flatnonzero(first)] == ["One", "Two", "三", "四"]
    assert np.flatnonzero(second).tolist() == [0]
    span = documents_of(cache, "span")[0]
    assert span == [0] * 5 + [1] * 3 + [0] * 5 + [2] * 3 + [0] * (len(span) - 16)


def test_sentences_a_line(tmp_path):
    file = lines(tmp_path / "a.jsonl", {"text": "one. two\n\n  three\n"})
    cache = cached(tmp_path, file, Documents("lines"))
    assert np.flatnonzero(documents_of(cache, "sentence")[0]).tolist() == [0, 12]


def test_parts_of_a_long_document_have_the_marks_of_the_whole(tmp_path, monkeypatch):
    text = "".join(f"This is number {i}. " for i in range(300))
    file = lines(tmp_path / "a.jsonl", {"text": text})
    whole = cached(tmp_path, file, Documents("punctuation"))
    import lm.data.records.documents as module

    monkeypatch.setattr(module, "parts_of", lambda *given: module_parts(*given, size=500))
    module_parts = __import__("lm.data.cuts", fromlist=["parts_of"]).parts_of
    parts = cached(tmp_path / "b", file, Documents("punctuation"), shard=700)
    assert len(parts.shards) > 3
    assert documents_of(parts, "sentence") == documents_of(whole, "sentence")
    assert sum(documents_of(whole, "sentence")[0]) == 300


def test_caches_without_channels_are_as_they_were(tmp_path):
    """The digests and folders of plain documents, as they were before there were records."""
    (tmp_path / "a.txt").write_text("some text\n")
    plain = open_source(tmp_path / "a.txt", "validation", validation=tmp_path / "a.txt")
    cache = build_cache(plain, BYTES, tmp_path / "cache")
    meta = json.loads((cache.directory / "meta.json").read_text())
    assert not {"channels", "whole", "left_out"} & meta.keys() and "channels" not in meta["shards"][0]
    assert meta["shards"][0]["digest"] == shard_digest(cache.shards[0], np.zeros(1, np.int64))
    assert build_cache(plain, BYTES, tmp_path / "cache", records=Documents()).directory == cache.directory
    assert build_cache(plain, BYTES, tmp_path / "cache", records=Documents("lines")).digest != cache.digest


@pytest.mark.parametrize("damage", ["cut", "lost", "flipped"])
def test_damage_to_a_channel_is_noticed(tmp_path, damage):
    file = lines(tmp_path / "a.jsonl", {"text": "a b. c"})
    path = cached(tmp_path, file, Documents("lines")).directory / "00000.sentence"
    content = path.read_bytes()
    path.write_bytes({"cut": content[:-1], "lost": b"", "flipped": bytes([content[0] ^ 1]) + content[1:]}[damage])
    with pytest.raises(UserError, match=r"is damaged .* delete the folder"):
        TokenCache.open(path.parent)


@settings(max_examples=15)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=12), st.integers(2, 12))
@pytest.mark.parametrize("packing", ["concat", "best-fit", "stream"])
def test_rows_carry_channels(tmp_path_factory, packing, sizes, length):
    size = sum(sizes)
    tokens = np.arange(1, size + 1).astype("<u2")
    offsets = np.cumsum([0, *sizes])
    channels = {"target": ((tokens * 7 % 251).astype("<u1"),), "label": ((tokens / 2).astype("<f4"),)}
    folder = tmp_path_factory.mktemp("cache")
    cache = TokenCache(folder, (tokens,), offsets, size, 0, "", channels=channels)
    if size < length:
        return
    rows = PACKINGS[packing](cache, length)
    for i in range(len(rows)):
        row = rows[i]
        real = row["segments"] > 0
        assert row["label"].dtype == np.float32 and row["target"].dtype == np.int32
        np.testing.assert_array_equal(row["target"], np.where(real, row["tokens"] * 7 % 251, 0))
        np.testing.assert_array_equal(row["label"], np.where(real, row["tokens"] / 2, 0))


def test_wrong_spans(tmp_path):
    for spans in ("x", [[1]], [[0, 1.5]], [[3, 2]]):
        file = lines(tmp_path / "a.jsonl", {"text": "some text", "spans": spans})
        with pytest.raises(UserError, match=r"a\.jsonl line 1.*\[start, end\]|a\.jsonl line 1, field 'spans': span"):
            cached(tmp_path, file, Documents(spans="spans"))
    with pytest.raises(UserError, match="has no field 'where' in any record"):
        cached(tmp_path, file, Documents(spans="where"))
    (tmp_path / "a.txt").write_text("plain\n" * 99)
    with pytest.raises(UserError, match=r"a\.txt is plain text, but .* are to be read of each record"):
        open_data(tmp_path / "a.txt", records=Documents(spans="spans"), cache=tmp_path / "cache")


def test_a_saved_config_keeps_its_own_kind_of_records():
    saved = {"data": {"length": 7, "records": {"type": "Pairs", "inputs": "{1}"}}}
    assert completed(saved)["data"]["records"] == {"type": "Pairs", "inputs": "{1}", "targets": "{targets}"}
    assert completed({"data": {"length": 7}})["data"]["records"] == to_dict(Documents())
