"""What a file is, is told by what it holds as well as by its name, and what is no text is refused in words."""

import bz2
import csv
import gzip
import io
import json
import lzma
import pickle
import re
import sqlite3
import tarfile
import threading
import zipfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lm.core.errors import UserError
from lm.data import progress
from lm.data.formats import entries
from lm.data.open import open_data
from lm.data.sources import Meter, open_source

TEXTS = ["one", 'two\nlines, "quoted"', "naïve ☃\ttab", "four"] * 5
RECORDS = [{"text": t, "meta": {"text": t.upper(), "n": i}, "id": i} for i, t in enumerate(TEXTS)]
LINES = "".join(json.dumps(r) + "\n" for r in RECORDS)
PRETTY = "\n".join(json.dumps(r, indent=2) for r in RECORDS)
ARRAY = json.dumps(RECORDS)


def texts(path, field="text"):
    return ["".join(read()) for _, read in entries(path, path.name, field, Meter())]


def written(path, content):
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def cells(rows, **dialect):
    file = io.StringIO()
    csv.writer(file, **dialect).writerows(rows)
    return file.getvalue()


ROWS = [["id", "text", "note"], *([i, t, "n"] for i, t in enumerate(TEXTS))]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.json", LINES),
        ("a.json", "\ufeff" + LINES),
        ("c4-train.00000-of-00001.json.gz", LINES),
        ("part-00000", LINES),
        ("a.json", ARRAY),
        ("a.json", "\ufeff\n" + json.dumps(RECORDS, indent=1)),
        ("a.json", "[\n" + ",\n".join(map(json.dumps, RECORDS)) + "\n]\n"),
        ("a.json", json.dumps(TEXTS)),
        ("a.jsonl", ARRAY),
        ("a.jsonl", PRETTY),
        ("a.ndjson.xz", PRETTY),
        ("data", ARRAY),
        ("a.csv", cells(ROWS)),
        ("a.csv", "\ufeff" + cells(ROWS, lineterminator="\n")),
        ("a.csv", cells(ROWS, delimiter=";")),
        ("a.csv", cells(ROWS, quoting=csv.QUOTE_ALL)),
        ("a.csv.bz2", cells(ROWS)),
        ("a.tsv", cells(ROWS, delimiter="\t")),
        ("a.tsv.gz", cells(ROWS, delimiter="\t", quoting=csv.QUOTE_ALL)),
        ("a.tsv", cells([[i, "x", t] for i, _, t in [["id", "", "text"]] + [[i, "", t] for i, t in enumerate(TEXTS)]],
                        delimiter="\t")),
    ],
)  # fmt: skip
def test_records_are_found(tmp_path, name, content):
    pack = {"gz": gzip.compress, "xz": lzma.compress, "bz2": bz2.compress}.get(name.rpartition(".")[2], bytes)
    assert texts(written(tmp_path / name, pack(content.encode()))) == TEXTS


@pytest.mark.parametrize("content", [LINES, PRETTY, ARRAY])
def test_fields_in_fields(tmp_path, content):
    path = written(tmp_path / "a.json", content)
    assert texts(path, "meta.text") == [t.upper() for t in TEXTS]
    with pytest.raises(UserError, match=r"a\.json.* field 'meta.n' is not text but int; .*config\.data\.field"):
        texts(path, "meta.n")
    with pytest.raises(UserError) as e:
        texts(path, "content")
    message = str(e.value)
    assert "has no field 'content' in any record" in message and "\n" not in message
    assert "'text', 'meta', 'id', 'meta.text', 'meta.n': set config.data.field" in message


def test_parquet_by_content_and_by_struct(tmp_path):
    arrow = pytest.importorskip("pyarrow", reason="needs the extra `data`")
    parquet = pytest.importorskip("pyarrow.parquet")
    parquet.write_table(arrow.Table.from_pylist([*RECORDS, {"text": None}]), tmp_path / "shard-0")
    assert texts(tmp_path / "shard-0") == [*TEXTS, ""]
    assert texts(tmp_path / "shard-0", "meta.text") == [*map(str.upper, TEXTS), ""]
    with pytest.raises(UserError, match=r"'meta' has no field 'meta\.body'; set config\.data\.field"):
        texts(tmp_path / "shard-0", "meta.body")
    written(tmp_path / "a.parquet.gz", gzip.compress((tmp_path / "shard-0").read_bytes()))
    with pytest.raises(UserError, match="compressed as a whole; unpack it first"):
        texts(tmp_path / "a.parquet.gz")
    with pytest.raises(UserError, match="an Arrow"):
        with arrow.ipc.new_file(tmp_path / "a.arrow", arrow.schema({"text": arrow.string()})) as out:
            out.write_table(arrow.table({"text": TEXTS}))
        texts(tmp_path / "a.arrow")


@given(st.lists(st.tuples(st.text(max_size=9), st.text("ab\"\t\n',", max_size=9)), min_size=1), st.booleans())
def test_any_cell_comes_back_quoted(tmp_path_factory, rows, tabs):
    rows = [[a.replace("\r", "").replace("\0", ""), b] for a, b in rows]
    rows = [row for row in rows if any(row)]
    content = cells([["text", "other"], *rows], delimiter="\t" if tabs else ",", quoting=csv.QUOTE_ALL)
    path = tmp_path_factory.getbasetemp() / ("cells.tsv" if tabs else "cells.csv")
    try:
        data = content.encode()
    except UnicodeEncodeError:  # half a surrogate pair
        return
    assert texts(written(path, data)) == [row[0] for row in rows]


def test_tables_without_quotes_or_header(tmp_path):
    said = ['"Hello," he said', '"Tis but a scratch', 'a "b" c', '"whole"', "plain", '"']
    path = written(tmp_path / "a.tsv", "".join(f"{i}\t{t}\n" for i, t in enumerate(said)))
    assert texts(path, "2") == [*said[:3], "whole", *said[4:]]
    with pytest.raises(UserError, match=r"a\.tsv has no column 'text'.*it has '0'.*config\.data\.field.* 1 to 2"):
        texts(path)
    ragged = written(tmp_path / "b.csv", "id,text\n1,a\n2\n\n3,c\n")
    assert texts(ragged) == ["a", "", "c"]
    with pytest.raises(UserError, match=r"b\.csv line 2 is not CSV"):
        texts(written(tmp_path / "b.csv", 'text,id\n"a"b,1\n'))


def test_records_without_text_are_counted(tmp_path):
    lines = [{"text": "a"}, {"body": "b"}, {"text": None}, {"text": "c"}]
    path = written(tmp_path / "a.jsonl", "\n".join(map(json.dumps, lines)))
    assert texts(path) == ["a", "", "", "c"]
    for content, message in [
        (json.dumps({"data": RECORDS}), r"whose 'data' holds 20 records: write these as lines \(jq -c '\.data\[\]'"),
        (json.dumps({"data": RECORDS}, indent=1), "whose 'data' holds 20 records"),
        (json.dumps({"text": TEXTS}), "field 'text' is not text but list"),
        (ARRAY[:-300], r"record \d+ is not JSON"),
        (ARRAY[:-1], "ends within its array"),
        (ARRAY + "[]", r"goes on with '\['"),
        ("[1, 2]", "is not a JSON object or string but int"),
        ("[" * 100_000, "nested too deeply"),
        ('{"text": "a", "n": ' + "9" * 5000 + "}", "line 1: Exceeds the limit"),
        ('[{"text": "a", "n": ' + "9" * 5000 + "}]", "record 1: Exceeds the limit"),
    ]:
        with pytest.raises(UserError, match=message):
            texts(written(tmp_path / "a.json", content))


def test_text_by_any_name_and_by_none(tmp_path):
    prose = "It was the best of times,\nit was the worst of times.\n"
    for name in ("a.txt", "README", "a.unknown", "a.md.gz", "a.zst", "a.html"):
        assert texts(written(tmp_path / "x", prose)) == [prose]
        if name.endswith((".gz", ".zst")):
            with pytest.raises(UserError, match=r"is truncated or damaged \(its name says"):
                texts(written(tmp_path / name, prose))
        else:
            assert texts(written(tmp_path / name, prose)) == [prose]
            for pack in (gzip.compress, bz2.compress, lzma.compress):
                assert texts(written(tmp_path / name, pack(prose.encode()))) == [prose]
    page = "<!DOCTYPE html>\n<p>text</p>\n"
    assert texts(written(tmp_path / "page.html", page)) == [page]
    for name, content, what in [
        ("page", page, "HTML or XML"),
        ("dump", "<mediawiki>", "HTML or XML"),
        ("values.dat", "a\tb\nc\td\ne\tf\ng\th\n", "a table of values between tabs"),
    ]:
        with pytest.raises(UserError, match=f"looks like {what}: rename it"):
            texts(written(tmp_path / name, content))
    assert texts(written(tmp_path / "template", "{{ name }}\n")) == ["{{ name }}\n"]
    (note,) = open_source(written(tmp_path / "b.txt", LINES)).notes
    assert "though it holds JSON: name it .jsonl" in note
    (note,) = open_source(written(tmp_path / "c.txt", "A story.\n<|endoftext|>\nAnother.\n")).notes
    assert "in which <|endoftext|> is text too: write its parts as .jsonl" in note


def packed(**files):
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name.replace("__", "/"), content)
    return data.getvalue()


def tarred():
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("a.txt"), io.BytesIO(b""))
    return data.getvalue()


def database(tmp_path):
    with sqlite3.connect(tmp_path / "db") as db:
        db.execute("create table t (text)")
    return (tmp_path / "db").read_bytes()


@pytest.mark.parametrize("name", ["a.txt", "a", "a.jsonl", "a.csv"])
def test_binary_files_are_named(tmp_path, name):
    random = bytes(range(256)) * 30
    for content, what in [
        (b"%PDF-1.7\n%\xe2\xe3\n", "a PDF document"),
        (packed(a=random), "a zip archive"),
        (packed(word__document=random), "a Word document"),
        (tarred(), "a tar archive"),
        (pickle.dumps(TEXTS), "a pickle"),
        (database(tmp_path), "an SQLite database"),
        (b"GGUF\3\0\0\0", "the weights of a model"),
        (b"{\\rtf1 a}", "a rich text document"),
        ("text é".encode("utf-16"), "UTF-16"),
        ("text é".encode("utf-16-le"), "UTF-16"),
        ("text é".encode("utf-32"), "UTF-32"),
        (("naïve café, " * 30).encode("latin-1"), r"not UTF-8 at byte 2; it may be Latin-1"),
        (b"\x81\xa4text\xa1a" * 30, "not UTF-8 at byte 0"),
    ]:
        path = written(tmp_path / name, gzip.compress(content) if name == "a" else content)
        with pytest.raises(UserError, match=f"{name} is {what}") as e:
            texts(path)
        assert "\n" not in str(e.value)
    with pytest.raises(UserError, match=r"x\.msgpack is a MessagePack file, not text: write it as \.jsonl"):
        texts(written(tmp_path / "x.msgpack", b"\x81\xa4text\xa1\xff"))
    assert texts(written(tmp_path / "orc.txt", "ORCHESTRA")) == ["ORCHESTRA"]  # no text is taken for a format


def test_zstd_of_any_window(tmp_path):
    zstandard = pytest.importorskip("zstandard", reason="needs the extra `data`")
    for window in (27, 28, 31):
        parameters = zstandard.ZstdCompressionParameters(window_log=window, enable_ldm=True)
        compressor = zstandard.ZstdCompressor(compression_params=parameters)
        stream = compressor.compressobj()  # as the program does, without the size of the content in the frame
        data = stream.compress(LINES.encode()) + stream.flush()
        assert zstandard.get_frame_parameters(data).window_size == 1 << window
        assert texts(written(tmp_path / "long.jsonl.zst", data)) == TEXTS
        skippable = b"\x50\x2a\x4d\x18\x04\0\0\0abcd"
        assert texts(written(tmp_path / "frames", skippable + data + data)) == TEXTS * 2
        with pytest.raises(UserError, match="is truncated or damaged"):
            texts(written(tmp_path / "cut.jsonl.zst", data[:-9]))


def test_what_is_left_out_is_told_before_anything_is_tokenised(tmp_path, capsys):
    (tmp_path / "corpus").mkdir()
    table = written(tmp_path / "corpus" / "a.csv", cells(ROWS))
    written(tmp_path / "corpus" / "b.txt", "text\n")
    data = open_data(tmp_path / "corpus", "byte", pattern="*.csv", holdout=0.3, cache=tmp_path / "cache")
    assert data.parts[0].train.documents + data.validation[0].documents == len(TEXTS)
    assert capsys.readouterr().err == f"{tmp_path}/corpus: 1 file(s) read; left out: 1 not named *.csv (1 *.txt)\n"
    with pytest.raises(UserError, match=r"has no column 'body'.*config\.data\.field"):
        open_data(table, "byte", field="body", cache=tmp_path / "cache")


def test_progress_is_told_in_lines(capsys, monkeypatch):
    monkeypatch.setattr(progress, "SILENT", 0.0)
    monkeypatch.setattr(progress, "EVERY", 0.001)
    asked = threading.Event()
    shares = iter([0.5, 0.25])

    def state():
        share = next(shares, 1.0)
        if share == 1.0:
            asked.set()
        return share, 5e6

    with progress.Progress("tokenising", state):
        assert asked.wait(60)
    lines = capsys.readouterr().err.splitlines()
    assert re.fullmatch(r"tokenising: 25%, 5 MB, [\d,.]+ MB/s, 0:00 left", lines[1])
    assert lines[0].startswith("tokenising: 50%") and all("\x1b" not in line for line in lines)
