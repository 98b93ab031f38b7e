"""GGUF files (llama.cpp): metadata, tensors and tokenizer of one file, told as a Hugging Face folder tells them.

Weights are dequantised to float32 by the package gguf. `ARCHITECTURES` says, for each `general.architecture`, which
model type it is, what its metadata are called in config.json, and what its tensors are called there."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lm.core.errors import UserError, nearest
from lm.hub.gguf_text import text_of
from lm.hub.tensors import Stored, package, reason
from lm.hub.text import Text

Values = Callable[[np.ndarray], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Architecture:
    """fields: their key -> that of config.json. names: their tensor -> that of a Hugging Face folder, `{layer}` the
    layer's number. pairs: the rows of queries and keys are ordered for interleaved rotation, not by halves; values:
    what else undoes the conversion, by the end of a tensor's name. unread: keys that tell nothing new."""

    model_type: str
    fields: Mapping[str, str]
    names: Mapping[str, str]
    pairs: bool = False
    values: tuple[tuple[str, Values], ...] = ()
    unread: tuple[str, ...] = ()


SHAPE = {
    "embedding_length": "hidden_size",
    "block_count": "num_hidden_layers",
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
    "attention.key_length": "head_dim",
    "feed_forward_length": "intermediate_size",
    "context_length": "max_position_embeddings",
    "attention.layer_norm_rms_epsilon": "rms_norm_eps",
    "rope.freq_base": "rope_theta",
}
GPT2 = {
    "embedding_length": "n_embd",
    "block_count": "n_layer",
    "attention.head_count": "n_head",
    "feed_forward_length": "n_inner",
    "context_length": "n_positions",
    "attention.layer_norm_epsilon": "layer_norm_epsilon",
}
LAYER, THERE = "blk.{layer}.", "model.layers.{layer}."
ROTARY = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
    LAYER + "attn_norm": THERE + "input_layernorm",
    LAYER + "attn_q": THERE + "self_attn.q_proj",
    LAYER + "attn_k": THERE + "self_attn.k_proj",
    LAYER + "attn_v": THERE + "self_attn.v_proj",
    LAYER + "attn_output": THERE + "self_attn.o_proj",
    LAYER + "attn_q_norm": THERE + "self_attn.q_norm",
    LAYER + "attn_k_norm": THERE + "self_attn.k_norm",
    LAYER + "ffn_norm": THERE + "post_attention_layernorm",
    LAYER + "ffn_gate": THERE + "mlp.gate_proj",
    LAYER + "ffn_up": THERE + "mlp.up_proj",
    LAYER + "ffn_down": THERE + "mlp.down_proj",
}
H = "transformer.h.{layer}."
FUSED = {
    "token_embd": "transformer.wte",
    "position_embd": "transformer.wpe",
    "output_norm": "transformer.ln_f",
    "output": "lm_head",
    LAYER + "attn_norm": H + "ln_1",
    LAYER + "attn_qkv": H + "attn.c_attn",
    LAYER + "attn_output": H + "attn.c_proj",
    LAYER + "ffn_norm": H + "ln_2",
    LAYER + "ffn_up": H + "mlp.c_fc",
    LAYER + "ffn_down": H + "mlp.c_proj",
}
WIDTHS = ("vocab_size", "rope.dimension_count", "attention.value_length")
TURNED = tuple((f"{x}.weight", np.transpose) for x in ("attn_qkv", "attn_output", "ffn_up", "ffn_down"))
ARCHITECTURES = {
    "llama": Architecture("llama", SHAPE, ROTARY, pairs=True, unread=WIDTHS),
    "qwen2": Architecture("qwen2", SHAPE, ROTARY, unread=WIDTHS),
    "qwen3": Architecture("qwen3", SHAPE, ROTARY, unread=WIDTHS),
    "gemma": Architecture("gemma", SHAPE, ROTARY, values=(("norm.weight", lambda w: w - 1),), unread=WIDTHS),  # 1 + w
    "gpt2": Architecture("gpt2", GPT2, FUSED, values=TURNED, unread=("vocab_size",)),
}
FREQUENCIES = "rope_freqs.weight"
LLAMA3 = {"rope_type": "llama3", "low_freq_factor": 1.0, "high_freq_factor": 4.0}
LLAMA3_POSITIONS = 8192


class InGGUF(NamedTuple):
    """A tensor of a GGUF file, by its name in a Hugging Face folder."""

    tensor: Any  # the package's
    name: str
    path: Path
    turn: Values  # undoes what the conversion did to it

    @property
    def shape(self) -> tuple[int, ...]:
        return self.turn(np.broadcast_to(np.float32(0), self.tensor.shape[::-1].tolist())).shape

    @property
    def dtype(self) -> str:
        return self.tensor.tensor_type.name

    def read(self) -> np.ndarray:
        quants = package("gguf.quants", self.path, "gguf")
        try:
            return self.turn(quants.dequantize(self.tensor.data, self.tensor.tensor_type)).astype(np.float32)
        except NotImplementedError as e:
            raise UserError(
                f"tensor {self.tensor.name!r} is {self.dtype}, which the package gguf cannot dequantise: get a file of "
                "another type"
            ) from e


class GGUF:
    """An open file. Raises `UserError` where the package gguf is missing, and for a file that is no GGUF, damaged, or
    of an architecture that is not supported."""

    def __init__(self, path: str | Path) -> None:
        self.path = path = Path(path).expanduser()
        gguf = package("gguf", path, "gguf")
        try:
            reader = gguf.GGUFReader(path)
            self.metadata: dict[str, Any] = {name: field.contents() for name, field in reader.fields.items()}
        except OSError as e:
            raise UserError(f"cannot read {path} ({reason(e)}): give a .gguf file") from e
        except (ValueError, IndexError, KeyError, UnicodeDecodeError, OverflowError, MemoryError) as e:
            raise UserError(f"{path} is no GGUF file, or truncated ({reason(e)}): download it again") from e
        self._tensors = {tensor.name: tensor for tensor in reader.tensors}
        self.kind = self.metadata.get("general.architecture")
        if self.kind not in ARCHITECTURES:
            raise UserError(
                f"{path}: architecture {self.kind!r} is not supported{nearest(str(self.kind), ARCHITECTURES)}"
            )
        self.architecture = ARCHITECTURES[self.kind]

    def config(self) -> dict[str, Any]:
        """The config.json that these metadata stand for. Raises `UserError` for a key that is not known: nothing that
        would change the outputs is passed over."""
        config: dict[str, Any] = {"model_type": self.architecture.model_type}
        fields = self.architecture.fields
        own = {
            name.removeprefix(f"{self.kind}."): value
            for name, value in self.metadata.items()
            if name.startswith(f"{self.kind}.") and not name.startswith(f"{self.kind}.rope.scaling.")
        }
        for name, value in own.items():
            if name in fields:
                if isinstance(value, list):
                    raise UserError(f"{self.path}: {self.kind}.{name} differs between layers, which is not supported")
                config[fields[name]] = _short(value)
            elif name not in self.architecture.unread:
                raise UserError(
                    f"{self.path}: the metadata {self.kind}.{name}={value!r} is not supported{nearest(name, fields)}"
                )
        width = self._width(own)
        if "attention.key_length" in fields:
            config["head_dim"] = width
        table = self._tensor("token_embd.weight")
        config["vocab_size"] = int(table.shape[1])
        config["tie_word_embeddings"] = "output.weight" not in self._tensors
        if scaling := self._scaling(config):
            config["rope_scaling"] = scaling
        return config

    def tensors(self) -> dict[str, Stored]:
        """By their names in a Hugging Face folder; those that are unknown keep theirs."""
        found: dict[str, Stored] = {}
        for name, tensor in self._tensors.items():
            if name != FREQUENCIES:
                there = self._there(name)
                found[there] = InGGUF(tensor, there, self.path, self._turn(name))
        return found

    def text(self) -> Text:
        try:
            return text_of(self.metadata, str(self.path))
        except KeyError as e:
            raise UserError(f"{self.path} has no {e.args[0]}: get a file with its tokenizer") from e

    def _tensor(self, name: str) -> Any:
        if name not in self._tensors:
            raise UserError(f"{self.path}: tensor {name!r} is missing: download the file again")
        return self._tensors[name]

    def _there(self, name: str) -> str:
        stem, _, leaf = name.rpartition(".")
        parts = stem.split(".")
        layer = parts[1] if parts[0] == "blk" and len(parts) > 2 else None
        pattern = ".".join(["blk", "{layer}", *parts[2:]]) if layer else stem
        there = self.architecture.names.get(pattern)
        return f"{there.replace('{layer}', layer or '')}.{leaf}" if there else name

    def _turn(self, name: str) -> Values:
        for part, heads in (("attn_q.", "attention.head_count"), ("attn_k.", "attention.head_count_kv")):
            if self.architecture.pairs and part in name:
                count = self.metadata.get(f"{self.kind}.{heads}", self.metadata[f"{self.kind}.attention.head_count"])
                return lambda x: _halves(x, count)
        return next((turn for end, turn in self.architecture.values if name.endswith(end)), lambda x: x)

    def _width(self, own: Mapping[str, Any]) -> int:
        """head_dim. Raises `UserError` for heads that are rotated in part, or whose values are not as wide as keys."""
        try:
            width = own.get("attention.key_length", own["embedding_length"] // own["attention.head_count"])
        except KeyError as e:
            raise UserError(f"{self.path}: the metadata {self.kind}.{e.args[0]} are missing: download it again") from e
        for name in ("rope.dimension_count", "attention.value_length"):
            if own.get(name, width) != width:
                raise UserError(f"{self.path}: {self.kind}.{name}={own[name]} is not supported, only {width}")
        return width

    def _scaling(self, config: Mapping[str, Any]) -> dict[str, Any] | None:
        """What stretches the rotary frequencies, as config.json tells it."""
        start = f"{self.kind}.rope.scaling."
        told = {name.removeprefix(start): value for name, value in self.metadata.items() if name.startswith(start)}
        kind = told.pop("type", "none")
        original, factor = told.pop("original_context_length", None), told.pop("factor", None)
        told.pop("finetuned", None)  # whether the model was trained so
        if told or kind not in ("none", "linear", "yarn"):
            raise UserError(f"{self.path}: rope.scaling {kind} {told or ''} is not supported, only linear and yarn")
        if FREQUENCIES in self._tensors:
            return self._llama3(config, InGGUF(self._tensors[FREQUENCIES], FREQUENCIES, self.path, lambda x: x).read())
        if kind == "none":
            return None
        scaling = {"rope_type": kind, "factor": float(factor or 1.0)}
        return scaling | ({"original_max_position_embeddings": original} if kind == "yarn" and original else {})

    def _llama3(self, config: Mapping[str, Any], factors: np.ndarray) -> dict[str, Any]:
        """The file has what each frequency is divided by; config.json has what these follow from."""
        scaling = LLAMA3 | {"factor": float(factors.max()), "original_max_position_embeddings": LLAMA3_POSITIONS}
        exponents = np.arange(len(factors)) / len(factors)
        turns = LLAMA3_POSITIONS / (2 * math.pi) * config.get("rope_theta", 10000.0) ** -exponents
        kept = np.clip((turns - 1) / 3, 0, 1)
        if not np.allclose(factors, 1 / (kept + (1 - kept) / scaling["factor"]), rtol=1e-3):
            raise UserError(f"{self.path}: the frequencies of {FREQUENCIES} follow no rule that is known")
        return scaling


def _halves(x: np.ndarray, heads: int) -> np.ndarray:
    """Rows [heads * head_dim, ...] of which 2i and 2i + 1 rotate together -> those i and i + head_dim / 2."""
    pairs = x.reshape(heads, -1, 2, *x.shape[1:])
    return np.swapaxes(pairs, 1, 2).reshape(x.shape)


def _short(value: Any) -> Any:
    """A float32 of a file as the shortest number that rounds to it: 1e-05, not 9.999999747378752e-06."""
    return float(str(np.float32(value))) if isinstance(value, float) else value
