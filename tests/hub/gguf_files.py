"""Small GGUF files, and what transformers makes of them (`gguf_logits.npz`).

Needs, besides what the tests need, torch, transformers, accelerate and gguf; from the top of the checkout:

    python -m tests.hub.gguf_files          # writes tests/hub/gguf_logits.npz
"""

import tempfile
from pathlib import Path
from typing import Any

import gguf
import numpy as np

from tests.golden.weights import tensor

LAYERS, D, FF, HEADS, KV, VOCAB, CONTEXT = 3, 64, 96, 4, 2, 264, 48
TOKENS = np.random.default_rng(0).integers(0, VOCAB, (2, 11)).astype(np.int32)
LOGITS = Path(__file__).with_name("gguf_logits.npz")
QUANTIZED = gguf.GGMLQuantizationType.Q8_0

WIDE = 128  # head_dim of qwen3, which transformers does not read


def rotary(head_dim: int = D // HEADS) -> dict[str, tuple[int, ...]]:
    return {
        "attn_norm": (D,),
        "attn_q": (HEADS * head_dim, D),
        "attn_k": (KV * head_dim, D),
        "attn_v": (KV * head_dim, D),
        "attn_output": (D, HEADS * head_dim),
        "ffn_norm": (D,),
        "ffn_gate": (FF, D),
        "ffn_up": (FF, D),
        "ffn_down": (D, FF),
    }


FUSED = {
    "attn_norm": (D,),
    "attn_qkv": (3 * D, D),
    "attn_output": (D, D),
    "ffn_norm": (D,),
    "ffn_up": (4 * D, D),
    "ffn_down": (D, 4 * D),
}
NORMS = {"attn_q_norm": (WIDE,), "attn_k_norm": (WIDE,)}
SHAPES: dict[str, dict[str, tuple[int, ...]]] = {
    "llama": rotary(),
    "qwen2": rotary(),
    "qwen3": rotary(WIDE) | NORMS,
    "gemma": rotary(),
    "gpt2": FUSED,
}
BIASED = {"qwen2": ("attn_q", "attn_k", "attn_v"), "gpt2": tuple(FUSED)}
UNTIED = ("llama", "qwen3")
SEEN = slice(None, None, 5)  # positions whose logits are kept
TEMPLATE = (
    "{% for m in messages %}<|turn|>{{ m['role'] }}: {{ m['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|turn|>assistant: {% endif %}"
)
COMPARED = ("llama", "qwen2", "qwen3", "gpt2")  # transformers reads no `gemma`


def metadata(kind: str) -> dict[str, Any]:
    """Of the model, without the tokenizer's."""
    found = {
        "block_count": LAYERS,
        "context_length": CONTEXT,
        "embedding_length": D,
        "feed_forward_length": 4 * D if kind == "gpt2" else FF,
        "attention.head_count": HEADS,
        "vocab_size": VOCAB,
    }
    if kind == "gpt2":
        return found | {"attention.layer_norm_epsilon": 1e-2, "context_length": 1024}  # theirs does not read this
    found |= {"attention.head_count_kv": KV, "rope.freq_base": 5000.0, "attention.layer_norm_rms_epsilon": 1e-2}
    return found | ({"attention.key_length": WIDE, "attention.value_length": WIDE} if kind == "qwen3" else {})


def byte_pairs(pre: str = "smollm") -> dict[str, Any]:
    """The metadata of a tokenizer: two special tokens, GPT-2's letters for the 256 bytes, and six pairs."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in plain]
    letters = [chr(b) for b in plain] + [chr(256 + i) for i in range(len(others))]
    merges = ["h e", "Ġ t", "Ġt he", "i n", "1 2", "12 3"]
    tokens = ["<|end|>", "<|turn|>", *letters, *(merge.replace(" ", "") for merge in merges)]
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": pre,
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [3, 3] + [1] * (len(tokens) - 2),
        "tokenizer.ggml.merges": merges,
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 0,
        "tokenizer.chat_template": TEMPLATE,
    }


def tensors(kind: str) -> dict[str, np.ndarray]:
    """By their names in the file."""
    shapes: dict[str, tuple[int, ...]] = {"token_embd.weight": (VOCAB, D), "output_norm.weight": (D,)}
    shapes |= {"output.weight": (VOCAB, D)} if kind in UNTIED else {}
    if kind == "gpt2":
        shapes |= {"position_embd.weight": (1024, D), "output_norm.bias": (D,)}
    for layer in range(LAYERS):
        for name, shape in SHAPES[kind].items():
            shapes[f"blk.{layer}.{name}.weight"] = shape
            if name in BIASED.get(kind, ()):
                shapes[f"blk.{layer}.{name}.bias"] = shape[:1]
    return {name: tensor(name, shape) for name, shape in shapes.items()}


def write(
    path: Path,
    kind: str,
    change: dict[str, Any] | None = None,
    *,
    dtype: gguf.GGMLQuantizationType = QUANTIZED,
    parts: int = 1,
    big_endian: bool = False,
    **values: np.ndarray | None,
) -> Path:
    """A file of that architecture, its projections in `dtype`. `change`: other metadata, None to leave one out. Of
    several parts, NAME-00001-of-00002.gguf and so on, the first is returned."""
    order = gguf.GGUFEndian.BIG if big_endian else gguf.GGUFEndian.LITTLE
    most = -(-len(tensors(kind) | values) // parts) if parts > 1 else 0
    writer = gguf.GGUFWriter(path, kind, endianess=order, split_max_tensors=most)
    meta = {f"{kind}.{k}": v for k, v in metadata(kind).items()} | byte_pairs() | (change or {})
    for name, value in meta.items():
        if isinstance(value, bool):
            writer.add_bool(name, value)
        elif isinstance(value, int):
            writer.add_uint32(name, value)
        elif isinstance(value, float):
            writer.add_float32(name, value)
        elif isinstance(value, str):
            writer.add_string(name, value)
        elif value is not None:
            writer.add_array(name, value)
    for name, value in (tensors(kind) | values).items():
        if value is None:
            continue
        if value.ndim == 2 and name.startswith("blk."):
            writer.add_tensor(name, gguf.quants.quantize(value, dtype), raw_dtype=dtype)
        else:
            writer.add_tensor(name, value.copy())  # which a big-endian writer turns around
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path if parts == 1 else path.with_name(f"{path.stem}-00001-of-{parts:05}.gguf")


def main() -> None:
    import torch
    from transformers import AutoModelForCausalLM

    found = {}
    for kind in COMPARED:
        with tempfile.TemporaryDirectory() as folder:
            write(Path(folder) / "model.gguf", kind)
            model = AutoModelForCausalLM.from_pretrained(
                folder, gguf_file="model.gguf", dtype=torch.float32, attn_implementation="eager"
            ).eval()
        with torch.no_grad():
            found[kind] = model(torch.from_numpy(TOKENS).long()).logits.numpy()[:, SEEN]
    np.savez_compressed(LOGITS, **found)


if __name__ == "__main__":
    main()
