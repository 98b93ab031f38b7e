"""A Hugging Face folder's tokenizer by its own files: tokenizer.json, or the vocabulary files of its class, and beside
them tokenizer_config.json, special_tokens_map.json and added_tokens.json, which add tokens and name those of a role."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from types import NoneType
from typing import Any

from tokenizers import AddedToken, Tokenizer, processors

from lm.core.errors import UserError, nearest
from lm.hub.folder import CONFIG
from lm.hub.model_types import MODEL_TYPES
from lm.hub.tables.format import ANY_TOKENIZER
from lm.hub.tensors import read_json, reason
from lm.hub.tokenizer_classes import ALIASES, BYTES, KINDS, WITHOUT_DIALECT, Kind
from lm.hub.vocabulary import (
    CONTROL,
    DEFINED,
    MODELS,
    Folder,
    as_it_says,
    check_ranks,
    is_ranks,
    ranks,
    sentencepiece_model,
)
from lm.text.hf_tokenizer import HFTokenizer, rules_of, tokenizer_json
from lm.text.tokenizers import ByteTokenizer

ROLES = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")  # in the order in which new ones get their ids
FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")
KNOBS = {"tokenizer_class": str, "src_lang": str, "add_bos_token": bool, "add_eos_token": bool}
NAMES = {str: "a text", bool: "true or false"}
VOCABULARIES = ("*.model", "*.spm", "*vocab*.json", "*.txt", "*.tiktoken", "tekken.json", "*.codes", "*.tokenizer")
Roles = dict[str, AddedToken | None]  # None: the folder says that there is none
Added = dict[int, AddedToken]


def read_tokenizer(folder: Path) -> HFTokenizer | ByteTokenizer:
    """Raises `UserError` for a folder without a tokenizer, with a damaged one, or with one of a class that is not
    supported."""
    config, settings = _read(folder / CONFIG), _read(folder / "tokenizer_config.json")
    if "added_tokens_decoder" not in settings:  # else the older files beside it are not read
        settings |= _read(folder / "special_tokens_map.json")
        settings["added_tokens"] = _read(folder / "added_tokens.json")
    _check(folder, settings)
    whole, name = folder / "tokenizer.json", class_name(folder, config, settings)
    kind = KINDS.get(name)
    if whole.is_file():
        return _of_json(folder, settings, kind)
    if name == BYTES:
        return ByteTokenizer(settings.get("extra_ids", 125))
    if kind is None or (name == ANY_TOKENIZER and not _has(folder, MODELS)):
        raise UserError(_unsupported(folder, name))
    if any(is_ranks(folder / file) for file in MODELS if (folder / file).is_file()):
        check_ranks(folder / MODELS[0], config, settings)
        kind = Kind(ranks)
    roles, added = _special_tokens(settings, kind)
    for role in kind.absent(Folder(folder, settings, {})):
        roles.pop(role, None)
    pieces = dict(kind.roles) | {role: token.content for role, token in roles.items() if token is not None}
    source = Folder(folder, settings, pieces)
    if kind.make is as_it_says and sentencepiece_model(source).normalizer_spec.add_dummy_prefix:
        # found in the text as it is, so that each stretch between them gets a prefix of its own
        added = {i: AddedToken(token.content, **_flags(token) | {"normalized": False}) for i, token in added.items()}
    try:
        made = kind.make(source)
    except UserError:
        raise
    except Exception as e:  # the library raises this type and no other
        raise UserError(f"{folder}: no {name} can be made of its files ({reason(e)})") from e
    _add(made, folder, added, [*_in_order(roles), *_extra(source, kind, settings)])
    language = settings.get("src_lang") or kind.language
    lead = kind.spelled.partition("{}")[0]
    if language and not (lead and language.startswith(lead)):
        language = kind.spelled.format(language)
    if around := _around(kind, settings):
        special = {role: token.content for role, token in roles.items() if token is not None}
        _surround(made, folder, around, special | ({"language": language} if language else {}))
    return HFTokenizer(made.to_str(), _contents(roles), str(folder), kind.size(source))


def _check(folder: Path, settings: Mapping[str, Any]) -> None:
    """Raise `UserError` for configs that tell of tokens in no way that is known."""
    added = {} if settings.get("added_tokens_decoder") is None else settings["added_tokens_decoder"]
    if not isinstance(added, dict):
        raise UserError(
            f"{folder}: added_tokens_decoder is {type(added).__name__}: make it an object of ids and tokens"
        )
    for i, value in added.items():
        if not str(i).isdigit() or not _is_token(value):
            raise UserError(
                f"{folder}: added_tokens_decoder has {i!r}: {value!r}: give an id and a token, with content"
            )
    for piece, i in settings.get("added_tokens", {}).items():
        if not isinstance(i, int) or i < 0:
            raise UserError(f"{folder}: added_tokens.json has {piece!r}: {i!r}: give each token an id")
    for key, kind in KNOBS.items():
        if not isinstance(value := settings.get(key), (kind, NoneType)):
            raise UserError(f"{folder}: {key} is {type(value).__name__} {value!r}: give {NAMES[kind]} or leave it out")
    for role in ROLES:
        if (value := settings.get(f"{role}_token")) is not None and not _is_token(value):
            raise UserError(f"{folder}: {role}_token is {type(value).__name__} {value!r}: give a token or null")
    for value in _listed(settings):
        if not _is_token(value):
            raise UserError(f"{folder}: {value!r} is among its special tokens: give texts")


def _is_token(value: Any) -> bool:
    flags = value.items() if isinstance(value, dict) else ()
    return isinstance(_text(value), str) and all(isinstance(flag, bool) for key, flag in flags if key in FLAGS)


def class_name(folder: Path, config: Mapping[str, Any], settings: Mapping[str, Any]) -> str:
    """Of the folder's tokenizer, as `transformers` chooses it: what the folder names, else what belongs to the model
    type. Of some model types the former is known to be wrong."""
    named = settings.get("tokenizer_class") or config.get("tokenizer_class")
    if isinstance(named, str):
        named = named.removesuffix("Fast")
        named = ALIASES.get(named, named)
    model_type = config.get("model_type")
    dialect = MODEL_TYPES.get(model_type) if isinstance(model_type, str) else None
    registered = dialect.tokenizer if dialect else WITHOUT_DIALECT.get(str(model_type))
    if not named or (dialect and dialect.tokenizer_always):
        chosen = registered or ANY_TOKENIZER
    else:
        chosen = named if registered != ANY_TOKENIZER or named not in KINDS else ANY_TOKENIZER
    if chosen == ANY_TOKENIZER and not (folder / MODELS[0]).is_file():
        before = dialect.tokenizer_before if dialect else None
        return (named if named in KINDS else None) or before or named or ANY_TOKENIZER
    return chosen


def _unsupported(folder: Path, name: str) -> str:
    there = [file.name for pattern in VOCABULARIES for file in sorted(folder.glob(pattern))]
    if not there:
        return f"{folder} has no tokenizer.json, tokenizer.model, vocab.json or vocab.txt: copy the tokenizer's files"
    if name == ANY_TOKENIZER:
        return (
            f"{folder} has no tokenizer.json, and nothing tells which class of tokenizer its {', '.join(there)} is of: "
            "put tokenizer_class into tokenizer_config.json"
        )
    return (
        f"{folder} has no tokenizer.json, and a {name} is not supported without one: copy it from an export of this "
        f"model (those to ONNX have one){nearest(name, KINDS)}"
    )


def _has(folder: Path, names: Iterable[str]) -> bool:
    return any((folder / name).is_file() for name in names)


def _of_json(folder: Path, settings: Mapping[str, Any], kind: Kind | None) -> HFTokenizer:
    """tokenizer.json as it is, and what tokenizer_config.json adds to it."""
    path = folder / "tokenizer.json"
    content = tokenizer_json(path)
    made = rules_of(content, str(path))
    roles, added = _special_tokens(settings, None)
    before = made.to_str()
    _add(made, folder, added, [*_in_order(roles), *map(_token, _listed(settings))], strict=False)
    usual = {role: piece for role, piece in (kind.roles if kind else {}).items() if made.token_to_id(piece) is not None}
    after = made.to_str()
    return HFTokenizer(content if after == before else after, usual | _contents(roles), str(path))


def _in_order(roles: Roles) -> list[AddedToken]:
    order = [*ROLES, *(role for role in roles if role not in ROLES)]
    return [token for role in order if (token := roles.get(role)) is not None]


def _contents(roles: Roles) -> dict[str, str | None]:
    return {role: None if token is None else token.content for role, token in roles.items()}


def _special_tokens(settings: Mapping[str, Any], kind: Kind | None) -> tuple[Roles, Added]:
    """The tokens of a role, and the added ones by id."""
    named = {
        key.removesuffix("_token"): value
        for key, value in settings.items()
        if key.endswith("_token") and (value is None or _is_token(value))
    }
    if isinstance(settings.get("extra_special_tokens"), dict):
        named |= {key.removesuffix("_token"): value for key, value in settings["extra_special_tokens"].items()}
    added: Added = {int(i): _token(value) for i, value in (settings.get("added_tokens_decoder") or {}).items()}
    special = {_text(value) for value in [*named.values(), *_listed(settings)]}
    for piece, i in settings.get("added_tokens", {}).items():
        added[i] = AddedToken(piece, special=piece in special, normalized=piece not in special)
    flags = {token.content: token for token in added.values()}
    roles: Roles = {role: _marked(kind, role, piece) for role, piece in kind.roles.items()} if kind else {}
    for role, value in named.items():
        if value is None:
            roles[role] = None
        elif isinstance(value, (str, dict)):
            token = flags.get(_text(value)) or (_marked(kind, role, value) if isinstance(value, str) else _token(value))
            roles[role] = token
    of_a_role = {token.content for token in roles.values() if token is not None}
    for token in filter(None, [*roles.values(), *added.values()]):
        token.special = token.special or token.content in of_a_role
    return roles, added


def _marked(kind: Kind | None, role: str, piece: str) -> AddedToken:
    return AddedToken(
        piece, **({"special": True, "normalized": False} | dict(kind.marks.get(role, {}) if kind else {}))
    )


def _token(value: Any) -> AddedToken:
    if isinstance(value, str):
        return AddedToken(value, special=True, normalized=False)
    flags = {key: flag for key, flag in value.items() if key in FLAGS}
    return AddedToken(value["content"], **flags)


def _flags(token: AddedToken) -> dict[str, bool]:
    return {name: getattr(token, name) for name in FLAGS}


def _text(value: Any) -> Any:
    return value.get("content") if isinstance(value, dict) else value


def _listed(settings: Mapping[str, Any]) -> list[Any]:
    """Special tokens without a role."""
    lists = (settings.get(key) for key in ("extra_special_tokens", "additional_special_tokens"))
    return next((found for found in lists if isinstance(found, list) and found), [])


def _extra(source: Folder, kind: Kind, settings: Mapping[str, Any]) -> list[AddedToken]:
    """Special tokens without a role: those of the class, of a SentencePiece model, and of the config."""
    found = [AddedToken(piece, special=True, normalized=False) for piece in kind.extra(source)]
    found += [AddedToken(piece, special=False, normalized=False) for piece in kind.plain(source)]
    if _has(source.path, MODELS) and kind.make is not ranks:
        own = (CONTROL,) if kind.make is as_it_says else (CONTROL, DEFINED)
        for piece in sentencepiece_model(source).pieces:
            if piece.type in own:
                special = piece.type == CONTROL or piece.piece in source.roles.values()
                found.append(AddedToken(piece.piece, special=special, normalized=False))
    return found + [_token(value) for value in _listed(settings)]


def _add(made: Tokenizer, folder: Path, added: Added, more: Iterable[AddedToken], strict: bool = True) -> None:
    """Add tokens: those that have an id to it, then those that are not there yet."""
    for i, token in sorted(added.items()):
        at, size = made.token_to_id(token.content), made.get_vocab_size(with_added_tokens=True)
        if at is None and i > size:  # ids that nothing is said of
            made.add_tokens([AddedToken(f"<|unused_{j}|>", normalized=False) for j in range(size, i)])
        elif strict and (at if at is not None else size) != i:
            is_ = f"the vocabulary has it as {at}" if at is not None else f"the next that is free is {size}"
            raise UserError(f"{folder}: added token {token.content!r} has the id {i}, but {is_}: mend its config files")
        made.add_tokens([token])
    known = {token.content for token in made.get_added_tokens_decoder().values()}
    made.add_tokens([token for token in more if token.content not in known])


def _around(kind: Kind, settings: Mapping[str, Any]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    if kind.around is not None:
        return kind.around
    return (("bos",) if settings.get("add_bos_token") else ()), (("eos",) if settings.get("add_eos_token") else ())


def _surround(
    made: Tokenizer, folder: Path, around: tuple[tuple[str, ...], tuple[str, ...]], pieces: Mapping[str, str]
) -> None:
    before, after = ([pieces[role] for role in side if role in pieces] for side in around)
    ids = {piece: made.token_to_id(piece) for piece in {*before, *after}}
    for piece, i in ids.items():
        if i is None:
            raise UserError(
                f"{folder}: {piece!r} stands around each text and is not in the vocabulary: put it into "
                "additional_special_tokens of tokenizer_config.json"
            )
    if ids:
        made.post_processor = processors.TemplateProcessing(
            single=[*before, "$A", *after], special_tokens=list(ids.items())
        )


def _read(path: Path) -> dict[str, Any]:
    return read_json(path) if path.is_file() else {}
