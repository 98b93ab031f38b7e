"""Pairs: from files to rows and examples, in which none sees another."""

import json
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ml_collections.config_dict import ConfigDict

from lm.core.component import to_dict
from lm.core.errors import UserError
from lm.data.batches import Batches
from lm.data.eval_batches import EvalBatches
from lm.data.open import open_data
from lm.data.record_rows import RecordRows, packed
from lm.data.records.documents import Documents
from lm.data.records.pairs import Pairs
from lm.data.sources import open_source
from lm.data.tokenize import build_cache
from lm.objectives.causal import NextToken
from lm.objectives.objective import check_channels
from lm.objectives.seq2seq import Seq2Seq
from lm.text.format import TextFormat
from lm.text.tokenizers import ByteTokenizer
from lm.train.config import as_config, check
from lm.train.setup import assemble
from lm.zoo.registry import knobs
from tests.train import tiny

BYTES = ByteTokenizer()
ENCODER = TextFormat.of(BYTES, None, reads=True)
DECODER = TextFormat.of(BYTES, None, reads=False)
EOS, START = BYTES.eos_id, BYTES.pad_id


def cached(folder, pairs, text=ENCODER, records=Pairs(), shard=1 << 20):
    file = folder / "pairs.jsonl"
    folder.mkdir(exist_ok=True)
    file.write_text("".join(json.dumps({"inputs": a, "targets": b}) + "\n" for a, b in pairs))
    source = open_source(file, "validation", validation=file, fields=records.fields("text"))
    return build_cache(source, BYTES, folder / "cache", records=records, text=text, shard=shard, workers=1)


def test_a_pair_as_an_encoder_decoder_and_as_a_decoder_read_it(tmp_path):
    records = Pairs("say: {inputs}", "{targets}!")
    file = tmp_path / "pairs.jsonl"
    file.write_text(json.dumps({"inputs": "ab", "targets": "c"}) + "\n")
    source = open_source(file, "validation", validation=file, fields=records.fields("text"))
    ids = [BYTES.encode(text).tolist() for text in ("say: ab", "c!")]
    for text, parts in (
        (ENCODER, ([*ids[0], EOS], [START], [*ids[1], EOS])),
        (DECODER, (ids[0], [], [*ids[1], EOS])),
        (DECODER._replace(before=(9,)), ([9, *ids[0]], [], [*ids[1], EOS])),
        (ENCODER._replace(after=(7, 8), start=5), ([*ids[0], 7, 8], [5], [*ids[1], EOS])),
    ):
        cache = build_cache(source, BYTES, tmp_path / "cache", before=text.before, records=records, text=text)
        assert cache.read(0, cache.size).tolist() == [*parts[0], *parts[1], *parts[2]]
        sizes = [len(part) for part in parts]
        assert cache.read_channel("part", 0, cache.size).tolist() == np.repeat([0, 1, 1], sizes).tolist()
        assert cache.read_channel("target", 0, cache.size).tolist() == np.repeat([0, 0, 1], sizes).tolist()


FILES = {
    "a.jsonl": '{"1": "ab", "2": "c"}\n{"1": "d", "2": 3.5}\n',
    "a.json": '[{"1": "ab", "2": "c"}, {"1": "d", "2": 3.5}]',
    "a.csv": "0,1,2\nx,ab,c\ny,d,3.5\n",
    "a.tsv": "1\t2\nab\tc\nd\t3.5\n",
    "b.tsv": "ab\tc\nd\t3.5\n",  # without a header
    "a.parquet": None,
}


@pytest.mark.parametrize("name", FILES)
def test_every_format_gives_the_same_pairs(tmp_path, name):
    file = tmp_path / name
    if name == "a.parquet":
        arrow, parquet = (pytest.importorskip(name) for name in ("pyarrow", "pyarrow.parquet"))
        parquet.write_table(arrow.table({"1": ["ab", "d"], "2": ["c", "3.5"]}), file)
    else:
        file.write_text(FILES[name])
    records = Pairs("{1}", "{2}")
    source = open_source(file, "validation", validation=file, fields=records.fields("text"))
    assert [(r.values["1"], str(r.values["2"])) for r in source] == [("ab", "c"), ("d", "3.5")]
    cache = build_cache(source, BYTES, tmp_path / "cache", records=records, text=DECODER)
    assert BYTES.decode(cache.read(0, cache.size)) == "abcd3.5"


texts = st.text("abc", min_size=1, max_size=9)
pairs = st.lists(st.tuples(texts, texts), min_size=1, max_size=12)


@settings(max_examples=30)
@given(pairs, st.integers(12, 30), st.integers(11, 16), st.booleans())
def test_each_pair_is_whole_in_one_row_and_sees_no_other(tmp_path_factory, given, inputs, targets, one):
    """From the cache to the example: what each segment reads and writes are the pairs, each once."""
    cache = cached(tmp_path_factory.mktemp("pairs"), given)
    objective = Seq2Seq(inputs, targets)
    rows = packed(cache, inputs + targets, "one" if one else "best-fit", sides=objective.needs().sides)
    found = []
    for i in range(len(rows)):
        made = objective.examples()(rows[i], np.random.default_rng(0))
        assert {name: len(values) for name, values in made.items()} == {
            **{f"encoder/{name}": inputs for name in ("tokens", "segments", "positions")},
            **dict.fromkeys(("tokens", "targets", "weights", "segments", "positions", "bytes"), targets),
        }
        assert made["weights"].sum() == (made["segments"] > 0).sum(), "all that a decoder reads predicts"
        for segment in range(1, made["segments"].max() + 1):
            read, written = made["encoder/segments"] == segment, made["segments"] == segment
            assert made["encoder/positions"][read].tolist() == list(range(read.sum()))
            assert made["positions"][written].tolist() == list(range(written.sum()))
            predicted = made["targets"][written]
            assert made["tokens"][written].tolist() == [START, *predicted[:-1]]
            assert made["encoder/tokens"][read][-1] == predicted[-1] == EOS
            found.append((BYTES.decode(made["encoder/tokens"][read]), BYTES.decode(predicted)))
            assert made["bytes"][written].sum() == len(found[-1][1])
        assert not one or made["segments"].max() == 1
    assert sorted(found) == sorted(given)


@settings(max_examples=20)
@given(pairs)
def test_a_decoder_predicts_targets_only(tmp_path_factory, given):
    cache = cached(tmp_path_factory.mktemp("pairs"), given, DECODER)
    rows = packed(cache, 24, "best-fit")
    found = []
    for i in range(len(rows)):
        made = NextToken(targets_only=True).examples()(rows[i], np.random.default_rng(0))
        every = NextToken().examples()(rows[i], np.random.default_rng(0))
        assert (every["weights"] >= made["weights"]).all()
        for segment in range(1, made["segments"].max() + 1):
            asked = (made["segments"] == segment) & (made["weights"] > 0)
            found.append(BYTES.decode(made["targets"][asked]))
            assert made["targets"][asked][-1] == EOS
    assert sorted(found) == sorted(target for _, target in given)


def test_workers_and_shards_change_nothing(tmp_path):
    given = [("ab" * (i % 5 + 1), "cd" * (i % 3 + 1)) for i in range(40)]
    whole, parts = cached(tmp_path / "a", given), cached(tmp_path / "b", given, shard=50)
    assert len(parts.shards) > 5
    batches = [
        Batches(((cache, 1.0),), 40, 3, 7, Seq2Seq(24, 16).examples(), packing="best-fit", sides=(24, 16))
        for cache in (whole, parts)
    ]
    for k in range(4):
        first, second = (b.batch(k) for b in batches)
        assert all((first[name] == second[name]).all() for name in first)
    assert batches[0].fingerprint != Batches(((whole, 1.0),), 40, 3, 7, packing="best-fit", long="cut").fingerprint
    sent = pickle.loads(pickle.dumps(batches[0]))  # to a worker
    assert all((sent.batch(2)[name] == values).all() for name, values in batches[0].batch(2).items())


LONG = [("a" * 3, "b" * 3), ("a" * 30, "b" * 3), ("a" * 3, "b" * 30)]


def test_pairs_that_do_not_fit(tmp_path):
    cache = cached(tmp_path, LONG)
    with pytest.raises(
        UserError, match=r"2 of 3 records do not fit .* record 2; .*31 tokens of inputs and 31 of targets"
    ):
        len(RecordRows(cache, 20, sides=(10, 10)))
    dropped = RecordRows(cache, 20, long="drop", sides=(10, 10))
    assert len(dropped) == 1 and list(dropped.left_out.values()) == [2]
    cut = RecordRows(cache, 20, True, "cut", sides=(10, 10))
    assert len(cut) == 3 and list(cut.left_out.values()) == [2]
    made = [Seq2Seq(10, 10).examples()(cut[i], np.random.default_rng(0)) for i in range(3)]
    assert made[1]["encoder/tokens"].tolist() == [*BYTES.encode("a" * 9), EOS] and made[1]["weights"].sum() == 4
    assert made[2]["targets"].tolist() == BYTES.encode("b" * 10).tolist(), "a target that is cut has no end"
    alone = cached(tmp_path / "b", LONG, DECODER)
    kept = packed(alone, 10, "best-fit", "cut")
    assert list(kept.left_out.values()) == [1, 1], "of the second pair no target would be left"
    with pytest.raises(UserError, match=r"the longest has 34 tokens, a row 11: raise config\.data\.length"):
        len(packed(alone, 10, "one"))


def test_pairs_are_held_out_whole(tmp_path):
    cache = cached(tmp_path, [("ab", "c")] * 7, DECODER)
    for packing in ("one", "best-fit"):
        held_out = EvalBatches((cache,), 12, 4, NextToken(targets_only=True).examples(), packing=packing)
        assert sum(batch["weights"].sum() for batch in held_out) == 7 * 2
    for packing in ("concat", "stream"):
        with pytest.raises(UserError, match=r"packing='\w+' cuts records in pieces.*best-fit"):
            Batches(((cache, 1.0),), 12, 4, 0, packing=packing)


def test_wrong_pairs(tmp_path):
    with pytest.raises(UserError, match="names no field: write it in braces"):
        Pairs(inputs="en")
    with pytest.raises(UserError, match=r"no field 'en' in any record.*'inputs'"):
        cached(tmp_path, [("a", "b")], records=Pairs("{en}", "{targets}"))
    with pytest.raises(UserError, match=r"line 1: field 'inputs' is not text but list"):
        cached(tmp_path, [(["a"], "b")])
    assert cached(tmp_path, [("a", "b"), ("a", ""), ("", "b"), ("a", None)]).dropped == 3
    documents = build_cache(open_source("python-stdlib", "validation"), BYTES, tmp_path / "cache")
    with pytest.raises(UserError, match=r"single texts: set config\.data\.records\.type=Pairs"):
        packed(documents, 8, "best-fit", sides=(4, 4))


@pytest.mark.parametrize("encoder", [True, False])
def test_a_run_knows_the_shapes_of_its_batches_without_data(tmp_path, encoder):
    config = tiny.config(tmp_path)
    file = tmp_path / "pairs.jsonl"
    file.write_text("".join(json.dumps({"inputs": f"a{i}", "targets": f"b{i}"}) + "\n" for i in range(60)))
    objective = Seq2Seq(20, 12) if encoder else NextToken(targets_only=True)
    with config.unlocked():
        if encoder:
            config.model = knobs("t5", layers=1, d_model=8, heads=2, head_dim=4, d_ff=8, vocab=384)
        config.objective, config.data.records = ConfigDict(to_dict(objective)), as_config(Pairs())
    config.data.update(source=str(file), length=32 if encoder else 16, packing="best-fit", holdout=0.1)
    check(config)
    parts = assemble(config)
    abstract = {name: (x.shape, x.dtype) for name, x in parts.abstract_batch.items()}
    assert {name: (x.shape, x.dtype) for name, x in parts.batches.batch(0).items()} == abstract
    assert {name: (x.shape, x.dtype) for name, x in parts.held_out.batch(0).items()} == abstract
    config.data.records = as_config(Documents())
    config.data.field = "inputs"
    with pytest.raises(UserError, match=r"reads the channel '\w+' .* set config\.data\.records\.type=Pairs"):
        assemble(config).batches  # noqa: B018


def test_sources_of_a_mixture_have_records_of_their_own(tmp_path):
    first, second = tmp_path / "a.jsonl", tmp_path / "b.tsv"
    first.write_text("".join(json.dumps({"inputs": f"a{i}", "targets": f"b{i}"}) + "\n" for i in range(30)))
    second.write_text("".join(f"c{i}\td{i}\n" for i in range(30)))
    other = {"type": "Pairs", "inputs": "say {1}: ", "targets": "{2}"}
    knobs = dict(holdout=0.1, cache=tmp_path / "cache", records=Pairs())
    data = open_data("", mixture=((first, 1), (second, 2, other)), **knobs)
    starts = [BYTES.decode(cache.read(0, int(cache.offsets[1])))[:4] for cache, _ in data.training]
    assert starts[0][0] == "a" and starts[1] == "say "
    objective = NextToken(targets_only=True)
    batches = Batches(data.training, 20, 6, 0, objective.examples(), packing="one")
    said = [
        BYTES.decode(row[weights > 0])
        for row, weights in zip(*(batches.batch(0)[n] for n in ("targets", "weights")), strict=True)
    ]
    assert {text[0] for text in said} == {"b", "d"}
    mixed = open_data("", mixture=((first, 1), (second, 2, {"type": "Documents"})), **{**knobs, "field": "1"})
    with pytest.raises(
        UserError, match=r"channel 'target' .*b\.tsv does not have: set config\.data\.records\.type=Pairs"
    ):
        for part in mixed.parts:
            check_channels(objective, part.name, part.train)
    with pytest.raises(
        UserError, match=r"config\.data\.mixture: records of type 'Pear' are none of Answers, Chats, .*Pairs"
    ):
        open_data("", mixture=((first, 1), (second, 2, {"type": "Pear"})), **knobs)
