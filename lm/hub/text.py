"""How the text of a model from elsewhere is written: its tokenizer, the tokens around a text, and its chat template."""

from pathlib import Path
from typing import Any, NamedTuple

from lm.core.errors import UserError
from lm.data.hf_tokenizer import HFTokenizer
from lm.data.tokenizers import SentencePieceTokenizer, Tokenizer
from lm.hub.folder import CONFIG
from lm.hub.tensors import read_json, reason

Ids = tuple[int, ...]


class Text(NamedTuple):
    """before, after: ids that stand around every text that the model reads; ends: ids any of which ends what it writes;
    start: the first id that a decoder is given; template: of a chat, in Jinja; context: the most tokens that the model
    is made to read at a time, where that is known; generation: what else generation_config.json says of decoding."""

    tokenizer: Tokenizer
    ends: Ids
    before: Ids = ()
    after: Ids = ()
    start: int | None = None
    template: str | None = None
    context: int | None = None
    generation: dict[str, Any] | None = None

    def saved(self) -> dict[str, Any]:
        """All but the tokenizer, ready for JSON."""
        return {k: v for k, v in self._asdict().items() if k != "tokenizer"}

    @classmethod
    def of(cls, tokenizer: Tokenizer, saved: dict[str, Any] | None, reads: bool = True) -> "Text":
        """What `saved` told of, or how our own runs write text: what an encoder beside a decoder `reads` ends with an
        end-of-text."""
        if saved is None:
            end = (tokenizer.eos_id,)
            return cls(tokenizer, end, (), end if reads else (), tokenizer.pad_id if reads else None)
        known = {name: saved[name] for name in cls._fields if name in saved}  # older checkpoints keep fewer
        return cls(tokenizer, **known | {name: tuple(known[name]) for name in ("ends", "before", "after")})


def read_text(folder: str | Path) -> Text:
    """Of a Hugging Face folder: tokenizer.json or a SentencePiece tokenizer.model (spiece.model), beside it
    tokenizer_config.json, chat_template.jinja, generation_config.json.

    Raises `UserError` for a folder without tokenizer, or with a damaged one."""
    folder = Path(folder).expanduser()
    config, told = read_json(folder / CONFIG), _read(folder / "tokenizer_config.json")
    generation = config | _read(folder / "generation_config.json")
    tokenizer = _tokenizer(folder)
    ends = generation.get("eos_token_id", tokenizer.eos_id)
    ends = tuple(ends) if isinstance(ends, list) else (tokenizer.eos_id if ends is None else ends,)
    if isinstance(tokenizer, HFTokenizer):
        before, after = tokenizer.around
    else:
        bos, reads = tokenizer.bos_id, bool(config.get("is_encoder_decoder"))
        before = (bos,) if bos is not None and told.get("add_bos_token", not reads) else ()
        after = (tokenizer.eos_id,) if told.get("add_eos_token", reads) else ()
    return Text(tokenizer, ends, before, after, generation.get("decoder_start_token_id"), _template(folder, told))


def _tokenizer(folder: Path) -> Tokenizer:
    if (folder / "tokenizer.json").is_file():
        return HFTokenizer.open(folder)
    for name in ("tokenizer.model", "spiece.model"):
        if (folder / name).is_file():
            return SentencePieceTokenizer(folder / name)
    raise UserError(
        f"{folder} has no tokenizer.json and no tokenizer.model: download one of them, or save_pretrained of a "
        "transformers tokenizer to that folder"
    )


def _template(folder: Path, told: dict[str, Any]) -> str | None:
    """Of several, the one called `default`."""
    path = folder / "chat_template.jinja"
    if path.is_file():
        try:
            return path.read_text(encoding="utf-8")
        except (OSError, ValueError) as e:
            raise UserError(f"cannot read {path} ({reason(e)}): download it again") from e
    found = told.get("chat_template")
    if isinstance(found, list):
        named = {entry.get("name"): entry.get("template") for entry in found}
        return named.get("default", next(iter(named.values()), None))
    return found


def _read(path: Path) -> dict[str, Any]:
    return read_json(path) if path.is_file() else {}
