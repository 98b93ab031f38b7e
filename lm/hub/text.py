"""How the text of a model from elsewhere is written: its tokenizer, the tokens around a text, and its chat template."""

from collections.abc import Mapping
from pathlib import Path
from types import NoneType
from typing import Any

from lm.core.errors import UserError
from lm.core.optional import package
from lm.hub.folder import CONFIG
from lm.hub.tensors import read_json, reason
from lm.text.format import TextFormat
from lm.text.hf_tokenizer import HFTokenizer
from lm.text.tokenizers import ByteTokenizer, Tokenizer

# What generation_config.json, or an older config.json, says of decoding, besides the ids at its beginning and end. The
# first two a tokenizer may lack.
DECODING = (
    *("bos_token_id", "pad_token_id"),
    *("forced_bos_token_id", "forced_eos_token_id", "suppress_tokens", "begin_suppress_tokens", "bad_words_ids"),
    *("no_repeat_ngram_size", "encoder_no_repeat_ngram_size", "repetition_penalty", "encoder_repetition_penalty"),
    *("num_beams", "num_beam_groups", "diversity_penalty", "length_penalty", "early_stopping", "penalty_alpha"),
    *("min_length", "min_new_tokens", "max_length", "max_new_tokens", "exponential_decay_length_penalty"),
    *("do_sample", "temperature", "top_k", "top_p", "min_p", "typical_p", "epsilon_cutoff", "eta_cutoff"),
    *("sequence_bias", "renormalize_logits", "guidance_scale", "dola_layers", "watermarking_config"),
)


def read_text(folder: str | Path) -> TextFormat:
    """Of a Hugging Face folder: its tokenizer by its own files (`lm.hub.read_tokenizer`), its chat templates, and what
    config.json and generation_config.json say of the tokens at the beginning and end.

    Raises `UserError` for a folder without tokenizer, or with a damaged one."""
    folder = Path(folder).expanduser()
    config, settings = read_json(folder / CONFIG), _read(folder / "tokenizer_config.json")
    decoding = _read(folder / "generation_config.json")
    generation = config | decoding
    decoding = {name: value for name in DECODING if (value := (decoding or config).get(name)) is not None}
    decoding = {name: config[name] for name in DECODING[:2] if config.get(name) is not None} | decoding
    tokenizer = read_tokenizer(folder)
    ends = generation.get("eos_token_id")
    ends = tuple(ends) if isinstance(ends, list) else tokenizer.end if ends is None else (ends,)
    template, others = read_templates(folder, settings)
    start = generation.get("decoder_start_token_id")
    around = tokenizer.around
    if "forced_bos_token_id" not in decoding and config.get("is_encoder_decoder") is not False:
        decoding |= _target(tokenizer, settings.get("tgt_lang"), start)
    return TextFormat(tokenizer, ends, *around, start, template, generation=decoding or None, templates=others or None)


def read_tokenizer(folder: str | Path) -> HFTokenizer | ByteTokenizer:
    """The tokenizer of a Hugging Face folder, by its own files."""
    package("tokenizers", folder)
    from lm.hub import read_tokenizer  # needs that package

    return read_tokenizer.read_tokenizer(Path(folder).expanduser())


def read_templates(folder: Path, settings: Mapping[str, Any]) -> tuple[str | None, dict[str, str]]:
    """The chat template, and those that have a name of their own. Where there are files of them, tokenizer_config.json
    counts for nothing."""
    files = {path.stem: path for path in sorted((folder / "additional_chat_templates").glob("*.jinja"))}
    if (folder / "chat_template.jinja").is_file():
        files["default"] = folder / "chat_template.jinja"
    named: dict[str, Any] = {name: _content(path) for name, path in files.items()}
    found = named or settings.get("chat_template") or _read(folder / "chat_template.json").get("chat_template")
    if isinstance(found, list):
        found = {entry.get("name"): entry.get("template") for entry in found if isinstance(entry, dict)}
    if not isinstance(found, dict):
        found = {"default": found}
    for name, template in found.items():
        if not isinstance(template, (str, NoneType)):
            raise UserError(
                f"{folder}: chat template {name!r} is {type(template).__name__}, not a text: mend chat_template"
            )
    default = found.get("default", next(iter(found.values()), None))
    return default, {name: template for name, template in found.items() if name != "default"}


def _content(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as e:
        raise UserError(f"cannot read {path} ({reason(e)}): download it again") from e


def _target(tokenizer: Tokenizer, language: Any, start: int | None) -> dict[str, int]:
    """A tokenizer's target language, as M2M, NLLB and mBART-50 are told it; mBART begins with it."""
    piece = next((p for p in (language, f"__{language}__") if p in tokenizer.markers), None)
    return (
        {}
        if piece is None or start == tokenizer.piece_id(piece)
        else {"forced_bos_token_id": tokenizer.piece_id(piece)}
    )


def size_note(tokenizer: Tokenizer, rows: int) -> str | None:
    """What is to be told of a tokenizer beside a model with `rows` token rows, if anything: tokens without a row, or
    more rows than padding explains."""
    size = tokenizer.vocab_size
    if size > rows:
        return (
            f"the tokenizer has {size} tokens and the model rows for {rows}: ids from {rows} on cannot be read; it is "
            "of another model, or the model lacks rows for added tokens"
        )
    if rows > size and (rows % 8 or rows - size >= 1024):
        return (
            f"the model has rows for {rows} tokens and the tokenizer {size}: rows from {size} on are of no token; is "
            "added_tokens.json or another file of the tokenizer missing?"
        )
    return None


def _read(path: Path) -> dict[str, Any]:
    return read_json(path) if path.is_file() else {}
