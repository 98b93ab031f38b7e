"""`python -m lm.zoo`: what it prints is true, and wrong names are answered with right ones."""

import json
import math
import re

import pytest

from lm.commands import cli
from lm.commands.zoo import FLAGS, main
from lm.core.param import count
from lm.inspect import tables as show
from lm.inspect.cost import forward_flops
from lm.zoo.registry import FAMILIES, build

FIRST = {name: next(iter(family.sizes)) for name, family in FAMILIES.items() if family.sizes}


def call(*argv: str) -> None:
    cli.run(main, arguments=3, flag_values=FLAGS, argv=["zoo", *argv], own_code=False)


def shown(capsys, monkeypatch, *argv: str, columns: int = 140) -> str:
    monkeypatch.setenv("COLUMNS", str(columns))
    call(*argv)
    return capsys.readouterr().out


def counted(text: str) -> int:
    """`attention/q 768×768 + 768` -> the number of its parameters."""
    if "=" in text or "(buffer)" in text:
        return 0
    shapes = [part.split()[-1] for part in text.split(" + ")]
    return sum(math.prod(map(int, shape.split("×"))) for shape in shapes)


@pytest.mark.parametrize("family", FIRST)
def test_a_tree_accounts_for_every_parameter(family):
    model = build({"family": family, "size": FIRST[family]})
    total, times = 0, {}
    for row in show.rows(model):
        depth = len(row.guide)
        repeats = int(row.parameters.split(" × ")[0]) if "×" in row.parameters else 1
        times = {d: n for d, n in times.items() if d < depth} | {depth: repeats}
        total += math.prod(times.values()) * sum(map(counted, row.tensors))
    assert f"{total:,}" == show.rows(model)[0].parameters == f"{count(model.spec()):,}"


@pytest.mark.parametrize("family", FIRST)
def test_flops_of_every_family_are_counted(family):
    assert show.flops_per_token(build({"family": family, "size": FIRST[family]})) > 1e6


def test_flops_are_those_of_the_longest_text_that_fits():
    short, long = (build({"family": "gpt2", "size": "small", "context": n}) for n in (64, 8192))
    assert show.flops_per_token(short) == forward_flops(short, 64) / 64
    assert show.flops_per_token(long) == forward_flops(long, 2048) / 2048
    both = build({"family": "t5", "size": "small"})
    assert show.flops_per_token(both) == forward_flops(both, 2048, 2048) / 4096


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0"),
        (7, "7"),
        (999, "999"),
        (1000, "1.00 K"),
        (7241732096, "7.24 G"),
        (50_600_000, "50.6 M"),
        (1e12, "1.00 T"),
    ],
)
def test_short_numbers(number, text):
    assert show.short(number) == text


def test_the_list_has_every_family_and_size(capsys, monkeypatch):
    for name in list(FAMILIES)[6:]:
        monkeypatch.delitem(FAMILIES, name)
    text = shown(capsys, monkeypatch)
    for name, family in FAMILIES.items():
        assert f"\n{name}  {family.paper}\n" in text
        for size in family.sizes:
            parameters = f"{count(build({'family': name, 'size': size}).spec()):,}"
            assert re.search(rf"\n  {re.escape(size)} +{parameters} +[\d.]+ [MGT] ", text)


def test_one_family(capsys, monkeypatch):
    text = shown(capsys, monkeypatch, "llama")
    assert "rotary positions, SwiGLU" in text
    assert "8,030,261,248" in text
    assert "kv_heads=None" in text


def test_one_model(capsys, monkeypatch):
    text = shown(capsys, monkeypatch, "llama", "3.1-8b")
    assert "layers 0–31: 32 × Block(residual=PreNorm(norm=RMSNorm" in text
    assert "q 4096×4096" in text
    assert text.count("GatedMLP") == 1
    assert "bias=" not in text, "defaults are left out"


@pytest.mark.parametrize("columns", [60, 80, 200])
@pytest.mark.parametrize("family", ["gemma3", "albert", "t5"])
def test_no_line_is_cut_or_too_long(capsys, monkeypatch, family, columns):
    text = shown(capsys, monkeypatch, family, FIRST[family], columns=columns)
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= columns


def test_json_rebuilds_the_model(capsys, monkeypatch):
    tree = json.loads(shown(capsys, monkeypatch, "gemma3", "4b", "--json"))
    assert build(tree) == build({"family": "gemma3", "size": "4b"})


def test_a_size_without_its_version(capsys, monkeypatch):
    assert shown(capsys, monkeypatch, "llama", "7b").startswith("llama 7b")
    call("llama", "7b")
    assert capsys.readouterr().err == "llama 7b: taken for 1-7b; there is 2-7b too\n"


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["lama"], "family 'lama' is unknown; did you mean 'llama'?"),
        (["llama", "405"], "llama has no size '405'; did you mean '3.1-405b'?"),
        (["gpt2", "smal"], "gpt2 has no size 'smal'; did you mean 'small'?"),
        (["gpt1", "xyz"], "gpt1 has no size 'xyz'; there are base"),
        (["llama", "--jsn"], "Unknown command line flag 'jsn'. Did you mean: json ?; see --help"),
        (["llama", "--json"], "give a family and one of its sizes: python -m lm.zoo FAMILY SIZE [--json]"),
        (["llama", "1-7b", "x"], "give a family and one of its sizes: python -m lm.zoo FAMILY SIZE [--json]"),
    ],
)
def test_wrong_names(argv, message, capsys):
    with pytest.raises(SystemExit):
        call(*argv)
    assert capsys.readouterr().err == f"error: {message}\n"
