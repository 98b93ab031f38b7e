"""The estimate of tpu/memory.py beside the compiler's figure, for ten configs:

python -m tests.tpu.memory_cases            # a table, with the compiler's figures as they are recorded
python -m tests.tpu.memory_cases --write    # compiles all of them, half a minute each, and records its figures
python -m tests.tpu.memory_cases --write 3  # the fourth alone
"""

import json
import sys
from pathlib import Path
from typing import NamedTuple

from tpu.topology import devices  # isort: skip  # sets up this process before jax starts

from ml_collections import ConfigDict

from lm.train.config import default
from lm.train.footprint import readable
from lm.train.override import override
from lm.train.parallel import execution_of, sharding_of
from lm.train.setup import assemble
from lm.zoo.registry import knobs
from tpu.ahead import report
from tpu.layouts import Layout
from tpu.memory import Model, Need

RECORD = Path(__file__).parents[1] / "golden" / "tpu_memory.json"
LLAMA = {"family": "llama", "layers": 8, "d_model": 1024, "heads": 8, "d_ff": 2816, "vocab": 32000}
GPT2 = {"family": "gpt2", "layers": 12, "d_model": 1024, "heads": 8, "vocab": 50304, "context": 1024}
MIXTRAL = {
    "family": "mixtral",
    "layers": 4,
    "d_model": 1024,
    "heads": 8,
    "kv_heads": 4,
    "d_ff": 2048,
    "experts": 8,
    "vocab": 32000,
}
WIDE = LLAMA | {"layers": 16, "d_model": 2048, "heads": 16, "kv_heads": 4, "d_ff": 5632}


class Case(NamedTuple):
    topology: str
    model: dict
    length: int
    rows: int
    knobs: str

    def __str__(self) -> str:
        family, layers, d, vocab = (self.model[knob] for knob in ("family", "layers", "d_model", "vocab"))
        rows, kv = f"{self.rows} x {self.length}", self.model.get("kv_heads", "all")
        return f"{family}, {layers} x {d}, {kv} key heads, vocabulary {vocab}; {rows}; {self.topology}, {self.knobs}"


CASES = (
    Case("v5e:4x4", LLAMA, 1024, 64, "mesh.fsdp=16 train.remat=full"),
    Case("v5e:4x4", LLAMA, 1024, 64, "mesh.fsdp=16 train.remat=none"),
    Case("v5e:4x4", LLAMA | {"kv_heads": 2}, 2048, 64, "mesh.fsdp=8 mesh.tensor=2 train.remat=dots"),
    Case("v5e:4x4", GPT2, 1024, 128, "mesh.data=16 train.remat=full"),
    Case("v5e:4x4", GPT2, 1024, 64, "mesh.fsdp=16 train.remat=none"),
    Case("v5e:4x4", MIXTRAL, 1024, 64, "mesh.fsdp=4 mesh.expert=4 train.remat=full"),
    Case("v5p:2x2x4", WIDE, 4096, 32, "mesh.fsdp=16 train.remat=full"),
    Case("v5p:2x2x4", WIDE, 4096, 64, "mesh.fsdp=16 train.remat=full train.accumulate=4"),
    Case("v5e:4x4", LLAMA, 1024, 64, "mesh.fsdp=8 parallel.pipeline=2 train.remat=full"),
    Case("v5e:4x4", WIDE | {"vocab": 128256}, 1024, 32, "mesh.fsdp=16 train.remat=none"),
)


def config_of(case: Case) -> ConfigDict:
    config = default()
    with config.unlocked():
        config.model = knobs(**case.model)
        config.data.length, config.data.batch_size, config.train.dtype = case.length, case.rows, "bfloat16"
        config.mesh.data = 1
    override(config, [tuple(word.split("=", 1)) for word in case.knobs.split()])
    return config


def estimate(config: ConfigDict, topology: str) -> Need:
    pod = devices(topology)
    parts = assemble(Layout((), 1, "none", 1).applied(config), devices=pod[:1])
    train = config.train
    placed = Model.of(parts, (train.remat,)).on(sharding_of(config, pod))
    walk = execution_of(config, parts.model).walk
    return placed.need(train.remat, config.data.batch_size, train.accumulate, walk)


def main(words: list[str]) -> None:
    record: dict[str, int] = json.loads(RECORD.read_text()) if RECORD.exists() else {}
    for i in [int(word) for word in words if word != "--write"] or range(len(CASES)):
        case = CASES[i]
        config = config_of(case)
        if "--write" in words:
            record[str(case)] = report(config, case.topology).memory.used
            RECORD.write_text(json.dumps(record, indent=1) + "\n")
        need, used = estimate(config, case.topology).total, record[str(case)]
        print(f"| {case} | {readable(need)} | {readable(used)} | {need / used:.2f} |", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
