"""Any tokenizer of ours as a tokenizer.json (the package `tokenizers`): the same ids, the same text.

Spaces are plain spaces in the pieces, where SentencePiece writes U+2581: so that one in a text stays what it is. Pieces
that no text may become (special tokens, bytes) are so unlikely that no reading of a text chooses them."""

import re
from typing import Any

from lm.core.errors import UserError
from lm.core.optional import package
from lm.text.format import Ids
from lm.text.hf_tokenizer import HFTokenizer
from lm.text.tokenizers import SPACE, ByteTokenizer, SentencePieceTokenizer, Tokenizer

NORMAL, UNKNOWN, CONTROL, DEFINED, BYTE = 1, 2, 3, 4, 6  # kinds of pieces of a SentencePiece model
UNIGRAM, BPE = 1, 2  # its kinds of vocabularies
NEVER = -1e9  # the score of a piece that no text becomes


def to_tokenizer_json(tokenizer: Tokenizer, before: Ids, after: Ids) -> str:
    """With these ids around each text that a model reads. Raises `UserError` for a SentencePiece model of words or
    characters, and where a package is missing."""
    t = package("tokenizers", "tokenizer.json")
    if isinstance(tokenizer, HFTokenizer):
        if tokenizer.around == (before, after):
            return tokenizer.content
        made = t.Tokenizer.from_str(tokenizer.content)
    elif isinstance(tokenizer, SentencePieceTokenizer):
        made = _sentencepiece(t, tokenizer)
    else:
        assert isinstance(tokenizer, ByteTokenizer)
        made = _bytes(t, tokenizer)
    made.post_processor = _around(t, made, before, after)
    return made.to_str(pretty=False)


def _around(t: Any, made: Any, before: Ids, after: Ids) -> Any:
    """A pair of texts is one after the other, the second with token type 1."""
    first, last = ([made.id_to_token(i) for i in ids] for ids in (before, after))
    single = [*first, "$A", *last]
    pair = [*single, "$B:1", *(f"{piece}:1" for piece in last)]
    special = [(made.id_to_token(i), i) for i in dict.fromkeys((*before, *after))]
    return t.processors.TemplateProcessing(single=single, pair=pair, special_tokens=special)


def _bytes(t: Any, tokenizer: ByteTokenizer) -> Any:
    """A piece for each byte, as GPT-2's alphabet writes it."""
    alphabet = _byte_alphabet()
    special = {"<pad>": tokenizer.pad_id, "</s>": tokenizer.eos_id, "<unk>": tokenizer.unk_id}
    special |= {f"<extra_id_{i}>": tokenizer.sentinel(i) for i in range(tokenizer.sentinels)}
    special |= {piece: tokenizer.piece_id(piece) for piece in tokenizer.added}
    vocab = special | {alphabet[b]: tokenizer.first_byte + b for b in range(256)}
    made = t.Tokenizer(t.models.BPE(vocab, []))
    made.pre_tokenizer = t.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    made.decoder = t.decoders.ByteLevel()
    made.add_special_tokens([t.AddedToken(piece, special=True, normalized=False) for piece in special])
    return made


def _byte_alphabet() -> list[str]:
    """The characters that stand for bytes: those that can be seen for themselves, the others from U+0100 on."""
    seen = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return [chr(b if b in seen else next(others)) for b in range(256)]


def _sentencepiece(t: Any, tokenizer: SentencePieceTokenizer) -> Any:
    proto = package("sentencepiece.sentencepiece_model_pb2", tokenizer.name).ModelProto.FromString(tokenizer.model)
    spec, rules = proto.trainer_spec, proto.normalizer_spec
    kinds = [p.type for p in proto.pieces]
    pieces = [p.piece if p.type in (UNKNOWN, CONTROL, BYTE) else p.piece.replace(SPACE, " ") for p in proto.pieces]
    if spec.model_type == UNIGRAM:
        scores = [p.score if p.type in (NORMAL, DEFINED) else NEVER for p in proto.pieces]
        model = t.models.Unigram(list(zip(pieces, scores, strict=True)), spec.unk_id, spec.byte_fallback)
    elif spec.model_type == BPE:
        likely = {piece: p.score for piece, p in zip(pieces, proto.pieces, strict=True) if p.type in (NORMAL, DEFINED)}
        vocab = {piece: i for i, piece in enumerate(pieces)}
        unk = pieces[spec.unk_id]
        model = t.models.BPE(vocab, _merges(likely), unk_token=unk, fuse_unk=True, byte_fallback=spec.byte_fallback)
    else:
        raise UserError(f"{tokenizer.name}: a SentencePiece model of words or characters has no tokenizer.json")
    made = t.Tokenizer(model)
    made.normalizer = t.normalizers.Sequence(_rules(t, rules, spec.byte_fallback and not rules.add_dummy_prefix))
    prefix = [t.decoders.Strip(" ", 1, 0)] if rules.add_dummy_prefix else []
    made.decoder = t.decoders.Sequence([t.decoders.ByteFallback(), t.decoders.Fuse(), *prefix])
    unseen = set("<0x123456789ABCDEF>") - {c for piece in _texts(pieces, kinds) for c in piece}
    if spec.model_type == UNIGRAM and spec.byte_fallback and unseen:
        # A text that spells a byte's piece, with characters that are spelled in bytes themselves: nothing spans them.
        either = "[" + "".join(map(re.escape, sorted(unseen))) + "]"
        made.pre_tokenizer = t.pre_tokenizers.Split(t.Regex(either), "isolated")
    for special, of in ((True, (UNKNOWN, CONTROL)), (False, (DEFINED,))):
        added = [
            t.AddedToken(piece, special=special, normalized=False)
            for piece, kind in zip(pieces, kinds, strict=True)
            if kind in of
        ]
        (made.add_special_tokens if special else made.add_tokens)(added)
    return made


def _texts(pieces: list[str], kinds: list[int]) -> list[str]:
    """The pieces that text becomes."""
    return [piece for piece, kind in zip(pieces, kinds, strict=True) if kind in (NORMAL, DEFINED)]


def _rules(t: Any, rules: Any, lossless: bool) -> list[Any]:
    n = t.normalizers
    found = [n.Precompiled(rules.precompiled_charsmap)] if rules.precompiled_charsmap else []
    if not lossless:  # else U+2581 is spelled in bytes
        found.append(n.Replace(SPACE, " "))
    if rules.remove_extra_whitespaces:
        found += [n.Replace(t.Regex(r"\A +| +\z"), ""), n.Replace(t.Regex(" {2,}"), " ")]
    if rules.add_dummy_prefix:
        found.append(n.Prepend(" "))
    return found


def _merges(likely: dict[str, float]) -> list[tuple[str, str]]:
    """Pairs of pieces that make a piece, those that make the likeliest first. Of the pairs that make the same piece,
    SentencePiece takes that which stands first in a text, of which a list of merges knows nothing."""
    found = []
    for piece, score in likely.items():
        halves = ((piece[:i], piece[i:]) for i in range(1, len(piece)))
        found += [(-score, i, pair) for i, pair in enumerate(halves) if pair[0] in likely and pair[1] in likely]
    return [pair for _, _, pair in sorted(found)]
