"""A small LLaMA that chats: its knobs, its template, and how its text is written."""

from typing import Any

import tokenizers

from lm.text.format import TextFormat
from lm.text.hf_tokenizer import HFTokenizer

KNOBS: dict[str, Any] = {"family": "llama", "layers": 2, "d_model": 16, "heads": 2, "kv_heads": 1, "d_ff": 24}
KNOBS |= {"vocab": 300, "tied": True}
TEMPLATE = "{% for m in messages %}<|turn|>{{ m['content'] }}<|end|>{% endfor %}<|turn|>"


def tokenizer_json(around: bool = False) -> str:
    """A tokenizer.json: one token a byte, <|end|> 0 and <|turn|> 1; `around`: these stand around what a model reads."""
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    vocab = {piece: i for i, piece in enumerate(["<|end|>", "<|turn|>", *alphabet])}
    t = tokenizers.Tokenizer(tokenizers.models.BPE(vocab, []))
    t.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    t.decoder = tokenizers.decoders.ByteLevel()
    t.add_special_tokens(["<|end|>", "<|turn|>"])
    if around:
        t.post_processor = tokenizers.processors.TemplateProcessing(
            single="<|turn|> $A <|end|>", special_tokens=[("<|turn|>", 1), ("<|end|>", 0)]
        )
    return t.to_str()


def tokenizer(around: bool = False) -> HFTokenizer:
    return HFTokenizer(tokenizer_json(around), {"eos": "<|end|>"})


def text() -> TextFormat:
    return TextFormat(tokenizer(), (0, 1), template=TEMPLATE)
