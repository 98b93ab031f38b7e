import gzip
import json
import sys
import sysconfig

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lm.core.errors import UserError
from lm.data.sources import Document, held_out, open_source


def names(source):
    return [document.name for document in source]


def text(source):
    return "".join(document.text for document in source)


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "corpus"
    for i in range(40):
        file = root / f"part{i % 3}" / f"{i}.txt"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"document {i}\n")
    (root / "notes.md").write_text("not text\n")
    (root / ".hidden.txt").write_text("hidden\n")
    return root


def write_jsonl(path, records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def test_standard_library_splits_are_disjoint_and_plain():
    train, validation = open_source("python-stdlib"), open_source("python-stdlib", "validation")
    t, v = set(names(train)), set(names(validation))
    assert not t & v
    assert {"argparse.py", "textwrap.py", "json/decoder.py"} <= v
    assert {"dataclasses.py", "asyncio/tasks.py", "typing.py"} <= t
    assert not any(part in ("test", "site-packages", "encodings") for name in t for part in name.split("/"))
    share = len(text(validation).encode()) / len((text(train) + text(validation)).encode())
    assert 0.02 < share < 0.05
    assert names(train) == sorted(names(train))


def test_standard_library_without_sources(monkeypatch, tmp_path):
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path))
    with pytest.raises(UserError, match=r"keeps no \.py files"):
        open_source("python-stdlib")


def test_folder_splits_by_document(folder):
    train, validation = (open_source(folder, split, holdout=0.2) for split in ("train", "validation"))
    assert sorted(names(train) + names(validation)) == sorted(f"part{i % 3}/{i}.txt" for i in range(40))
    assert 0 < len(names(validation)) < 20
    everything = open_source(folder, pattern="*.txt, *.md", holdout=0.2)
    assert "notes.md" in names(everything)
    assert set(names(train)) < set(names(everything))


@settings(max_examples=50)
@given(st.lists(st.text(max_size=5), min_size=2, unique=True), st.floats(0.001, 0.999))
def test_neither_split_is_empty_and_growth_moves_no_document(corpus, holdout):
    held = held_out(corpus, holdout)
    assert held.any() and not held.all()
    grown = held_out([*corpus, *(f"more {i}" for i in range(60))], holdout)[: len(corpus)]
    moved = (held != grown).sum()
    assert moved <= 1  # the one that alone kept a small split from being empty


def test_one_file_is_cut_at_a_line(tmp_path):
    file = tmp_path / "book.txt"
    lines = [f"line {i} of the book\r\n" for i in range(100)]
    file.write_bytes("".join(lines).encode())
    train, validation = (open_source(file, split, holdout=0.1) for split in ("train", "validation"))
    assert text(train) + text(validation) == "".join(lines)
    assert text(validation).count("\n") in (10, 11)
    assert text(train).endswith("\n")


def test_one_line_cannot_be_cut(tmp_path):
    (tmp_path / "line.txt").write_text("a single line\n")
    with pytest.raises(UserError, match="single line"):
        list(open_source(tmp_path / "line.txt"))


def test_json_lines(tmp_path):
    records = [{"text": f"text {i} é\n"} for i in range(50)]
    file = write_jsonl(tmp_path / "a.jsonl", records)
    file.write_text("\ufeff" + file.read_text() + "\n\n")
    train, validation = (list(open_source(file, split, holdout=0.2)) for split in ("train", "validation"))
    documents = sorted(train + validation, key=lambda d: int(d.name.split(":")[1]))
    assert documents == [Document(f"a.jsonl:{i + 1}", r["text"]) for i, r in enumerate(records)]


def test_validation_files_are_never_trained_on(folder):
    train = open_source(folder, validation=folder / "part0")
    validation = open_source(folder, "validation", validation=folder / "part0")
    assert not any(name.startswith("part0") for name in names(train))
    assert len(names(train)) + len(names(validation)) == 40
    with pytest.raises(UserError, match="no training document is left"):
        open_source(folder, validation=folder)


def test_links_are_followed_and_what_is_left_out_is_told(folder, tmp_path):
    before = names(open_source(folder, validation=folder / "part0")) + sorted(f"part0/{i}.txt" for i in range(0, 40, 3))
    other = tmp_path / "elsewhere" / "deep"
    other.mkdir(parents=True)
    (other / "a.txt").write_text("linked\n")
    (folder / "linked").symlink_to(other.parent, target_is_directory=True)
    (folder / "one.txt").symlink_to(other / "a.txt")
    (folder / "again").symlink_to(folder / "part1", target_is_directory=True)
    for loop in (folder / "loop", other / "loop"):
        loop.symlink_to(folder.parent, target_is_directory=True)
    (folder / "gone.txt").symlink_to("nowhere.txt")
    source = open_source(folder)
    everything = sorted(names(source) + names(open_source(folder, "validation")))
    assert everything == sorted([*before, "one.txt"])
    kept_out = (
        "1 not named *.txt (1 *.md), 1 hidden, 2 link(s) to what is read already, 1 link(s) to nothing (gone.txt)"
    )
    assert source.notes == (f"{folder}: 41 file(s) read; left out: {kept_out}",)
    with pytest.raises(UserError, match=r"gone\.txt is a link to nowhere\.txt, which is not there"):
        open_source(folder / "gone.txt")
    assert "gone.txt is left out: a link to nothing" in open_source(str(folder / "*.txt")).notes[0]


def test_lists_and_globs(folder):
    parts = [folder / "part0", folder / "part1"]
    several = open_source(parts)
    assert several == open_source(",".join(map(str, parts))) == open_source(str(folder / "part[01]"))
    once = open_source([*parts, folder / "part0" / "0.txt"])
    assert sorted(text(once)) == sorted(text(several))


def test_fingerprint_follows_the_files(folder):
    before = open_source(folder).fingerprint
    assert open_source(folder).fingerprint == before != open_source(folder, "validation").fingerprint
    (folder / "part0" / "0.txt").write_text("changed, and longer\n")
    assert open_source(folder).fingerprint != before


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"bad\.txt is empty"),
        (b"ab\ncd\0\n", r"bad\.txt is binary \(a NUL at byte 5\)"),
        (b"ok\nab\xff\n", r"bad\.txt is not UTF-8 at byte 5"),
    ],
)
def test_bad_text_files(tmp_path, content, message):
    (tmp_path / "bad.txt").write_bytes(content)
    with pytest.raises(UserError, match=message):
        list(open_source(tmp_path / "bad.txt"))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"text": "a"', "line 3 is not JSON"),
        ('["a"]', "line 3 is not a JSON object but list"),
        ('{"text": 1}', "line 3: field 'text' is not text but int"),
        (r'{"text": "a\ud800"}', "line 3 holds half a surrogate pair"),
        ('{"text": "\udcff"}', "is not UTF-8 at byte 44"),
        ("   ", None),
    ],
)
def test_bad_json_lines(tmp_path, line, message):
    file = tmp_path / "a.jsonl"
    good = '{"text": "good"}\n'
    file.write_text(good * 2 + line + "\n", errors="surrogateescape")
    other = tmp_path / "b.jsonl"
    other.write_text(good * 9)
    if message is None:
        assert len(list(open_source(file, validation=other))) == 2
    else:
        with pytest.raises(UserError, match=message):
            list(open_source(file, validation=other))


def test_missing_things_are_named(folder, tmp_path):
    with pytest.raises(UserError, match="no file or folder 'nowhere'"):
        open_source("nowhere")
    with pytest.raises(UserError, match=r"no file named \*\.rst; it holds \*\.md, \*\.txt"):
        open_source(folder, pattern="*.rst")
    with pytest.raises(UserError, match="unknown split 'valid'; did you mean 'validation'"):
        open_source(folder, "valid")
    with pytest.raises(UserError, match="holdout is 2"):
        open_source(folder, holdout=2)
    (tmp_path / "blank.jsonl").write_text("\n\n")
    with pytest.raises(UserError, match="holds no document"):
        list(open_source(tmp_path / "blank.jsonl"))


def jsonl_bytes(texts):
    return "".join(json.dumps({"content": t}) + "\n" for t in texts).encode()


TEXTS = ["one", "two\nlines", "naïve ☃", "four"] * 500


def compressors():
    zstandard = pytest.importorskip("zstandard", reason="needs the extra `data`")
    half = lambda data: data[: len(data) // 2]  # noqa: E731
    return {
        "gz": gzip.compress,
        "zst": zstandard.ZstdCompressor().compress,
        "zst in frames": lambda d: zstandard.compress(half(d)) + zstandard.compress(d[len(half(d)) :]),
    }


@pytest.mark.parametrize("kind", ["gz", "zst", "zst in frames"])
def test_compressed_files_read_as_plain_ones(tmp_path, kind):
    data = jsonl_bytes(TEXTS)
    plain, packed = tmp_path / "plain.jsonl", tmp_path / f"packed.jsonl.{kind.split()[0]}"
    plain.write_bytes(data)
    packed.write_bytes(compressors()[kind](data))
    for split in ("train", "validation"):
        ours, theirs = (open_source(p, split, field="content", holdout=0.3) for p in (packed, plain))
        assert {d.text for d in ours} | {d.text for d in theirs} == set(TEXTS)
    both = [d.text for split in ("train", "validation") for d in open_source(packed, split, field="content")]
    assert sorted(both) == sorted(TEXTS)
    book = tmp_path / f"book.txt.{kind.split()[0]}"
    book.write_bytes(compressors()[kind](b"a line\n" * 100))
    assert text(open_source(book)) + text(open_source(book, "validation")) == "a line\n" * 100


@pytest.mark.parametrize("kind", ["gz", "zst"])
@pytest.mark.parametrize("keep", [0.4, 0.999])
def test_a_cut_compressed_file_is_an_error_and_never_a_shorter_corpus(tmp_path, kind, keep):
    data = compressors()[kind](jsonl_bytes([f"{i * i} squared" for i in range(5000)]))
    cut = tmp_path / f"cut.jsonl.{kind}"
    cut.write_bytes(data[: int(len(data) * keep)])
    with pytest.raises(UserError, match=rf"cut\.jsonl\.{kind} is truncated or damaged \(.*\); compress it again"):
        list(open_source(cut, field="content"))
    cut.write_bytes(b"no such format" * 10)
    with pytest.raises(UserError, match=r"is truncated or damaged"):
        list(open_source(cut, field="content"))


def test_parquet(tmp_path):
    arrow = pytest.importorskip("pyarrow", reason="needs the extra `data`")
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "shard.parquet"
    parquet.write_table(arrow.table({"content": TEXTS, "n": range(len(TEXTS))}), path, row_group_size=300)
    train, validation = (open_source(path, split, field="content", holdout=0.1) for split in ("train", "validation"))
    assert sorted(d.text for s in (train, validation) for d in s) == sorted(TEXTS)
    assert not set(names(train)) & set(names(validation)) and names(train)[-1] == f"shard.parquet:{len(TEXTS)}"
    with pytest.raises(UserError, match=r"shard\.parquet has no column 'contents'; did you mean 'content'\?"):
        list(open_source(path, field="contents"))
    with pytest.raises(UserError, match=r"shard\.parquet row \d+: field 'n' is not text but int"):
        list(open_source(path, field="n"))
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(UserError, match=r"shard\.parquet is no whole Parquet file"):
        list(open_source(path, field="content"))


def test_a_missing_package_is_named(tmp_path, monkeypatch):
    path = tmp_path / "a.txt.zst"
    path.write_bytes(b"\x28\xb5\x2f\xfdanything")
    monkeypatch.setitem(sys.modules, "zstandard", None)
    with pytest.raises(UserError, match=r"a\.txt\.zst needs the package zstandard: pip install"):
        list(open_source(path))
