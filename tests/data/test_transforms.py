"""Transforms of documents: texts that trip each rule, duplicates against brute force, what a cache holds and says."""

import json
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lm.commands import clean, cli
from lm.core.component import from_dict, to_dict
from lm.core.errors import UserError
from lm.data.open import open_data
from lm.data.records.documents import Documents
from lm.data.records.pairs import Pairs
from lm.data.sources import open_source
from lm.data.transforms.duplicates import (
    ExactDuplicates,
    NearDuplicates,
    SentenceDuplicates,
    sentences_of,
    similarity,
)
from lm.data.transforms.markers import ControlToken, MarkedMatches, WorkToken
from lm.data.transforms.quality import (
    DUPLICATE_NGRAMS,
    TOP_NGRAMS,
    LineRules,
    QualityRules,
    RepetitionRules,
    duplicate_ngrams,
    repeated,
    top_ngram,
)
from lm.data.transforms.scores import InLanguages, ScoreRange
from lm.data.transforms.transform import Dropped, TextDocument, TransformedSource

rng = random.Random(0)
SYLLABLES = [f"{a}{b}" for a in "bdfgklmnprst" for b in ("ea", "oo", "i", "o", "u", "a")]
WORDS = [f"{a}{b}" for a in SYLLABLES for b in SYLLABLES]


def prose(n: int) -> str:
    """n words that no rule objects to: none is there twice, and stop words are among them."""
    return " ".join(["the", "of", *rng.sample(WORDS, n - 2)])


def outcome(transform, text: str, **values) -> str | Dropped:
    return transform.begin()(TextDocument("a.txt", text, values))


# ----------------------------------------------------------------------------------------------------
# Quality


def test_the_rules_have_the_published_thresholds():
    """Rae et al. 2021, appendix A.1.1 and table A1; Raffel et al. 2020, section 2.2."""
    rules = QualityRules()
    assert (rules.words, rules.word_length, rules.symbols) == ((50, 100_000), (3, 10), 0.1)
    assert (rules.bullets, rules.ellipses, rules.alphabetic, rules.stop_words) == (0.9, 0.3, 0.8, 2)
    again = RepetitionRules()
    shares = (again.lines, again.paragraphs, again.line_characters, again.paragraph_characters)
    assert shares == (0.3, 0.3, 0.2, 0.2)
    assert dict(TOP_NGRAMS) == {2: 0.20, 3: 0.18, 4: 0.16}
    assert dict(DUPLICATE_NGRAMS) == {5: 0.15, 6: 0.14, 7: 0.13, 8: 0.12, 9: 0.11, 10: 0.10}
    assert (LineRules().line_words, LineRules().sentences) == (5, 3)


def lines(n: int, of: str) -> str:
    return "\n".join(of.format(prose(9)) for _ in range(n))


QUALITY = [
    ("fewer than 50 words", prose(49), prose(50)),
    ("more than 100,000 words", "the of " + "abcd " * 99_999, "the of " + "abcd " * 99_998),
    ("not 3 to 10 characters long", "the of " + "abcdefghijkl " * 60, "the of " + "abcdefghij " * 60),
    ("not 3 to 10 characters long", "the of " + "ab " * 60, "the of " + "abcde " * 60),
    ("hash signs a word", prose(50) + " #" * 6, prose(50) + " #" * 5),
    ("ellipses a word", prose(50).replace(" ", "... ", 6), prose(50).replace(" ", "... ", 5)),
    ("bullets before more than 90%", lines(10, "- {}"), lines(9, "- {}") + "\n" + prose(9)),
    (
        "ellipses behind more than 30%",
        lines(4, "{} …") + "\n" + lines(6, "{}"),
        lines(3, "{} …") + "\n" + lines(7, "{}"),
    ),
    ("letters in less than 80%", prose(79) + " 1999" * 21, prose(80) + " 1999" * 20),
    ("fewer than 2 stop words", prose(60).replace("of ", "off "), prose(60)),
]


@pytest.mark.parametrize(("reason", "bad", "good"), QUALITY, ids=[reason for reason, _, _ in QUALITY])
def test_each_rule_of_quality(reason, bad, good):
    dropped = outcome(QualityRules(), bad)
    assert isinstance(dropped, Dropped) and reason in dropped.reason, dropped
    assert outcome(QualityRules(), good) == good


def test_repetition_within_a_document():
    assert repeated(["a", "b", "a", "a"]) == (0.5, 0.5)
    assert repeated(["aaaa", "b", "b"]) == (1 / 3, 1 / 6)
    assert top_ngram(["to", "be", "or", "not", "to", "be"], 2) == 8 / 13
    assert top_ngram(["to", "be", "or", "not"], 2) == 0
    assert (
        duplicate_ngrams(["a", "b", "c", "a", "b", "c", "a", "b"], 2) == 1.0
    )  # each word once, however many n-grams it is in
    assert duplicate_ngrams(["a", "b", "x", "y", "a", "b", "z", "z"], 2) == 0.5
    once = prose(60)
    assert outcome(RepetitionRules(), once) == once
    rules = RepetitionRules()
    cases = {
        "30% repeated lines": "\n".join([prose(5)] * 4 + [prose(5) for _ in range(6)]),
        "30% repeated paragraphs": "\n\n".join([f"{line}\n{prose(3)}" for line in [prose(3)] for _ in range(9)]),
        "in one 2-gram": prose(40) + " walking dogs" * 20,
        "in repeated 5-grams": f"{(ten := prose(10))} {prose(20)} {ten} {prose(24)}",
    }
    for reason, text in cases.items():
        dropped = outcome(rules, text)
        assert isinstance(dropped, Dropped), (reason, dropped)
    assert "repeated lines" in outcome(rules, cases["30% repeated lines"]).reason
    assert "2-gram" in outcome(rules, cases["in one 2-gram"]).reason
    assert "5-grams" in outcome(rules, cases["in repeated 5-grams"]).reason


@settings(max_examples=20, deadline=None)
@given(st.lists(st.sampled_from("abc"), max_size=30), st.integers(2, 5))
def test_ngrams_against_brute_force(words, n):
    grams = [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
    inside = [
        any(grams.count(grams[i]) > 1 for i in range(k - n + 1, k + 1) if 0 <= i < len(grams))
        for k in range(len(words))
    ]
    assert duplicate_ngrams(words, n) == sum(inside) / max(1, len(words))
    most = max((grams.count(g) * n for g in grams if grams.count(g) > 1), default=0)
    assert top_ngram(words, n) == most / max(1, len(words))


def test_rules_of_lines():
    good = "It was a bright cold day in April [1].\nThe clocks were striking thirteen then! Was it so?"
    assert outcome(LineRules(), good) == good.replace("[1]", "")
    noise = "Home\nPlease enable Javascript to see this page.\nYou accept our Privacy Policy with this.\nToo short.\n"
    assert outcome(LineRules(), noise + good) == good.replace("[1]", "")
    for text, reason in (
        (good + " lorem ipsum", "lorem ipsum"),
        (good + " {", "curly bracket"),
        (good.split("\n")[0], "fewer than 3 sentences"),
    ):
        assert reason in outcome(LineRules(), text).reason
    assert outcome(LineRules(bad_words=("thirteen",)), good) == Dropped(
        "documents with a word of bad_words", "thirteen"
    )
    assert isinstance(outcome(LineRules(bad_words=("thirt",)), good), str)  # whole words


def test_scores_and_languages_that_are_given():
    assert outcome(ScoreRange("quality", least=0.5), "a", quality="0.7") == "a"
    assert "quality below 0.5" in outcome(ScoreRange("quality", least=0.5), "a", quality=0.4).reason
    assert "toxicity above 0.1" in outcome(ScoreRange("toxicity", most=0.1), "a", toxicity=0.4).reason
    with pytest.raises(UserError, match=r"a.txt: field 'quality' is None, no number"):
        outcome(ScoreRange("quality", least=0.5), "a")
    assert outcome(InLanguages(("en",), "lang"), "a", lang="en") == "a"
    assert outcome(InLanguages(("en", "de"), "lang"), "a", lang="fr") == Dropped("documents not in en or de", "fr")


def test_languages_that_are_found():
    pytest.importorskip("py3langid")
    rule = InLanguages(("en",)).begin()
    english = "The committee decided that the proposal should be considered again in the spring."
    assert rule(TextDocument("a", english)) == english
    german = rule(TextDocument("b", "Der Ausschuss hat beschlossen, den Vorschlag im Frühjahr erneut zu prüfen."))
    assert german == Dropped("documents not in en", "de")
    with pytest.raises(UserError, match="'xx' is none that py3langid knows"):
        InLanguages(("xx",)).begin()


# ----------------------------------------------------------------------------------------------------
# Duplicates


def test_exact_duplicates_are_dropped_once_seen():
    apply = ExactDuplicates().begin()
    made = [apply(TextDocument(name, text)) for name, text in (("a", "x y"), ("b", "X, y"), ("c", "x y"))]
    assert made == ["x y", "X, y", Dropped("documents that were there before", "as a")]
    apply = ExactDuplicates(normalized=True).begin()
    made = [apply(TextDocument(name, text)) for name, text in (("a", "x y"), ("b", "X,  y!"), ("c", "x z"))]
    assert made == ["x y", Dropped("documents that were there before", "as a"), "x z"]
    assert ExactDuplicates().begin()(TextDocument("d", "x y")) == "x y"  # another split begins anew


def test_sentences_that_were_there_before_are_taken_out():
    apply = SentenceDuplicates().begin()
    a, b, c, d, e = ("One two. ", 'He said "no!" ', "Three?\n", "Four four. ", "\u4e94\u3002")
    made = [
        apply(TextDocument(str(i), text)) for i, text in enumerate((a + b + c + d, e + "one  TWO. " + b + c + a, a + b))
    ]
    assert made == [a + b + c + d, e + a, a + b]
    gone = apply(TextDocument("3", b + c + d))
    assert gone == Dropped("documents all of whose sentences were there before", "3 sentences")
    assert outcome(SentenceDuplicates(), a * 7) == a * 3
    assert sentences_of("x.y z. \n\n w") == ["x.y z. \n\n ", "w"] and sentences_of("x\ny") == ["x\n", "y"]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text("abcd", min_size=1, max_size=14), min_size=1, max_size=6))
def test_one_of_each_row_of_sentences_stays(documents):
    apply, there = SentenceDuplicates().begin(), set()
    for sentences in documents:
        # Only white space tells equal sentences apart, and that does not count.
        made = apply(TextDocument("a", "".join(f"{s}.{' ' * (i + 1)}" for i, s in enumerate(sentences))))
        left = [] if isinstance(made, Dropped) else [s.count(" ") - 1 for s in sentences_of(made)]
        assert left == sorted(set(left)), "in their order"
        rows = [sentences[i : i + 3] for i in range(len(sentences) - 2)]
        whole = [i for i in range(len(rows)) if {i, i + 1, i + 2} <= set(left)]
        for n, i in enumerate(whole):
            assert rows[i] not in there and not any(rows[j] == rows[i] and i >= j + 3 for j in whole[:n]), "no other"
        there |= {rows[i] for i in whole}
        gone = set(range(len(sentences))) - set(left)
        assert gone <= {k for i, row in enumerate(rows) if row in there for k in (i, i + 1, i + 2)}, "one stays"


def test_near_duplicates_against_brute_force():
    pytest.importorskip("datasketch")
    texts = []
    for _ in range(12):
        words = prose(120).split()
        texts.append(" ".join(words))
        for changed in (1, 3, 12, 40):
            other = list(words)
            for i in rng.sample(range(120), changed):
                other[i] = "changed"
            texts.append(" ".join(other))
    apply = NearDuplicates(threshold=0.7, permutations=256).begin()
    kept, wrong, clear = [], 0, 0
    for i, text in enumerate(texts):
        made = apply(TextDocument(str(i), text))
        most = max((similarity(text, other) for other in kept), default=0.0)
        if abs(most - 0.7) > 0.15:  # five standard errors of the estimate
            clear += 1
            wrong += isinstance(made, Dropped) != (most > 0.7)
        kept += [] if isinstance(made, Dropped) else [text]
    assert clear > 40 and wrong == 0


def test_without_the_package_an_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "datasketch", None)
    with pytest.raises(UserError, match=r"NearDuplicates needs the package datasketch: pip install -e '.\[clean\]'"):
        NearDuplicates().begin()


# ----------------------------------------------------------------------------------------------------
# Special tokens


def test_work_is_put_behind_a_text():
    work = WorkToken("steps", "answer")
    assert work.fields == ("steps", "answer")
    assert outcome(work, "2 * 3 + 1?", steps="6, 7", answer="7") == "2 * 3 + 1? <work> 6, 7 </work> 7"
    assert outcome(work, "2 * 3 + 1?", steps=None, answer="7") == "2 * 3 + 1?"


def test_matches_are_marked():
    cite = MarkedMatches(r"\\cite\{(.*?)\}", "[START_REF]", "[END_REF]")
    assert (
        outcome(cite, r"as in \cite{BERT} and \cite{T5}") == "as in [START_REF]BERT[END_REF] and [START_REF]T5[END_REF]"
    )
    assert outcome(MarkedMatches("C[a-z]l", "<", ">"), "a Cal b") == "a <Cal> b"
    for pattern, said in (("(", "no regular expression"), ("(a)(b)", "2 groups")):
        with pytest.raises(UserError, match=said):
            MarkedMatches(pattern, "<", ">")


def test_control_tokens_stand_before_their_share():
    control = ControlToken("toxicity", (0.2, 0.6), ("<low>", "<mid>", "<high>"))
    scores = (0.1, 0.2, 0.59, 0.6, 0.9)
    made = [outcome(control, "text", toxicity=score) for score in scores]
    assert made == ["<low>text", "<mid>text", "<mid>text", "<high>text", "<high>text"]
    some = ControlToken("toxicity", (), ("<t>",), share=0.25)
    texts = [some(TextDocument(f"{i}", "text", {"toxicity": 0})) for i in range(2000)]
    assert abs(texts.count("<t>text") / 2000 - 0.25) < 0.03
    assert texts == [some(TextDocument(f"{i}", "text", {"toxicity": 0})) for i in range(2000)]
    with pytest.raises(UserError, match="2 tokens for bounds"):
        ControlToken("toxicity", (), ("<a>", "<b>"))


# ----------------------------------------------------------------------------------------------------
# In a corpus


@pytest.fixture
def corpus(tmp_path):
    file = tmp_path / "pages.jsonl"
    texts = [prose(60), prose(20), prose(60)]
    records = [{"text": t, "steps": f"step {i}"} for i, t in enumerate([*texts, texts[0], "", prose(70)])]
    file.write_text("".join(json.dumps(record) + "\n" for record in records))
    return file


CLEAN = (QualityRules(), ExactDuplicates())


def test_a_report_says_what_was_dropped_and_why(corpus):
    source = TransformedSource(open_source(corpus, "validation", validation=corpus), CLEAN)
    names = [document.name for document in source if document.text]
    assert names == ["pages.jsonl:1", "pages.jsonl:3", "pages.jsonl:6"]
    report = source.report.as_dict()
    assert report["kept"] == 3 and report["changed"] == 0
    few = report["dropped"]["documents of fewer than 50 words"]
    assert few["documents"] == 1 and few["examples"][0]["why"] == "20 words"
    again = report["dropped"]["documents that were there before"]
    assert again["examples"][0] | {"text": ""} == {"name": "pages.jsonl:4", "why": "as pages.jsonl:1", "text": ""}
    assert "3 of 5 documents kept" in str(source.report) and "pages.jsonl:2 (20 words)" in str(source.report)
    assert list(source) and source.report.as_dict() == report  # counted anew


def test_a_cache_of_transformed_documents(corpus, tmp_path, capfd):
    options = {"validation": corpus, "cache": tmp_path / "cache"}
    train = tmp_path / "train.jsonl"
    train.write_text(corpus.read_text())
    plain = open_data(train, **options)
    cleaned = open_data(train, **options, transforms=CLEAN)
    assert plain.parts[0].train.documents == 5 and cleaned.parts[0].train.documents == 3
    folder = cleaned.parts[0].train.directory
    assert json.loads((folder / "dropped.json").read_text())["kept"] == 3
    assert "2 documents of fewer than 50 words" in capfd.readouterr().err  # of both splits
    assert open_data(train, **options).parts[0].train.directory == plain.parts[0].train.directory
    assert open_data(train, **options, transforms=CLEAN).parts[0].train.directory == folder
    other = open_data(train, **options, transforms=CLEAN[:1])
    assert other.parts[0].train.directory != folder
    with pytest.raises(UserError, match="transforms are of documents"):
        open_data(train, **options, transforms=CLEAN, records=Pairs())
    with pytest.raises(UserError, match=r"the corpus has no text: .* documents of fewer than 1000 words"):
        open_data(train, **options, transforms=(QualityRules(words=(1000, 2000)),))


def test_written_tokens_are_special_ones(corpus, tmp_path):
    markers = ("<work>", "</work>")
    options = {"validation": corpus, "cache": tmp_path / "cache", "reserved": markers}
    train = tmp_path / "train.jsonl"
    train.write_text(corpus.read_text())
    data = open_data(train, **options, transforms=(WorkToken("steps"),), records=Documents(markers=markers))
    cache, ids = data.parts[0].train, [data.tokenizer.piece_id(name) for name in markers]
    tokens = cache.read(0, cache.size)
    assert (np.isin(tokens, ids).sum(), cache.documents) == (10, 5)
    text = data.tokenizer.decode(tokens[: cache.offsets[1] - 1], special=True)
    first = json.loads(train.read_text().splitlines()[0])["text"]
    assert text == f"{first} <work> step 0 </work>"
    assert cache.read_bytes(0, cache.size).sum() == cache.bytes
    spelled = open_data(train, **options, transforms=(WorkToken("steps"),)).parts[0].train
    assert not np.isin(spelled.read(0, spelled.size), ids).any()


def clean_by_command(*argv: str) -> None:
    cli.run(clean.main, arguments=1, usage=clean.USAGE, flag_values=clean.FLAGS, argv=["clean", *argv])


def test_the_command_writes_what_is_left_and_a_report(corpus, tmp_path, capsys):
    out = tmp_path / "cleaned"
    clean_by_command(str(corpus), f"--out={out}", "--keep=steps")
    assert "3 of 5 documents kept" in capsys.readouterr().out
    written = [json.loads(line) for line in (out / "documents.jsonl").read_text().splitlines()]
    assert [(r["name"], r["steps"]) for r in written] == [(f"pages.jsonl:{i}", f"step {i - 1}") for i in (1, 3, 6)]
    assert json.loads((out / "dropped.json").read_text())["kept"] == 3
    for flags, said in (
        ((str(corpus), f"--out={out}"), "holds a cleaned corpus already"),
        ((str(corpus), f"--out={tmp_path}", "--transforms=QualtyRules"), "did you mean 'QualityRules'"),
        ((str(corpus), f"--out={tmp_path}", "--transforms=[{"), "--transforms is not JSON"),
        ((str(corpus),), "--out is missing"),
        ((f"--out={tmp_path}",), "a source is missing"),
    ):
        with pytest.raises(SystemExit):
            clean_by_command(*flags)
        assert said in capsys.readouterr().err


def test_json_round_trip():
    each = (
        *(QualityRules(), RepetitionRules(), LineRules(), ExactDuplicates(), NearDuplicates(), WorkToken("a")),
        *(ScoreRange("a"), InLanguages(("en",)), MarkedMatches("a", "b", "c"), ControlToken("a", (0.5,), ("b", "c"))),
    )
    assert from_dict(json.loads(json.dumps(to_dict(each))), "transforms") == each
