"""Reading and writing run records, and what a bad file is told."""

import gzip
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lm.core.errors import UserError
from scaling.numbers import numbers_of
from scaling.records import append_run, read_runs
from scaling.tables import read_rows, write_parquet

RECORD = {
    "params": 1000, "tokens": 20000, "flops": 1.5e8, "flops_convention": "jaxpr",
    "loss": 3.5, "loss_unit": "nats/byte", "seed": 0, "shape": {"d_model": 16},
}  # fmt: skip


def csv(tmp_path, text):
    path = tmp_path / "runs.csv"
    path.write_text(text)
    return path


def test_records_come_back_as_columns(tmp_path):
    path = tmp_path / "runs.jsonl"
    append_run(path, RECORD)
    append_run(path, RECORD | {"loss": 3.25, "seed": 1})
    runs = read_runs(path)
    np.testing.assert_array_equal(runs["loss"], [3.5, 3.25])
    np.testing.assert_array_equal(runs["seed"], [0, 1])
    np.testing.assert_array_equal(runs["flops"], [1.5e8, 1.5e8])
    assert runs["loss_unit"][0] == "nats/byte"
    assert runs["shape"][0] == '{"d_model": 16}'


def test_a_diverged_run_is_recorded_and_left_out(tmp_path):
    path = tmp_path / "runs.jsonl"
    append_run(path, RECORD | {"status": "done"})
    append_run(path, RECORD | {"status": "diverged", "loss": None})
    with pytest.raises(UserError, match=r"line 2: loss is empty.*--where"):
        read_runs(path)
    assert len(read_runs(path, where=["status=done"])["loss"]) == 1
    with pytest.raises(UserError, match="loss = nan; write None"):
        append_run(path, RECORD | {"loss": float("nan")})


def test_a_record_must_state_its_unit(tmp_path):
    with pytest.raises(UserError, match="lacks 'loss_unit'"):
        append_run(tmp_path / "runs.jsonl", {k: v for k, v in RECORD.items() if k != "loss_unit"})


def test_tokens_and_flops_are_made_from_each_other(tmp_path):
    runs = read_runs(csv(tmp_path, "params,flops,loss\n10,1200,2.0\n"))
    assert runs["tokens"][0] == 20
    runs = read_runs(csv(tmp_path, "tokens,flops,loss\n20,1200,2.0\n"))
    assert runs["params"][0] == 10
    runs = read_runs(csv(tmp_path, "params,tokens,loss\n10,20,2.0\n"))
    assert runs["flops"][0] == 1200


@pytest.mark.parametrize(
    ("texts", "numbers"),
    [
        (["1,234", "1,234,567"], [1234, 1234567]),
        (["3,45", "3,456", "2"], [3.45, 3.456, 2]),
        (["1,234"], [None]),  # or 1.234
        (["70B", "1.4T", "350m", "12 k", "1,5G"], [70e9, 1.4e12, 350e6, 12e3, 1.5e9]),
        (["1 234 567", "1'000", "12\u202f500,5", "-2e3", "", "GPT-2"], [1234567, 1000, 12500.5, -2000, None, None]),
    ],
)
def test_numbers_as_people_write_them(texts, numbers):
    assert numbers_of(texts) == numbers


def test_a_table_as_a_stranger_has_it(tmp_path):
    """Thousands, other units, text beside numbers, rows that diverged; and what cannot be known is asked for."""
    rows = ("Model (B);Tokens;bits;note", "0,07;1,300,000,000;4,75;a", '7;1.4T;nan;"diverged; lr"', "1,3;26B;3,5;")
    text = "\n".join(rows)
    columns = {"params": "Model (B)*1e9", "tokens": "Tokens", "loss": "bits*0.5"}
    with pytest.raises(UserError, match=r"line 3: loss is nan, .* leave out such rows with --where=loss,"):
        read_runs(csv(tmp_path, text), columns=columns)
    told = []
    runs = read_runs(csv(tmp_path, text), columns=columns, where=["loss"], tell=told.append)
    assert runs["params"] == pytest.approx([0.07e9, 1.3e9]) and runs["loss"] == pytest.approx([2.375, 1.75])
    assert runs["tokens"] == pytest.approx([1.3e9, 26e9]) and not told
    read_runs(csv(tmp_path, "params,tokens,loss\n0.07,1.3,4\n7,140,3\n"), tell=told.append)
    assert "params are at most 7: " in told[0] and "--columns=params=NAME*1e9" in told[0] and "tokens" in told[1]
    with pytest.raises(UserError, match=r"params is '1,234', not a positive number; write it without its comma"):
        read_runs(csv(tmp_path, 'params,tokens,loss\n"1,234",20000,3\n'))
    with pytest.raises(UserError, match=r"leave out such rows with --where=loss!=diverged"):
        read_runs(csv(tmp_path, "params,tokens,loss\n10,20,diverged\n"))


def test_columns_and_conditions(tmp_path):
    path = csv(tmp_path, "N,D,eval,kind,keep\n1,2,3,a,1\n4,5,6,b,\n7,8,9,a,0\n")
    columns = {"params": "N", "tokens": "D", "loss": "eval"}
    cases = {"kind=a": [3, 9], "kind!=a": [6], "keep": [3], "kind=a,keep=0": [9], "N=4.0": [6]}
    for where, kept in cases.items():
        np.testing.assert_array_equal(read_runs(path, columns=columns, where=where.split(","))["loss"], kept)
    assert np.isnan(read_runs(path, columns=columns)["keep"][1])
    with pytest.raises(UserError, match="kind=c keeps no run; kind is one of a, b"):
        read_runs(path, columns=columns, where=["kind=c"])


ROWS = [{"params": 1.0 + i, "tokens": 2.0, "loss": 3.5, "done": i != 1, "seed": i % 2, "note": None} for i in range(4)]
ROWS[2]["note"] = 'a, b;\u2028\n"c"'


def written(path, suffix):
    """The same runs in each format, as spreadsheets, pandas and databases write them."""
    path = path / f"runs{suffix}"
    name = suffix.removesuffix(".gz")
    if name == ".parquet":
        pq = pytest.importorskip("pyarrow.parquet")
        pq.write_table(pytest.importorskip("pyarrow").Table.from_pylist(ROWS), path)
        return path
    if name in (".json", ".jsonl"):
        text = (
            json.dumps(ROWS, indent=1)
            if name == ".json"
            else "\n".join(json.dumps(r, ensure_ascii=False) for r in ROWS)
        )
    else:
        divider = {".csv": ",", ".tsv": "\t", ".txt": ";"}[name]
        quoted = {
            key: "" if key is None else f'"{key.replace(chr(34), chr(34) * 2)}"' for key in (None, ROWS[2]["note"])
        }
        text = "\ufeff" + divider.join(ROWS[0]) + "\r\n"
        for r in ROWS:
            cells = [str(r[k]) for k in ("params", "tokens", "loss", "done", "seed")] + [quoted[r["note"]]]
            cells = [c.replace(".", ",") for c in cells[:3]] + cells[3:] if divider == ";" else cells
            text += divider.join(cells) + "\r\n"
        text += divider * 5 + "\r\n"  # an empty line of a spreadsheet
    data = text.encode()
    path.write_bytes(gzip.compress(data) if suffix.endswith(".gz") else data)
    return path


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".txt", ".json", ".jsonl", ".parquet", ".csv.gz", ".json.gz"])
def test_formats(tmp_path, suffix):
    path = written(tmp_path, suffix)
    runs = read_runs(path)
    np.testing.assert_array_equal(runs["params"], [1, 2, 3, 4])
    np.testing.assert_array_equal(runs["loss"], [3.5] * 4)
    np.testing.assert_array_equal(runs["done"], [1, 0, 1, 1])
    assert runs["note"][2] == ROWS[2]["note"] and runs["note"][0] == ""
    cases = {
        "done=true": [1, 3, 4], "done!=True": [2], "done": [1, 3, 4], "done=false": [2], "seed=1": [2, 4],
        "seed!=1.0": [1, 3], "seed": [2, 4], "note=null": [1, 2, 4], "note!=null": [3], "note": [3],
    }  # fmt: skip
    for where, kept in cases.items():
        np.testing.assert_array_equal(read_runs(path, where=[where])["params"], kept, where)


def test_a_value_that_no_run_has_is_told(tmp_path):
    path = written(tmp_path, ".jsonl")
    for where in ("done!=yes", "done!=1", "seed!=one", "done=1", "seed=true"):
        with pytest.raises(UserError, match=rf"--where={where} (leaves out|keeps) no run; (done|seed) is one of "):
            read_runs(path, where=[where])
    lines = []
    for where in ("seed!=7", "done!=null", "note!=x"):
        assert len(read_runs(path, where=[where], tell=lines.append)["loss"]) == 4
    said = [f"--where={where} leaves out no run" for where in ("seed!=7", "done!=null", "note!=x")]
    assert [line.split(";")[0] for line in lines if "--where" in line] == said


def test_runs_that_stand_there_twice_are_told(tmp_path):
    lines = []
    read_runs(csv(tmp_path, "params,tokens,loss\n1e8,2e9,3\n2e8,2e9,3\n1e8,2e9,3\n"), tell=lines.append)
    assert len(lines) == 1 and "of another: 1 (" in lines[0] and "line 4 that of line 2" in lines[0]


def test_an_empty_number_is_neither_zero_nor_anything(tmp_path):
    path = csv(tmp_path, "params,tokens,loss,x\n1,2,3,nan\n1,2,4,\n1,2,5,0\n1,2,6,7\n")
    np.testing.assert_array_equal(read_runs(path, where=["x"])["loss"], [6])
    np.testing.assert_array_equal(read_runs(path, where=["x!=nan"])["loss"], [4, 5, 6])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no runs"),
        ("params,tokens,loss\n", "has no runs"),
        ("params,tokens,los\n1,2,3\n", "no column 'loss'.*did you mean 'los'"),
        ("params,loss\n1,2\n", "neither 'tokens' nor 'flops'"),
        ("params,tokens,loss\n1,2,3\n1,2\n", "line 3 has 2 cells where the header has 3"),
        ("params,tokens,loss\n1,2,3\n1,2,nan\n", "line 3: loss is nan"),
        ("params,tokens,loss\n1,2,3\n\n1,2,-1\n", "line 4: loss is -1.0, not a positive"),
        ("params,tokens,loss\n1,,3\n", "line 2: tokens is empty"),
        ("params,tokens,loss\n1,2,high\n", "line 2: loss is 'high'"),
        ("params,loss,loss\n1,2,3\n", "two columns 'loss'"),
        ('params,tokens,loss\n1,2,"3\n', "line 2 is not CSV"),
        ("params,tokens,loss\n1,2,true\n", "line 2: loss is True"),
        ("params,tokens,loss,loss_unit\n1,2,3,nats/token\n1,2,3,nats/byte\n", "mixes loss_unit"),
    ],
)
def test_bad_csv(tmp_path, text, message):
    with pytest.raises(UserError, match=message):
        read_runs(csv(tmp_path, text))


def test_other_bad_files(tmp_path):
    with pytest.raises(UserError, match="no file"):
        read_runs(tmp_path / "absent.csv")
    with pytest.raises(UserError, match="is a folder"):
        read_runs(tmp_path)
    broken = tmp_path / "runs.jsonl"
    broken.write_text('{"params": 1}\n{"params": \n')
    with pytest.raises(UserError, match="line 2 is not JSON"):
        read_runs(broken)
    broken.write_text("[1, 2]\n")
    with pytest.raises(UserError, match="record 1 is a JSON int; each run must be one object"):
        read_runs(broken)
    broken.write_text('[{"params": 1},\n{"params"]\n')
    with pytest.raises(UserError, match="line 2 is not JSON"):
        read_runs(broken)
    broken.write_bytes(b"PAR1 and no more")
    with pytest.raises(UserError, match=r"no whole Parquet file|needs the package pyarrow"):
        read_runs(broken)
    broken.write_bytes("params,tokens,loss\n1,2,3\n".encode("utf-16"))
    with pytest.raises(UserError, match="is UTF-16 text: convert it"):
        read_runs(broken)
    with pytest.raises(UserError, match=r"no column 'losss'.*did you mean 'loss'"):
        read_runs(csv(tmp_path, "params,tokens,loss\n1,2,3\n"), where=["losss=3"])


def test_a_result_is_written_once(tmp_path):
    """What failed is no result, and a line that a kill cut short is none either."""
    path = tmp_path / "runs.jsonl"
    for failure in ("killed", None, None):
        append_run(path, RECORD | {"cell": "a", "failure": failure}, once="cell")
    with path.open("a") as file:
        file.write('{"params": 10')
    append_run(path, RECORD | {"cell": "b", "failure": None}, once="cell")
    written = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(r["cell"], r["failure"]) for r in written] == [("a", "killed"), ("a", None), ("b", None)]


def test_many_processes_write_one_file(tmp_path):
    path = tmp_path / "runs.jsonl"
    code = "import sys; from scaling.records import append_run; r = eval(sys.argv[2])\n"
    code += "for i in range(50): append_run(sys.argv[1], r | {'cell': f'{sys.argv[3]} {i // 2}'}, once='cell')"
    words = [[sys.executable, "-c", code, str(path), repr(RECORD), str(n % 2)] for n in range(4)]
    processes = [subprocess.Popen(w, cwd=Path(__file__).parents[2]) for w in words]
    assert [p.wait(60) for p in processes] == [0] * 4
    cells = [json.loads(line)["cell"] for line in path.read_text().splitlines()]
    assert sorted(cells) == sorted(f"{n} {i}" for n in range(2) for i in range(25))


def test_records_as_parquet(tmp_path):
    pytest.importorskip("pyarrow")
    runs, table = tmp_path / "runs.jsonl", tmp_path / "runs.parquet"
    for change in ({}, {"loss": None, "failure": "killed"}):
        append_run(runs, RECORD | change)
    write_parquet(read_rows(runs), table)
    again = [cells for _, cells in read_rows(table)]
    assert [cells["loss"] for cells in again] == [3.5, None] and again[0]["failure"] is None
    ours, theirs = (read_runs(path, where=["loss"]) for path in (runs, table))
    for name in ("params", "tokens", "flops", "loss", "loss_unit", "shape"):
        np.testing.assert_array_equal(ours[name], theirs[name])
    with pytest.raises(UserError, match="cannot write"):
        write_parquet(read_rows(runs), tmp_path / "absent" / "runs.parquet")
