import json
import os
import pickle
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lm.core.errors import UserError
from lm.data.open import open_data
from lm.data.sources import Document, open_source
from lm.data.tokenize import build_cache
from lm.text.tokenizers import ByteTokenizer

BYTES = ByteTokenizer()


@dataclass
class Texts:
    texts: list
    fail_at: int | None = None
    read: int = field(default=0, compare=False)
    done = 0.0

    @property
    def fingerprint(self):
        return repr(self.texts)

    def __len__(self):
        return len(self.texts)

    def __iter__(self):
        for i, text in enumerate(self.texts):
            if i == self.fail_at:
                raise KeyboardInterrupt
            self.read += 1
            yield Document(str(i), text)


@given(st.lists(st.text(max_size=20)).filter(any))
def test_holds_every_document_with_an_end(tmp_path_factory, texts):
    cache = build_cache(Texts(texts), BYTES, tmp_path_factory.getbasetemp() / "caches")
    kept = [text for text in texts if text]
    found = [cache.read(a, b) for a, b in zip(cache.offsets, cache.offsets[1:], strict=False)]
    assert cache.offsets[-1] == cache.size
    assert [BYTES.decode(ids) for ids in found] == kept
    assert all(ids[-1] == BYTES.eos_id for ids in found)
    assert (cache.documents, cache.dropped) == (len(kept), len(texts) - len(kept))
    assert (
        cache.bytes == sum(len(text.encode()) for text in kept) == BYTES.token_bytes()[cache.read(0, cache.size)].sum()
    )


def test_is_reused_until_source_or_tokenizer_change(tmp_path):
    source = Texts(["ab", "cd"])
    first = build_cache(source, BYTES, tmp_path)
    again = build_cache(source, BYTES, tmp_path)
    assert source.read == 2  # the second time nothing was read
    assert first.digest == again.digest and first.directory == again.directory
    changed = build_cache(Texts(["ab", "ce"]), BYTES, tmp_path)
    assert changed.digest != first.digest
    assert build_cache(source, ByteTokenizer(0), tmp_path).directory != first.directory


def tree(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_shards_and_processes_do_not_change_the_tokens(tmp_path):
    source = Texts([f"document {i} " * (i % 7) for i in range(40)])
    one = build_cache(source, BYTES, tmp_path / "one", shard=200)
    four = build_cache(source, BYTES, tmp_path / "four", workers=2, shard=200)
    whole = build_cache(source, BYTES, tmp_path / "whole")
    assert len(one.shards) > 5 and len(whole.shards) == 1
    assert tree(one.directory) == tree(four.directory) and one.digest == four.digest
    for cache in (one, whole):
        assert cache.dropped == 6 and cache.documents == 34
    np.testing.assert_array_equal(one.read(0, one.size), whole.read(0, whole.size))
    np.testing.assert_array_equal(one.offsets, whole.offsets)
    for a, b in ((0, 0), (3, 450), (one.size - 1, one.size)):
        np.testing.assert_array_equal(one.read(a, b), whole.read(a, b))
    with pytest.raises(IndexError):
        one.read(5, one.size + 1)


def test_an_interrupted_build_goes_on(tmp_path):
    class Counting(ByteTokenizer):
        encoded = 0

        def encode(self, text):
            Counting.encoded += 1
            return super().encode(text)

    texts = ["ab" * 20, "cd" * 20, "ef" * 20]
    with pytest.raises(KeyboardInterrupt):
        build_cache(Texts(texts, fail_at=2), Counting(), tmp_path, workers=1, shard=30)
    done = Counting.encoded
    assert done == 2
    (unfinished,) = tmp_path.iterdir()
    (unfinished / "00001.bin").write_bytes(b"half a sh")  # as a kill leaves it
    cache = build_cache(Texts(texts), Counting(), tmp_path, workers=1, shard=30)
    assert Counting.encoded == 4
    assert cache.documents == 3 and list(tmp_path.iterdir()) == [cache.directory]
    assert [BYTES.decode(cache.read(a, b)) for a, b in zip(cache.offsets, cache.offsets[1:], strict=False)] == texts


def test_a_build_that_is_killed_goes_on(tmp_path):
    """SIGKILL to the process that builds with two workers: none outlives it, and the next build ends it."""
    lines = (json.dumps({"text": f"line {i} " * 40}) for i in range(3000))
    (tmp_path / "corpus.jsonl").write_text("\n".join(lines))
    script = tmp_path / "build.py"
    script.write_text(
        "from pathlib import Path\n"
        "from lm.data.tokenize import build_cache\n"
        "from lm.data.sources import open_source\n"
        "from lm.text.tokenizers import ByteTokenizer\n"
        "if __name__ == '__main__':\n"
        "    here = Path(__file__).parent\n"
        "    build_cache(open_source(here / 'corpus.jsonl'), ByteTokenizer(), here / 'cache', workers=2, shard=4000)\n"
    )
    root = Path(__file__).resolve().parents[2]
    process = subprocess.Popen([sys.executable, script], env=os.environ | {"PYTHONPATH": str(root)})
    deadline = time.monotonic() + 100
    while len(list(tmp_path.glob("cache/.*/*.json"))) < 20:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.002)
    process.kill()
    process.wait()
    (unfinished,) = (tmp_path / "cache").iterdir()
    assert unfinished.name.startswith(".")
    time.sleep(0.5)
    before = {p.name for p in unfinished.iterdir()}
    time.sleep(0.5)
    assert {p.name for p in unfinished.iterdir()} == before, "a worker outlives the killed process"
    source = open_source(tmp_path / "corpus.jsonl")
    cache = build_cache(source, BYTES, tmp_path / "cache", shard=4000)
    fresh = build_cache(source, BYTES, tmp_path / "fresh")
    assert list((tmp_path / "cache").iterdir()) == [cache.directory]
    np.testing.assert_array_equal(cache.read(0, cache.size), fresh.read(0, fresh.size))
    assert cache.documents == fresh.documents == len(source)


def test_one_process_writes_and_the_others_wait(tmp_path):
    source = Texts([f"text {i}" * 9 for i in range(200)])
    with ThreadPoolExecutor(4) as pool:
        caches = list(pool.map(lambda _: build_cache(source, BYTES, tmp_path, workers=1, shard=100), range(4)))
    assert {c.directory for c in caches} == set(tmp_path.iterdir())
    assert source.read == 200


def test_width_follows_the_vocabulary(tmp_path):
    assert build_cache(Texts(["ab"]), BYTES, tmp_path).shards[0].dtype == np.uint16
    assert build_cache(Texts(["ab"]), ByteTokenizer(1 << 16), tmp_path).shards[0].dtype == np.uint32


def test_pickles_as_a_path(tmp_path):
    cache = build_cache(Texts(["ab" * 10_000]), BYTES, tmp_path)
    data = pickle.dumps(cache)
    assert len(data) < 1000
    again = pickle.loads(data)
    np.testing.assert_array_equal(again.read(0, again.size), cache.read(0, cache.size))


@pytest.mark.parametrize("file", ["00000.bin", "offsets.npy", "meta.json"])
@pytest.mark.parametrize("damage", ["cut", "lost", "flipped"])
def test_damage_is_noticed(tmp_path, file, damage):
    cache = build_cache(Texts(["ab", "cd"]), BYTES, tmp_path)
    path = cache.directory / file
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-2])
    elif damage == "lost":
        path.unlink()
    else:
        content = bytearray(path.read_bytes())
        at = content.index(b'"documents"') if file == "meta.json" else len(content) - 9
        content[at] ^= 4
        path.write_bytes(content)
    with pytest.raises(UserError, match=r"is damaged .* delete the folder"):
        build_cache(Texts(["ab", "cd"]), BYTES, tmp_path)


def test_no_text_and_no_room(tmp_path):
    with pytest.raises(UserError, match="no text"):
        build_cache(Texts(["", ""]), BYTES, tmp_path / "a")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write to cache folder"):
        build_cache(Texts(["ab"]), BYTES, tmp_path / "file")


def test_open_data(tmp_path):
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text("".join(json.dumps({"body": f"document {i}\n" * 9}) + "\n" for i in range(200)))
    data = open_data(corpus, "bpe-400", field="body", holdout=0.1, cache=tmp_path / "cache")
    assert data.parts[0].train.documents + data.validation[0].documents == 200
    assert data.tokenizer.decode(data.parts[0].train.read(0, 20)).startswith("document ")
    other = tmp_path / "other.txt"
    other.write_text("a line of another kind\n" * 99)
    mixed = open_data("", "byte", mixture=((corpus, 3, "body"), (other, 1)), holdout=0.1, cache=tmp_path / "cache")
    assert [part.weight for part in mixed.parts] == [3, 1] and mixed.tokens == sum(c.size for c, _ in mixed.training)
    for wrong in (("a.txt",), ((corpus, 1), (corpus, 2)), ((corpus, "much"),)):
        with pytest.raises(UserError, match=r"data\.mixture="):
            open_data("", "byte", mixture=wrong, cache=tmp_path / "cache")
    again = open_data(corpus, "bpe-400", field="body", holdout=0.1, cache=tmp_path / "cache")
    assert again.digest == data.digest
    assert again.tokenizer.fingerprint == data.tokenizer.fingerprint
