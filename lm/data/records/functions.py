"""Functions of Python, each with what its documentation says."""

import ast
import textwrap
import warnings
from collections.abc import Iterator
from typing import Any

from lm.core.component import component
from lm.data.records.pairs import Pairs
from lm.data.records.records import SourceRecord
from lm.text.format import TextFormat


@component
class Functions(Pairs):
    """Pairs made of documents of Python code: of each function that has a docstring its first paragraph, and the
    function without it, as in CodeSearchNet (Husain et al. 2019, arXiv 1909.09436). What is no Python has none.

    The templates have the fields {docstring}, {code} and {name}. Channels as of `Pairs`."""

    inputs: str = "{docstring}"  # what is read: a text with any of {docstring}, {code} and {name}
    targets: str = "{code}"  # what is written, likewise

    def fields(self, text: str) -> tuple[str, ...]:
        return ()

    def items(self, document: Any, text: TextFormat) -> Iterator[Any]:
        for line, values in functions_in(document.text):
            where = f"{document.name}:{line}"
            yield from super().items(SourceRecord(where, where, values), text)


def functions_in(source: str) -> Iterator[tuple[int, dict[str, str]]]:
    """The line of each function with a docstring and a body beside it, and its fields."""
    try:
        with warnings.catch_warnings(action="ignore"):  # of escapes in the code's strings
            tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError):
        return
    lines = source.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    for node in ast.walk(tree):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or len(node.body) < 2:
            continue
        said, first = ast.get_docstring(node), node.body[0]
        # on lines of its own: what else stands there would be cut off with it
        if said and node.lineno < first.lineno and node.body[1].lineno > (first.end_lineno or first.lineno):
            code = lines[node.lineno - 1 : first.lineno - 1] + lines[first.end_lineno : node.end_lineno]
            paragraph = said.split("\n\n", 1)[0]
            yield (
                node.lineno,
                {
                    "docstring": paragraph,
                    "code": textwrap.dedent("\n".join(code)) + "\n",
                    "name": node.name,
                },
            )
