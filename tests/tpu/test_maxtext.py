"""Steps at settings for which MaxText's needs are known, by what was recorded of ours. (What is recorded is what they
need: `test_compile` compiles one of them.)"""

import pytest

from tests.tpu import cases

RECORDED = [name for name, case in cases.CASES.items() if case.config[0] == "maxtext" and cases.path(name).exists()]


@pytest.mark.parametrize("name", RECORDED)
def test_no_more_memory_or_traffic_than_maxtext(name):
    assert not list(cases.beyond_maxtext(name, cases.read(name)))


def test_what_is_more_is_told():
    record = cases.read("llama-2-7b")
    more = list(cases.beyond_maxtext("llama-2-7b", record | {"hbm": 2 * record["hbm"]}))
    assert [line.split(":")[0] for line in more] == ["temporaries"]
