"""Attention in programs for TPUs, compiled by the real TPU compiler."""

import json
import re

import pytest

from tests.tpu.test_compile import compile_for, needs_libtpu

LLAMA = """
from lm.train.config import default
from lm.zoo.registry import knobs

def get_config():
    config = default()
    with config.unlocked():
        config.model = knobs("llama", layers=2, d_model=512, heads=4, kv_heads=2, d_ff=1536, vocab=512)
    config.data.length, config.data.batch_size = 1024, 32
    config.train.dtype = "bfloat16"
    config.mesh.fsdp = 4
    return config
"""


def compiled(tmp_path, *flags):
    """The report, and the program's text."""
    out, hlo = tmp_path / "report.json", tmp_path / "hlo.txt"
    done = compile_for("v5e:4x4", tmp_path, f"--out={out}", f"--hlo={hlo}", *flags, text=LLAMA)
    assert done.returncode == 0, done.stderr
    assert "runs in place of" not in done.stderr
    return json.loads(out.read_text()), hlo.read_text()


def is_splash(text: str) -> bool:
    """One kernel for the values, two for the gradients, and no scores of queries by keys."""
    scores = re.search(r"\[(\d+,)*1024,1024\]", text)
    return text.count('custom_call_target="tpu_custom_call"') == 3 and not scores


@pytest.mark.slow
@needs_libtpu
def test_splash_attention_is_chosen_and_needs_less_memory_than_blocks_of_scores(tmp_path):
    splash, text = compiled(tmp_path)
    assert is_splash(text)
    blocked, text = compiled(tmp_path, "--config.train.attention=blocked")
    assert not is_splash(text)
    assert splash["memory"]["temporaries"] < blocked["memory"]["temporaries"]


@pytest.mark.slow
@needs_libtpu
def test_splash_attention_within_stages_for_some_heads(tmp_path):
    """On each device for its own ones: here two devices share a head of keys."""
    mesh = ("--config.parallel.pipeline=2", "--config.mesh.tensor=4", "--config.mesh.fsdp=1")
    assert is_splash(compiled(tmp_path, *mesh)[1])
