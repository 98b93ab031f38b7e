"""`python -m scaling.fit --report`: one page of HTML."""

import base64
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from scaling import fit
from scaling.laws import EPOCH
from scaling.report import html

VOID = {"meta", "img", "br"}


class Page(HTMLParser):
    """Checks that tags are closed in order, and keeps what matters."""

    def __init__(self, text):
        super().__init__()
        self.open, self.images, self.titles, self.links = [], [], [], []
        self.words = ""
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        if tag == "img":
            self.images.append(attrs["src"])
        self.links += [v for k, v in attrs.items() if k in ("src", "href") and not v.startswith("data:")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "h2":
            self.titles.append(data)
        self.words += data


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    rng = np.random.default_rng(0)
    lines = ["params,tokens,loss,budget,name"]
    for C in (1e19, 1e20, 1e21, 1e22):
        for n in np.geomspace(2e8, 8e8, 7) * (C / 1e19) ** 0.5:
            d = C / (6 * n)
            lines.append(f"{n},{d},{EPOCH.predict(n, d) * np.exp(0.002 * rng.standard_normal())},{C},<b>&")
    table = folder / "a<b.csv"
    table.write_text("\n".join(lines))
    out = folder / "report.html"
    fit.main(["fit", f"--runs={table}", "--approach=2", "--bootstrap=20", "--starts=16", "--out=", f"--report={out}"])
    return out.read_text()


def test_a_page_has_everything_the_runs_allow_and_says_what_they_do_not(page):
    found = Page(page)
    assert found.titles[:6] == [
        "How to spend compute",
        "Doubts",
        "Approach 3: chinchilla",
        "The largest budget held out",
        "Approach 2: parabola",
        "Approach 2: akima",
    ]
    assert found.titles[-1] == "The runs"
    assert "no approach 1, envelope: no run has two points" in found.words
    assert "2, parabola, less its bias" in found.words
    assert "starts came within 0.1 % of it" in found.words and "Correlations of the constants" in found.words


def test_a_page_needs_nothing_else_and_nothing_in_it_is_markup(page):
    found = Page(page)
    assert not found.links and "<script" not in page and "url(" not in page
    assert len(found.images) >= 7
    for image in found.images:
        assert base64.b64decode(image.removeprefix("data:image/png;base64,")).startswith(b"\x89PNG")
    assert "Scaling laws of a&lt;b.csv" in page and "a<b" not in re.sub(r"<style>.*</style>", "", page, flags=re.S)
    assert "nan" not in found.words


def test_cells_are_escaped():
    made = html.table(["<a>"], [["1 < 2", ("&", '"')]])
    assert "<th>&lt;a&gt;</th>" in made and "1 &lt; 2" in made and '&amp;<span class="range">&quot;</span>' in made
    assert html.page("<t>", "&", [html.doubts(["<"]), html.code("<"), html.section("<", [])]).count("&lt;") == 5


@pytest.mark.parametrize("where", ["no/report.html", "."])
def test_a_page_that_cannot_be_written_is_refused_before_the_fit(where, tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        fit.main(["fit", "--runs=none.csv", f"--report={tmp_path}/{where}"])
    assert stopped.value.code == 2 and "in a folder that exists" in capsys.readouterr().err
