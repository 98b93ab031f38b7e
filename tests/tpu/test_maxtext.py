"""A step at settings for which MaxText's needs are known: ours needs no more."""

import json
import sys

import pytest

from benchmarks.maxtext import ROWS
from tests.tpu.test_compile import needs_libtpu, run

COMPILE = """
import json, sys
from benchmarks.maxtext import ROWS, ours

print(json.dumps(ours(ROWS[sys.argv[1]])._asdict()))
"""


@pytest.mark.slow
@needs_libtpu
def test_no_more_memory_or_traffic_than_maxtext():
    done = run([sys.executable, "-c", COMPILE, "llama2-7b"])
    assert done.returncode == 0, done.stderr
    ours, theirs = json.loads(done.stdout), ROWS["llama2-7b"].theirs._asdict()
    assert all(ours[name] <= known * 1.005 for name, known in theirs.items() if known is not None), (ours, theirs)
