"""The tokenizer in a GGUF file's metadata: byte-level BPE as a tokenizer.json, SentencePiece as a .model file."""

from collections.abc import Mapping
from typing import Any

from lm.core.errors import UserError, nearest
from lm.data.hf_tokenizer import HFTokenizer
from lm.data.tokenizers import SentencePieceTokenizer, Tokenizer
from lm.hub.tensors import package
from lm.hub.text import Text

CONTROL, USER = 3, 4  # of `token_type`, as SentencePiece counts
KEY = "tokenizer.ggml."
ROLES = {"bos": "bos_token_id", "eos": "eos_token_id", "unk": "unknown_token_id", "pad": "padding_token_id"}

# How text is cut before pairs are merged, by `tokenizer.ggml.pre`: patterns in turn; None: GPT-2's own.
_WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+"
_REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
PRE: dict[str, tuple[str | None, ...]] = {
    "default": (None,),
    "gpt-2": (None,),
    "smollm": (r"\p{N}", None),
    "starcoder": (r"\p{N}", None),
    "llama-bpe": (rf"{_WORDS}|\p{{N}}{{1,3}}|{_REST}",),
    "qwen2": (rf"{_WORDS}|\p{{N}}|{_REST}",),
}
WHOLE_WORDS = ("llama-bpe",)  # a word that is in the vocabulary is not put together from pairs
COMPOSED = ("qwen2",)  # Unicode's NFC first


def text_of(metadata: Mapping[str, Any], name: str) -> Text:
    """KeyError for metadata that are missing."""
    kind = metadata[f"{KEY}model"]
    makers = {"gpt2": _byte_pairs, "llama": _sentencepiece}
    if kind not in makers:
        raise UserError(f"{name}: a tokenizer of the kind {kind!r} is not supported{nearest(str(kind), makers)}")
    tokenizer = makers[kind](metadata, name)
    ends = {metadata[f"{KEY}eos_token_id"], metadata.get(f"{KEY}eot_token_id", metadata[f"{KEY}eos_token_id"])}
    before, after = _around(metadata)
    return Text(tokenizer, tuple(sorted(ends)), before, after, template=metadata.get("tokenizer.chat_template"))


def _around(metadata: Mapping[str, Any]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The ids before and after a text that the model is to read."""
    bos, eos = (metadata.get(f"{KEY}{role}_token_id") for role in ("bos", "eos"))
    usual = metadata[f"{KEY}model"] == "llama" or _pre(metadata) == "llama-bpe"
    leads, ends = metadata.get(f"{KEY}add_bos_token", usual), metadata.get(f"{KEY}add_eos_token", False)
    return (bos,) if leads and bos is not None else (), (eos,) if ends and eos is not None else ()


def _pre(metadata: Mapping[str, Any]) -> str:
    return metadata.get(f"{KEY}pre", "default")


def _byte_pairs(metadata: Mapping[str, Any], name: str) -> Tokenizer:
    t = package("tokenizers", name)
    pieces, types = metadata[f"{KEY}tokens"], metadata[f"{KEY}token_type"]
    if (pre := _pre(metadata)) not in PRE:
        raise UserError(f"{name}: the pre-tokenizer {pre!r} is not supported{nearest(pre, PRE)}")
    vocab = {piece: i for i, piece in enumerate(pieces)}
    merges = [tuple(merge.split(" ")) for merge in metadata[f"{KEY}merges"]]
    tokenizer = t.Tokenizer(t.models.BPE(vocab, merges, ignore_merges=pre in WHOLE_WORDS))
    cuts: list[Any] = []
    for pattern in PRE[pre]:
        if pattern is not None:
            cuts.append(t.pre_tokenizers.Split(t.Regex(pattern), "isolated"))
    cuts.append(t.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=None in PRE[pre]))
    tokenizer.pre_tokenizer = t.pre_tokenizers.Sequence(cuts)
    if pre in COMPOSED:
        tokenizer.normalizer = t.normalizers.NFC()
    tokenizer.decoder = t.decoders.ByteLevel()
    for kind, special in ((CONTROL, True), (USER, False)):
        added = [piece for piece, type_ in zip(pieces, types, strict=True) if type_ == kind]
        tokens = [t.AddedToken(piece, special=special, normalized=False) for piece in added]
        (tokenizer.add_special_tokens if special else tokenizer.add_tokens)(tokens)
    before, after = _around(metadata)
    if before or after:
        tokenizer.post_processor = t.processors.TemplateProcessing(
            single=[*(pieces[i] for i in before), "$A", *(pieces[i] for i in after)],
            special_tokens=[(pieces[i], i) for i in {*before, *after}],
        )
    roles = {role: pieces[metadata[KEY + key]] for role, key in ROLES.items() if KEY + key in metadata}
    return HFTokenizer(tokenizer.to_str(), roles, name)


def _sentencepiece(metadata: Mapping[str, Any], name: str) -> Tokenizer:
    proto = package("sentencepiece.sentencepiece_model_pb2", name)
    model = proto.ModelProto()
    rows = (metadata[f"{KEY}{key}"] for key in ("tokens", "scores", "token_type"))
    for piece, score, kind in zip(*rows, strict=True):
        model.pieces.add(piece=piece, score=score, type=kind)
    model.trainer_spec.model_type = proto.TrainerSpec.BPE
    model.trainer_spec.byte_fallback = True
    for role, key in ROLES.items():
        setattr(model.trainer_spec, f"{role}_id", metadata.get(KEY + key, -1))
        if KEY + key in metadata:
            setattr(model.trainer_spec, f"{role}_piece", metadata[f"{KEY}tokens"][metadata[KEY + key]])
    model.normalizer_spec.name = "identity"
    model.normalizer_spec.add_dummy_prefix = metadata.get(f"{KEY}add_space_prefix", True)
    model.normalizer_spec.remove_extra_whitespaces = False
    model.normalizer_spec.escape_whitespaces = True
    return SentencePieceTokenizer.from_bytes(model.SerializeToString(), name)
