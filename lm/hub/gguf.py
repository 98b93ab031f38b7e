"""GGUF files (llama.cpp): metadata, tensors and tokenizer of one file, presented like those of a Hugging Face folder.

Weights are dequantised to float32 by the package gguf. What a file computes stands under its architecture's name: each
of these keys is read, known to change nothing where it has that value (`says_nothing`), or refused by name. All other
keys (`general.`, `tokenizer.`, `split.`, `quantize.` ...) tell of the file."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lm.core.errors import UserError, nearest
from lm.hub.gguf_file import InGGUF, open_gguf
from lm.hub.gguf_tables import ARCHITECTURES, FRACTIONS, WIDTHS, Values, says_nothing
from lm.hub.gguf_text import text_of
from lm.hub.tensors import Stored
from lm.text.format import TextFormat

FREQUENCIES = "rope_freqs.weight"
LLAMA3 = {"rope_type": "llama3", "low_freq_factor": 1.0, "high_freq_factor": 4.0}
LLAMA3_POSITIONS = 8192
SCALINGS = ("none", "linear", "yarn")


class GGUF:
    """An open file. Raises `UserError` where the package gguf is missing, and for a file that is no GGUF, damaged, or
    of an architecture that is not supported."""

    def __init__(self, path: str | Path) -> None:
        self.path = path = Path(path).expanduser()
        self.metadata, self._tensors = open_gguf(path)
        if (what := self.metadata.get("general.type", "model")) != "model":
            raise UserError(f"{path} holds no model, but {what!r}: give the file of a model")
        self.kind = self.metadata.get("general.architecture")
        if self.kind not in ARCHITECTURES:
            raise UserError(
                f"{path}: architecture {self.kind!r} is not supported{nearest(str(self.kind), ARCHITECTURES)}"
            )
        self.architecture = ARCHITECTURES[self.kind]
        own = {k: v for k, v in self.metadata.items() if k.startswith(f"{self.kind}.")}
        self._own = {k.removeprefix(f"{self.kind}."): self._single(k, v) for k, v in own.items()}
        for name in self.architecture.needed:
            if name not in self._own:
                raise UserError(f"{path}: the metadata {self.kind}.{name} are missing: download it again")

    def config(self) -> dict[str, Any]:
        """The config.json that these metadata stand for. Raises `UserError` for a key that is not known: nothing that
        would change the outputs is passed over."""
        config: dict[str, Any] = {"model_type": self.architecture.model_type}
        fields, width, unread = self.architecture.fields, self._width(), dict(self._own)
        if "rope.freq_base" in fields:
            config |= {"rope_theta": 10000.0, "num_key_value_heads": self._own["attention.head_count"]}
        config |= {fields[name]: self._number(name, unread.pop(name)) for name in fields if name in self._own}
        if "attention.key_length" in fields:
            config["head_dim"] = width
            if scaling := self._scaling(unread, config):
                config["rope_scaling"] = scaling
        for name, value in unread.items():
            if not says_nothing(name, value, self._own, width):
                only = f", only {width}" if name in WIDTHS else nearest(name, fields)
                raise UserError(f"{self.path}: the metadata {self.kind}.{name}={value!r} is not supported{only}")
        config["vocab_size"] = self._tensor("token_embd.weight").shape[0]
        config["tie_word_embeddings"] = "output.weight" not in self._tensors
        return config | {field: True for name, field in self.architecture.biases if name in self._tensors}

    def tensors(self) -> dict[str, Stored]:
        """By their names in a Hugging Face folder. Raises `UserError` for one that has none: GGUF files carry nothing
        that no output depends on."""
        found: dict[str, Stored] = {}
        for name, tensor in self._tensors.items():
            if name != FREQUENCIES:
                there = self._there(name)
                found[there] = tensor._replace(name=there, turn=self._turn(name))
        return found

    def text(self) -> TextFormat:
        return text_of(self.metadata, str(self.path))

    def _tensor(self, name: str) -> InGGUF:
        if name not in self._tensors:
            raise UserError(f"{self.path}: tensor {name!r} is missing: download the file again")
        return self._tensors[name]

    def _single(self, name: str, value: Any) -> Any:
        """One value for all layers, where a file has one for each."""
        if not isinstance(value, list):
            return value
        if len({str(v) for v in value}) > 1:
            raise UserError(f"{self.path}: {name} differs between layers, which is not supported")
        return value[0] if value else 0

    def _number(self, name: str, value: Any) -> Any:
        """A float32 of a file as the shortest number that rounds to it: 1e-05, not 9.999999747378752e-06."""
        whole = not name.endswith(FRACTIONS)
        if isinstance(value, bool) or not isinstance(value, int if whole else int | float) or value <= 0:
            raise UserError(
                f"{self.path}: the metadata {self.kind}.{name}={value!r} is no positive number: download it again"
            )
        return float(str(np.float32(value))) if isinstance(value, float) else value

    def _there(self, name: str) -> str:
        stem, _, leaf = name.rpartition(".")
        parts = stem.split(".")
        layer = parts[1] if parts[0] == "blk" and len(parts) > 2 else None
        pattern = ".".join(["blk", "{layer}", *parts[2:]]) if layer else stem
        there = self.architecture.names.get(pattern)
        if not there:
            raise UserError(
                f"tensor {name!r} of {self.path.name} is unknown to a {self.kind} model: it is not supported"
            )
        return f"{there.replace('{layer}', layer or '')}.{leaf}"

    def _turn(self, name: str) -> Values:
        for part, heads in (("attn_q.", "attention.head_count"), ("attn_k.", "attention.head_count_kv")):
            if self.architecture.pairs and part in name:
                count = self._own.get(heads, self._own["attention.head_count"])
                return lambda x: _halves(x, count)
        return next((turn for end, turn in self.architecture.values if name.endswith(end)), lambda x: x)

    def _width(self) -> int:
        """head_dim."""
        d, heads = (self._number(name, self._own[name]) for name in ("embedding_length", "attention.head_count"))
        return self._number("attention.key_length", self._own.get("attention.key_length", d // heads))

    def _scaling(self, unread: dict[str, Any], config: Mapping[str, Any]) -> dict[str, Any] | None:
        """What stretches the rotary frequencies, as config.json tells it. Takes what it reads out of `unread`."""
        start = "rope.scaling."
        factor = unread.pop(f"{start}factor", 0) or unread.pop("rope.scale_linear", 0)  # its first name
        kind = unread.pop(f"{start}type", "linear" if factor else "none")
        original = unread.pop(f"{start}original_context_length", None)
        factor = self._number(f"{start}factor", factor) if factor else 1.0
        if kind not in SCALINGS:
            raise UserError(f"{self.path}: rope.scaling {kind!r} is not supported, only linear and yarn")
        if kind == "linear" and factor == 1:
            kind = "none"
        if FREQUENCIES in self._tensors:
            if kind != "none":
                raise UserError(f"{self.path}: rope.scaling {kind!r} together with {FREQUENCIES} is not supported")
            return self._by_factors(config, self._tensors[FREQUENCIES].read())
        if kind == "none":
            return None
        scaling = {"rope_type": kind, "factor": float(factor)}
        if kind == "yarn":
            scaling |= {"original_max_position_embeddings": original} if original else {}
            for name in ("beta_fast", "beta_slow"):
                if value := unread.pop(f"{start}yarn_{name}", None):
                    scaling[name] = self._number(f"{start}yarn_{name}", value)
        return scaling

    def _by_factors(self, config: Mapping[str, Any], factors: np.ndarray) -> dict[str, Any] | None:
        """The file has what each frequency is divided by. Where that follows Llama 3's rule it is told so."""
        half = config["head_dim"] // 2
        if factors.shape != (half,) or not (np.isfinite(factors).all() and (factors > 0).all()):
            raise UserError(f"{self.path}: {FREQUENCIES} are not {half} divisors of frequencies: download it again")
        if (factors == 1).all():
            return None
        scaling = LLAMA3 | {"factor": float(factors.max()), "original_max_position_embeddings": LLAMA3_POSITIONS}
        turns = LLAMA3_POSITIONS / (2 * math.pi) * config["rope_theta"] ** -(np.arange(half) / half)
        kept = np.clip((turns - 1) / 3, 0, 1)
        if np.allclose(factors, 1 / (kept + (1 - kept) / scaling["factor"]), rtol=1e-5):
            return scaling
        given = [float(f) for f in factors]
        scaling = {"rope_type": "longrope", "short_factor": given, "long_factor": given, "attention_factor": 1.0}
        return scaling | {"original_max_position_embeddings": config.get("max_position_embeddings", LLAMA3_POSITIONS)}


def _halves(x: np.ndarray, heads: int) -> np.ndarray:
    """Rows [heads * head_dim, ...] of which 2i and 2i + 1 rotate together -> those i and i + head_dim / 2."""
    pairs = x.reshape(heads, -1, 2, *x.shape[1:])
    return np.swapaxes(pairs, 1, 2).reshape(x.shape)
