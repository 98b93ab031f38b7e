"""The figures of transformers for the folders that `tests.evaluate.folders` writes: nats per token, scored tokens."""

import json
import sys
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, AutoModelForSeq2SeqLM, AutoTokenizer

FOLDER = Path(sys.argv[1])
DOCUMENTS = [json.loads(line)["body"] for line in (FOLDER / "documents.jsonl").read_text().splitlines()]
PAIRS = [json.loads(line) for line in (FOLDER / "pairs.jsonl").read_text().splitlines()]


def nll(logits, ids):
    return -torch.log_softmax(logits.double(), -1).gather(-1, torch.tensor(ids)[:, None])[:, 0]


def windows(kind: str, length: int, stride: int | None = None, first: bool = True) -> list:
    """With a stride as in the guide on perplexity of models of a fixed length."""
    model, tokenizer = AutoModelForCausalLM.from_pretrained(FOLDER / kind).eval(), words(kind)
    found = []
    for text in DOCUMENTS:
        before = [tokenizer.bos_token_id] if kind == "begun" else []
        ids = before + tokenizer(text, add_special_tokens=False).input_ids + [tokenizer.eos_token_id]
        least, done = len(before) + (not first) if before else 1, 0
        for begin in range(0, len(ids), stride or length):
            end = min(begin + (length if stride else length + 1), len(ids))
            if end - begin > 1:
                losses = nll(model(torch.tensor([ids[begin : end - 1]])).logits[0], ids[begin + 1 : end])
                found += losses[max(done, begin + 1, least) - begin - 1 :].tolist()
            done = end
            if end == len(ids):
                break
    return found


def masked(kind: str, length: int) -> list:
    model, tokenizer = AutoModelForMaskedLM.from_pretrained(FOLDER / kind).eval(), words(kind)
    cls, sep, mask = tokenizer.convert_tokens_to_ids(["[CLS]", "[SEP]", "[MASK]"])
    found = []
    for text in DOCUMENTS:
        ids = tokenizer(text, add_special_tokens=False).input_ids
        for begin in range(0, len(ids), length - 2):
            whole = [cls, *ids[begin : begin + length - 2], sep]
            for i in range(1, len(whole) - 1):
                hidden = [*whole[:i], mask, *whole[i + 1 :]]
                found.append(nll(model(torch.tensor([hidden])).logits[0], whole)[i].item())
    return found


def pairs(kind: str) -> list:
    model, tokenizer = AutoModelForSeq2SeqLM.from_pretrained(FOLDER / kind).eval(), words(kind)
    found = []
    for pair in PAIRS:
        ids = tokenizer(pair["from"]).input_ids, tokenizer(pair["to"]).input_ids
        logits = model(torch.tensor([ids[0]]), labels=torch.tensor([ids[1]])).logits[0]
        found += nll(logits, ids[1]).tolist()
    return found


def words(kind: str):
    return AutoTokenizer.from_pretrained(FOLDER / kind)


with torch.no_grad():
    figures = {
        "begun": windows("begun", 64),
        "begun, not the first": windows("begun", 64, first=False),
        "begun, windows of 16": windows("begun", 16),
        "begun, 4 of 16": windows("begun", 16, 4),
        "plain": windows("plain", 32),
        "plain, 8 of 32": windows("plain", 32, 8),
        "masked": masked("masked", 32),
        "pairs": pairs("pairs"),
    }
for name, losses in figures.items():
    print(f"{name:24} {sum(losses) / len(losses):.6f} {len(losses)}")
