"""One page of HTML that needs nothing else: text, tables, and pictures inside it, readable in light and in dark."""

import base64
import io
from collections.abc import Iterable, Sequence
from html import escape

from matplotlib.figure import Figure

STYLE = """
:root { color-scheme: light dark; --ink: #22262b; --pale: #667079; --paper: #ffffff; --line: #dfe3e7; --mark: #b03348; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e3e6ea; --pale: #9aa4ae; --paper: #15181c; --line: #343a41; --mark: #ff8095; } }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper);
  max-width: 72rem; margin: 0 auto; padding: 2rem 1rem 4rem; }
h1 { font-size: 1.6rem; margin: 0 0 .3rem; } h2 { font-size: 1.25rem; margin: 2.5rem 0 .5rem; }
h2 { border-bottom: 1px solid var(--line); padding-bottom: .2rem; } h3 { font-size: 1rem; margin: 1.5rem 0 .3rem; }
p, ul { max-width: 50rem; } p.pale, figcaption, .range { color: var(--pale); } code, pre { font-size: .85rem; }
pre { overflow-x: auto; padding: .6rem; border: 1px solid var(--line); border-radius: 6px; }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .9rem; }
th, td { padding: .25rem .8rem .25rem 0; text-align: left; vertical-align: top; border-bottom: 1px solid var(--line); }
th { font-weight: 600; } td .range { display: block; font-size: .8rem; white-space: nowrap; }
figure { margin: 1rem 0; } figcaption { font-size: .9rem; max-width: 50rem; }
img { max-width: 100%; height: auto; background: #fff; border-radius: 6px; } li.doubt { color: var(--mark); }
details summary { cursor: pointer; color: var(--pale); }
"""

Cell = str | tuple[str, str]  # text, or a value and its range


def page(title: str, about: str, parts: Iterable[str]) -> str:
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        f'<h1>{escape(title)}</h1>\n<p class="pale">{escape(about)}</p>\n' + "\n".join(parts) + "\n</body>\n</html>\n"
    )


def section(title: str, parts: Iterable[str]) -> str:
    return f"<section>\n<h2>{escape(title)}</h2>\n" + "\n".join(parts) + "\n</section>"


def heading(text: str) -> str:
    return f"<h3>{escape(text)}</h3>"


def paragraph(text: str) -> str:
    return f"<p>{escape(text)}</p>"


def code(text: str) -> str:
    return f"<pre>{escape(text)}</pre>"


def doubts(lines: Iterable[str]) -> str:
    return "<ul>" + "".join(f'<li class="doubt">{escape(line)}</li>' for line in lines) + "</ul>"


def table(header: Sequence[str], rows: Iterable[Sequence[Cell]]) -> str:
    head = "".join(f"<th>{escape(cell)}</th>" for cell in header)
    body = "\n".join("<tr>" + "".join(f"<td>{_cell(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="wide"><table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table></div>'


def folded(summary: str, part: str) -> str:
    return f"<details><summary>{escape(summary)}</summary>\n{part}\n</details>"


def picture(figure: Figure, caption: str) -> str:
    """The figure as PNG inside the page."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=100)
    data = base64.b64encode(file.getvalue()).decode("ascii")
    alt = figure.get_suptitle()
    return (
        f'<figure>\n<img alt="{escape(alt)}" src="data:image/png;base64,{data}">\n'
        f"<figcaption>{escape(caption)}</figcaption>\n</figure>"
    )


def _cell(cell: Cell) -> str:
    if isinstance(cell, str):
        return escape(cell)
    value, between = cell
    return f'{escape(value)}<span class="range">{escape(between)}</span>'
