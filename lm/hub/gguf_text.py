"""The tokenizer in a GGUF file's metadata: byte-level BPE as a tokenizer.json, SentencePiece as a .model file."""

from collections.abc import Mapping
from typing import Any

from lm.core.errors import UserError, nearest
from lm.core.optional import package
from lm.hub.tensors import reason
from lm.text.format import Ids, TextFormat
from lm.text.hf_tokenizer import HFTokenizer
from lm.text.tokenizers import SentencePieceTokenizer, Tokenizer

Roles = Mapping[str, int]
CONTROL, USER, KINDS = 3, 4, range(1, 7)  # of `token_type`, as SentencePiece counts
KEY = "tokenizer.ggml."
ROLES = {"bos": "bos_token_id", "eos": "eos_token_id", "unk": "unknown_token_id", "pad": "padding_token_id"}
ENDS = ("eos", "eot", "eom")  # of a text, a turn, a message
USUAL = {"bos": 1, "eos": 2, "unk": 0}  # of SentencePiece's vocabularies
TEMPLATE = "tokenizer.chat_template"

# How text is cut before pairs are merged, by `tokenizer.ggml.pre`: patterns in turn; None: GPT-2's own.
_ENDINGS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_WORDS = rf"{_ENDINGS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+"
_REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_REST_SLASH = r" ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_CASED = (rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+", rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*")
_DIGITS = (r"\p{N}", None)
_LLAMA3 = (rf"{_WORDS}|\p{{N}}{{1,3}}|{_REST}",)
_QWEN2 = (rf"{_WORDS}|\p{{N}}|{_REST}",)
PRE: dict[str, tuple[str | None, ...]] = {
    **dict.fromkeys(("default", "gpt-2", "mpt", "olmo", "jais", "phi-2", "trillion"), (None,)),
    **dict.fromkeys(("smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"), _DIGITS),
    **dict.fromkeys(("llama-bpe", "llama3", "llama-v3", "falcon3", "dbrx", "smaug-bpe"), _LLAMA3),
    **dict.fromkeys(("qwen2", "stablelm2", "megrez", "deepseek-r1-qwen", "hunyuan"), _QWEN2),
    "tekken": (rf"{_CASED[0]}|{_CASED[1]}|\p{{N}}|{_REST_SLASH}",),
    "gpt-4o": (rf"{_CASED[0]}{_ENDINGS}?|{_CASED[1]}{_ENDINGS}?|\p{{N}}{{1,3}}|{_REST_SLASH}",),
}
BEGUN = ("llama-bpe", "llama3", "llama-v3", "falcon3", "tekken")  # a begin-of-text is put first, if nothing is said
WHOLE_WORDS = BEGUN  # a word that is in the vocabulary is not put together from pairs
COMPOSED = ("qwen2",)  # Unicode's NFC first


def text_of(metadata: Mapping[str, Any], name: str) -> TextFormat:
    """Raises `UserError` for metadata that are missing, contradict one another, or are not supported."""
    kind = _needed(metadata, "model", name)
    makers = {"gpt2": _byte_pairs, "llama": _sentencepiece}
    if kind not in makers:
        raise UserError(f"{name}: a tokenizer of the kind {kind!r} is not supported{nearest(str(kind), makers)}")
    pieces = _needed(metadata, "tokens", name)
    for key in ("scores", "token_type"):
        if len(found := metadata.get(KEY + key, pieces)) != len(pieces):
            raise UserError(f"{name} has {len(found)} {KEY}{key} for {len(pieces)} tokens: download it again")
    roles = USUAL if kind == "llama" else {}
    roles = roles | {role: metadata[KEY + key] for role, key in ROLES.items() if KEY + key in metadata}
    ends = {"eos": roles.get("eos")} | {end: metadata.get(f"{KEY}{end}_token_id") for end in ENDS[1:]}
    for role, i in (roles | {role: i for role, i in ends.items() if i is not None}).items():
        if not isinstance(i, int) or not 0 <= i < len(pieces):
            raise UserError(f"{name}: {role}_token_id={i!r} is none of {len(pieces)} tokens: download it again")
    if "eos" not in roles:
        raise UserError(f"{name} has no {KEY}eos_token_id: get a file with its whole tokenizer")
    before, after = _around(metadata, roles)
    tokenizer = makers[kind](metadata, roles, (before, after), name)
    template, others = _templates(metadata)
    ids = tuple(sorted({*ends.values()} - {None}))
    return TextFormat(tokenizer, ids, before, after, template=template, templates=others or None)


def _needed(metadata: Mapping[str, Any], key: str, name: str) -> Any:
    if not metadata.get(KEY + key):
        raise UserError(f"{name} has no {KEY}{key}: get a file with its tokenizer")
    return metadata[KEY + key]


def _templates(metadata: Mapping[str, Any]) -> tuple[str | None, dict[str, str]]:
    """The chat template, and those that have a name of their own."""
    names = metadata.get(f"{TEMPLATE}s", [])
    named = {name: found for name in names if (found := metadata.get(f"{TEMPLATE}.{name}"))}
    default = named.pop("default", None) or next(iter(named.values()), None)
    return metadata.get(TEMPLATE) or default, named


def _around(metadata: Mapping[str, Any], roles: Roles) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The ids before and after a text that the model is to read."""
    bos, eos = roles.get("bos"), roles["eos"]
    usual = metadata[f"{KEY}model"] == "llama" or _pre(metadata) in BEGUN
    leads, ends = metadata.get(f"{KEY}add_bos_token", usual), metadata.get(f"{KEY}add_eos_token", False)
    return (bos,) if leads and bos is not None else (), (eos,) if ends else ()


def _pre(metadata: Mapping[str, Any]) -> str:
    return metadata.get(f"{KEY}pre", "default")


def _byte_pairs(metadata: Mapping[str, Any], roles: Roles, around: tuple[Ids, Ids], name: str) -> Tokenizer:
    t = package("tokenizers", name)
    pieces, merges = metadata[f"{KEY}tokens"], [tuple(m.split(" ")) for m in _needed(metadata, "merges", name)]
    if (pre := _pre(metadata)) not in PRE:
        raise UserError(f"{name}: the pre-tokenizer {pre!r} is not supported{nearest(pre, PRE)}")
    vocab = {piece: i for i, piece in enumerate(pieces)}
    try:
        tokenizer = t.Tokenizer(t.models.BPE(vocab, merges, ignore_merges=pre in WHOLE_WORDS))
    except Exception as e:  # the library raises this type and no other
        raise UserError(f"{name}: {KEY}merges do not fit the tokens ({reason(e)}): download it again") from e
    cuts: list[Any] = []
    for pattern in PRE[pre]:
        if pattern is not None:
            cuts.append(t.pre_tokenizers.Split(t.Regex(pattern), "isolated"))
    spaced = metadata.get(f"{KEY}add_space_prefix", False)
    cuts.append(t.pre_tokenizers.ByteLevel(add_prefix_space=spaced, use_regex=None in PRE[pre]))
    tokenizer.pre_tokenizer = t.pre_tokenizers.Sequence(cuts)
    if pre in COMPOSED:
        tokenizer.normalizer = t.normalizers.NFC()
    tokenizer.decoder = t.decoders.ByteLevel()
    types = metadata.get(f"{KEY}token_type", [1] * len(pieces))
    for kind, special in ((CONTROL, True), (USER, False)):
        added = [piece for piece, type_ in zip(pieces, types, strict=True) if type_ == kind]
        tokens = [t.AddedToken(piece, special=special, normalized=False) for piece in added]
        (tokenizer.add_special_tokens if special else tokenizer.add_tokens)(tokens)
    before, after = around
    if before or after:
        tokenizer.post_processor = t.processors.TemplateProcessing(
            single=[*(pieces[i] for i in before), "$A", *(pieces[i] for i in after)],
            special_tokens=[(pieces[i], i) for i in {*before, *after}],
        )
    return HFTokenizer(tokenizer.to_str(), {role: pieces[i] for role, i in roles.items()}, name)


def _sentencepiece(metadata: Mapping[str, Any], roles: Roles, around: tuple[Ids, Ids], name: str) -> Tokenizer:
    proto = package("sentencepiece.sentencepiece_model_pb2", name)
    model = proto.ModelProto()
    for key in ("scores", "token_type"):
        _needed(metadata, key, name)
    rows = (metadata[f"{KEY}{key}"] for key in ("tokens", "scores", "token_type"))
    for piece, score, kind in zip(*rows, strict=True):
        if kind not in KINDS:
            raise UserError(f"{name}: token {piece!r} is of the unknown kind {kind}: download it again")
        model.pieces.add(piece=piece, score=score, type=kind)
    model.trainer_spec.model_type = proto.TrainerSpec.BPE
    model.trainer_spec.byte_fallback = True
    for role in ROLES:
        setattr(model.trainer_spec, f"{role}_id", roles.get(role, -1))
        if role in roles:
            setattr(model.trainer_spec, f"{role}_piece", metadata[f"{KEY}tokens"][roles[role]])
    model.normalizer_spec.name = "identity"
    model.normalizer_spec.add_dummy_prefix = metadata.get(f"{KEY}add_space_prefix", True)
    model.normalizer_spec.remove_extra_whitespaces = False
    model.normalizer_spec.escape_whitespaces = True
    return SentencePieceTokenizer.from_bytes(model.SerializeToString(), name)
