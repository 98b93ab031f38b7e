"""How text is written, as files that transformers reads: tokenizer.json, tokenizer_config.json, generation_config.json,
chat_template.jinja, and the SentencePiece model where there is one."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lm.hub.model_types import MODEL_TYPES
from lm.hub.tables.format import ANY_TOKENIZER
from lm.hub.tokenizer_json import to_tokenizer_json
from lm.text.format import TextFormat
from lm.text.hf_tokenizer import HFTokenizer, rules_of
from lm.text.tokenizers import SentencePieceTokenizer, Tokenizer


def special_ids(text: TextFormat, decoder: bool) -> dict[str, int | list[int] | None]:
    """For config.json and generation_config.json; None where there is none, lest the class's defaults count.
    `decoder`: whether there is one beside an encoder."""
    roles, ends, generation = _roles(text.tokenizer), list(text.ends), text.generation or {}
    ids: dict[str, int | list[int] | None] = {
        "bos_token_id": generation.get("bos_token_id", roles["bos"]),
        "eos_token_id": ends[0] if len(ends) == 1 else ends or None,
        "pad_token_id": generation.get("pad_token_id", roles["pad"]),
    }
    return ids | ({"decoder_start_token_id": text.start} if decoder else {})


def _roles(tokenizer: Tokenizer) -> dict[str, int | None]:
    """Ids of the usual special tokens, without those that stand in for one that is not there."""
    eos, unk, pad = tokenizer.eos_id, tokenizer.unk_id, tokenizer.pad_id
    ends = tokenizer.end if isinstance(tokenizer, HFTokenizer) else (eos,)
    return {
        "bos": tokenizer.bos_id,
        "eos": eos if ends else None,
        "unk": unk if unk != eos or "unk" in tokenizer.special else None,
        "pad": pad if pad not in (eos, unk) or "pad" in tokenizer.special else None,
    }


def write_text(folder: Path, text: TextFormat, config: Mapping[str, Any]) -> None:
    """The files beside this config.json. Raises OSError, and `UserError` for a tokenizer that has no such form."""
    decoder = bool(config.get("is_encoder_decoder")) or "decoder_start_token_id" in config
    tokenizer = text.tokenizer
    content = to_tokenizer_json(tokenizer, text.before, text.after)
    (folder / "tokenizer.json").write_text(content, encoding="utf-8")
    if isinstance(tokenizer, SentencePieceTokenizer):
        (folder / "tokenizer.model").write_bytes(tokenizer.model)
    _write(folder / "tokenizer_config.json", _tokenizer_config(text, config, content))
    _write(folder / "generation_config.json", {**(text.generation or {}), **special_ids(text, decoder)})
    for name, template in (text.templates or {}).items():
        (folder / "additional_chat_templates").mkdir(exist_ok=True)
        (folder / "additional_chat_templates" / f"{name}.jinja").write_text(template, encoding="utf-8")
    if text.template:
        (folder / "chat_template.jinja").write_text(text.template, encoding="utf-8")


def _tokenizer_config(text: TextFormat, config: Mapping[str, Any], content: str) -> dict[str, Any]:
    made = rules_of(content, "tokenizer.json")
    roles = {role: None if i is None else made.id_to_token(i) for role, i in _roles(text.tokenizer).items()}
    roles |= text.tokenizer.special
    types = ["token_type_ids"] if (config.get("type_vocab_size") or 0) > 1 else []
    found: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        **{f"{role}_token": piece for role, piece in roles.items()},
        "clean_up_tokenization_spaces": False,
        "model_input_names": ["input_ids", *types, "attention_mask"],
    }
    if text.context:
        found["model_max_length"] = text.context
    dialect = MODEL_TYPES.get(str(config.get("model_type")))
    own = dialect is not None and dialect.tokenizer_always and dialect.tokenizer != ANY_TOKENIZER
    if own and '"NFC"' not in content:
        found["auto_map"] = []  # with which transformers takes the class that is named
    return found


def _write(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
