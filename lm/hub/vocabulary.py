"""The tokenizer of a Hugging Face folder that has vocabulary files and no tokenizer.json, as `transformers` 5 makes it.

Which files, which rules and which special tokens are a matter of the tokenizer's class, named in tokenizer_config.json
or known by the model type (`lm.hub.tokenizer_classes`); what the folder's configs say counts for more.
"""

import base64
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from lm.core.errors import UserError
from lm.core.optional import package
from lm.hub.tensors import read_json, reason

SPACE = "\u2581"
MODELS = ("tokenizer.model", "spiece.model", "sentencepiece.bpe.model", "spm.model")
RANK = re.compile(rb"[A-Za-z0-9+/]+={0,2} \d+\s")  # a line of tiktoken's
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# The characters that stand for bytes: themselves where they can be seen, else those from U+0100 on.
_SEEN = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
_UNSEEN = [byte for byte in range(256) if byte not in _SEEN]
BYTES = {byte: chr(byte) for byte in _SEEN} | {byte: chr(0x100 + i) for i, byte in enumerate(_UNSEEN)}
NEVER = -1000.0  # the score of a piece that is not the model's own
CODE_LANGUAGES = ("java", "python", "en_XX", "javascript", "php", "ruby", "go")
NORMAL, CONTROL, DEFINED = 1, 3, 4  # kinds of pieces of a SentencePiece model
UNIGRAM, BPE = 1, 2  # its kinds of vocabularies


class Folder(NamedTuple):
    """What a tokenizer is made of: the folder, what its configs tell of it, and the special tokens by role."""

    path: Path
    settings: Mapping[str, Any]
    roles: Mapping[str, str]

    def knob(self, name: str, default: Any) -> Any:
        value = self.settings.get(name)
        return default if value is None else value

    def file(self, *names: str) -> Path:
        """The first of these that is there. Raises `UserError` if none is."""
        found = next((self.path / name for name in names if (self.path / name).is_file()), None)
        if found is None:
            raise UserError(
                f"{self.path} has no tokenizer.json and no {' or '.join(names)}: copy the tokenizer's files"
            )
        return found


def is_ranks(path: Path) -> bool:
    """Whether a file is tiktoken's."""
    with path.open("rb") as file:
        return RANK.match(file.read(1000)) is not None


Make = Callable[[Folder], Tokenizer]


def word_pieces(folder: Folder) -> Tokenizer:
    """BERT's: vocab.txt, a piece a line."""
    vocab = models.WordPiece.read_file(str(folder.file("vocab.txt", "prophetnet.tokenizer")))
    made = Tokenizer(models.WordPiece(vocab, unk_token=folder.roles["unk"]))
    made.normalizer = normalizers.BertNormalizer(
        clean_text=True,
        handle_chinese_chars=folder.knob("tokenize_chinese_chars", True),
        strip_accents=folder.settings.get("strip_accents"),
        lowercase=folder.knob("do_lower_case", True),
    )
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.decoder = decoders.WordPiece()
    return made


def words_bpe(folder: Folder) -> Tokenizer:
    """GPT-1's: pieces within words, whose ends are marked."""
    vocab, merges = _vocab_and_merges(folder)
    made = Tokenizer(models.BPE(vocab, merges, unk_token=folder.roles["unk"], end_of_word_suffix="</w>"))
    made.normalizer = normalizers.BertNormalizer()
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.decoder = decoders.BPEDecoder()
    return made


@dataclass(frozen=True)
class BytesBPE:
    """GPT-2's: pieces of bytes, each written as a character; `pattern` splits the text otherwise than GPT-2 does."""

    pattern: str | None = None
    compose: bool = False  # Unicode's NFC first
    prefix_space: bool = False  # unless the folder says

    def __call__(self, folder: Folder) -> Tokenizer:
        made = Tokenizer(models.BPE(*_vocab_and_merges(folder)))
        made.normalizer = normalizers.NFC() if self.compose else None
        space = folder.knob("add_prefix_space", self.prefix_space)
        made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=space, use_regex=self.pattern is None)
        if self.pattern:
            split = pre_tokenizers.Split(Regex(self.pattern), behavior="isolated")
            made.pre_tokenizer = pre_tokenizers.Sequence([split, made.pre_tokenizer])
        made.decoder = decoders.ByteLevel()
        return made


def _vocab_and_merges(folder: Folder) -> tuple[dict[str, int], list[tuple[str, str]]]:
    vocab, merges = folder.file("vocab.json"), folder.file("merges.txt")
    try:
        return models.BPE.read_file(str(vocab), str(merges))
    except Exception as e:  # the library raises this type and no other
        raise UserError(f"{vocab} and {merges.name} are no vocabulary ({reason(e)}): copy them anew") from e


@dataclass(frozen=True)
class Pieces:
    """A SentencePiece unigram model with other ids and rules around it than its own.

    order: from its (piece, score) pairs to those of the tokenizer; unk: the id of the unknown piece, if it is not the
    model's; rules: normalizers, given the one of the model if it has one; whole: whether text is not split at white
    space first, so that spaces count."""

    order: Callable[[Folder, list[tuple[str, float]]], list[tuple[str, float]]] = lambda folder, pieces: pieces
    unk: int | None = None
    rules: Callable[[Folder, list[Any]], list[Any]] = lambda folder, own: own
    whole: bool = False
    split: Callable[[Folder], list[Any]] = lambda folder: []

    def __call__(self, folder: Folder) -> Tokenizer:
        model = sentencepiece_model(folder)
        if model.trainer_spec.model_type != UNIGRAM:
            raise UserError(
                f"{folder.path}: its SentencePiece model is no unigram model, as this class of tokenizer has"
            )
        vocab = self.order(folder, [(p.piece, p.score) for p in model.pieces])
        unk = model.trainer_spec.unk_id if self.unk is None else self.unk
        if self.unk is None:  # wherever it is now
            unk = next((i for i, (piece, _) in enumerate(vocab) if piece == folder.roles["unk"]), unk)
        made = Tokenizer(models.Unigram(vocab, unk, byte_fallback=False))
        chars = model.normalizer_spec.precompiled_charsmap
        own = [normalizers.Precompiled(chars)] if chars else []
        rules = self.rules(folder, own)
        made.normalizer = normalizers.Sequence(rules) if rules else None
        scheme = "always" if folder.knob("add_prefix_space", True) else "never"
        space = pre_tokenizers.Metaspace(replacement=SPACE, prepend_scheme=scheme)
        before = self.split(folder) + ([] if self.whole else [pre_tokenizers.WhitespaceSplit()])
        made.pre_tokenizer = pre_tokenizers.Sequence([*before, space])
        made.decoder = decoders.Metaspace(replacement=SPACE, prepend_scheme=scheme)
        return made


def llama(folder: Folder) -> Tokenizer:
    """BPE with bytes for what has no piece. `legacy` puts a space before each stretch of text between special tokens,
    else it stands before the first alone."""
    vocab, merges = _pieces_and_merges(sentencepiece_model(folder))
    made = Tokenizer(models.BPE(vocab, merges, fuse_unk=True, byte_fallback=True))
    space = folder.knob("add_prefix_space", True)
    scheme = "never" if not space else "always" if folder.knob("legacy", False) else "first"
    made.pre_tokenizer = pre_tokenizers.Metaspace(replacement=SPACE, prepend_scheme=scheme, split=False)
    made.decoder = _spaces_and_bytes(strip=space)
    return made


def gemma(folder: Folder) -> Tokenizer:
    """BPE with bytes for what has no piece, and no space but those of the text."""
    vocab, merges = _pieces_and_merges(sentencepiece_model(folder))
    made = Tokenizer(models.BPE(vocab, merges, unk_token=folder.roles["unk"], fuse_unk=True, byte_fallback=True))
    made.normalizer = normalizers.Replace(" ", SPACE)
    made.pre_tokenizer = pre_tokenizers.Split(" ", behavior="merged_with_previous")
    made.decoder = _spaces_and_bytes(strip=False)
    return made


def nllb(folder: Folder) -> Tokenizer:
    """BPE in fairseq's order: four special tokens, then the other pieces."""
    model = sentencepiece_model(folder)
    first = [folder.roles[role] for role in ("bos", "pad", "eos", "unk")]
    order = [*first, *(p.piece for p in model.pieces if p.piece not in first)]
    _, merges = _pieces_and_merges(model)
    vocab = {piece: i for i, piece in enumerate(order)}
    made = Tokenizer(models.BPE(vocab, merges, unk_token=folder.roles["unk"], fuse_unk=True))
    if chars := model.normalizer_spec.precompiled_charsmap:
        one = normalizers.Replace(Regex(" {2,}"), " ")
        made.normalizer = normalizers.Sequence([normalizers.Precompiled(chars), one])
    made.pre_tokenizer = pre_tokenizers.Metaspace(replacement=SPACE, prepend_scheme="always")
    made.decoder = decoders.Metaspace(replacement=SPACE, prepend_scheme="always")
    return made


def as_it_says(folder: Folder) -> Tokenizer:
    """A SentencePiece model by its own settings, of whatever kind it is."""
    model = sentencepiece_model(folder)
    names = _names(folder, model)
    return _by_its_settings(folder, model, names, names)


def listed(folder: Folder) -> Tokenizer:
    """A SentencePiece model whose pieces have the ids of vocab.json."""
    return _numbered(folder, sentencepiece_model(folder), vocabulary(folder))


def of_a_pair(folder: Folder) -> Tokenizer:
    """Marian's: SentencePiece models of two languages, whose pieces have the ids of one vocab.json. The text is of the
    first. Its pieces without an id stand for the unknown, and get ids beyond."""
    if folder.knob("separate_vocabs", False):
        raise UserError(f"{folder.path}: separate_vocabs is not supported: copy the tokenizer.json of this model")
    model, order = sentencepiece_model(folder, "source.spm"), vocabulary(folder)
    there = set(order)
    return _numbered(
        folder, model, [*order, *(p.piece for p in model.pieces if p.type == NORMAL and p.piece not in there)]
    )


def _numbered(folder: Folder, model: Any, order: list[str]) -> Tokenizer:
    """What has no piece in the model is unknown, a run of characters at a time, unless the whole run has an id."""
    made = _by_its_settings(folder, model, [p.piece for p in model.pieces], order)
    known = {SPACE, *(p.piece for p in model.pieces if p.type == NORMAL and len(p.piece) == 1)}
    strange = f"[^{''.join(map(re.escape, sorted(known)))}]"
    runs = [re.escape(piece) for piece in order if len(piece) > 1 and known.isdisjoint(piece)]
    kept = f"(?!(?:{'|'.join(runs)})(?!{strange}))" if runs else ""
    none = normalizers.Replace(Regex(f"(?<!{strange}){kept}{strange}{{2,}}"), "\ufdd0")
    made.normalizer = normalizers.Sequence([made.normalizer, none])
    alone = pre_tokenizers.Split(Regex(f"{strange}+"), behavior="isolated")
    before = [made.pre_tokenizer] if made.pre_tokenizer is not None else []
    made.pre_tokenizer = pre_tokenizers.Sequence([*before, alone])
    if isinstance(made.model, models.BPE):
        made.model.ignore_merges = True  # such a run is nothing that is merged
    return made


def vocabulary(folder: Folder) -> list[str]:
    """The pieces of vocab.json by id."""
    path = folder.file("vocab.json")
    ids = read_json(path)
    order = sorted(ids, key=lambda piece: ids[piece])
    if [ids[piece] for piece in order] != list(range(len(order))):
        raise UserError(f"{path} does not number its pieces from 0 on: copy it anew")
    return order


def with_codes(folder: Folder) -> Tokenizer:
    """A SentencePiece model in fairseq's order: four special tokens, its pieces but the first three, languages, and the
    mask where there are few of these."""
    model, few = sentencepiece_model(folder), folder.knob("language_codes", "base") == "base"
    names, r = [p.piece for p in model.pieces], folder.roles
    codes = [f"__{code}__" for code in CODE_LANGUAGES[: 3 if few else None]]
    order = [r["bos"], r["pad"], r["eos"], r["unk"], *names[3:], *codes, *([r["mask"]] if few else [])]
    return _by_its_settings(folder, model, names, order)


def _by_its_settings(folder: Folder, model: Any, names: list[str], order: list[str]) -> Tokenizer:
    """`names`: of the model's pieces; `order`: of these and others in the order of their ids."""
    rules = model.normalizer_spec
    made = Tokenizer(_core(folder, model, names, order))
    legacy = folder.knob("legacy", True)
    before: list[Any] = [normalizers.Precompiled(rules.precompiled_charsmap)] if rules.precompiled_charsmap else []
    if rules.remove_extra_whitespaces:
        before += [normalizers.Replace(Regex(r"\A +| +\z"), ""), normalizers.Replace(Regex(" {2,}"), " ")]
    if rules.escape_whitespaces:
        before.append(normalizers.Replace(" ", SPACE))
    if rules.add_dummy_prefix and legacy:  # a space of the text's own does not stand for that one
        before.append(normalizers.Replace(Regex(rf"\A{SPACE}"), 2 * SPACE))
    made.normalizer = normalizers.Sequence(before)
    parts: list[Any] = []
    if rules.add_dummy_prefix:
        scheme = "always" if legacy else "first"
        parts.append(pre_tokenizers.Metaspace(replacement=SPACE, prepend_scheme=scheme, split=False))
    if defined := _defined(model, names):  # stay whole, whatever could be merged with them
        either = "|".join(re.escape(piece) for piece in sorted(defined, key=len, reverse=True))
        parts.append(pre_tokenizers.Split(Regex(either), behavior="isolated"))
    if parts:
        made.pre_tokenizer = pre_tokenizers.Sequence(parts)
    made.decoder = _spaces_and_bytes(rules.add_dummy_prefix, model.trainer_spec.byte_fallback)
    return made


def check_ranks(path: Path, config: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    """Raise `UserError` for a tiktoken file of which the folder's configs do not say enough."""
    if config.get("model_type") != "llama" or not settings.get("added_tokens_decoder") or not settings.get("eos_token"):
        raise UserError(
            f"{path} is a tiktoken file, which tells neither special tokens nor how to split text: copy the "
            "tokenizer.json of this model, or tell added_tokens_decoder and eos_token of a LLaMA 3 in its config"
        )


def ranks(folder: Folder) -> Tokenizer:
    """LLaMA 3's: a tiktoken file, of pieces of bytes in base64 and their ranks, by which pairs are merged."""
    known: dict[bytes, int] = {}
    path = folder.file(*MODELS)
    try:
        for line in path.read_bytes().splitlines():
            piece, rank = line.split()
            known[base64.b64decode(piece, validate=True)] = int(rank)
    except ValueError as e:  # binascii's is one
        raise UserError(f"{path} is a damaged tiktoken file ({e}): copy it anew") from e
    names = {piece: "".join(BYTES[byte] for byte in piece) for piece in known}
    merges = [
        (rank, known[piece[:at]], known[piece[at:]], names[piece[:at]], names[piece[at:]])
        for piece, rank in known.items()
        for at in range(1, len(piece))
        if piece[:at] in known and piece[at:] in known
    ]
    vocab = {names[piece]: rank for piece, rank in known.items()}
    made = Tokenizer(models.BPE(vocab, [(a, b) for *_, a, b in sorted(merges)], ignore_merges=True))
    split = pre_tokenizers.Split(Regex(LLAMA3), behavior="isolated")
    parts = [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    made.pre_tokenizer = pre_tokenizers.Sequence(parts)
    made.decoder = decoders.ByteLevel()
    return made


def _spaces_and_bytes(strip: bool, bytes_too: bool = True) -> decoders.Decoder:
    after: list[Any] = [decoders.Replace(SPACE, " ")]
    after += [decoders.ByteFallback()] if bytes_too else []
    after += [decoders.Fuse()] if bytes_too or strip else []
    return decoders.Sequence(after + ([decoders.Strip(" ", 1, 0)] if strip else []))


def _names(folder: Folder, model: Any) -> list[str]:
    """The model's pieces, of which added_tokens_decoder may rename some: placeholders, put to use."""
    renamed = {int(i): token["content"] for i, token in folder.knob("added_tokens_decoder", {}).items()}
    kept = {p.piece for i, p in enumerate(model.pieces) if i not in renamed}
    return [
        renamed[i] if renamed.get(i, p.piece) not in kept | {p.piece} else p.piece for i, p in enumerate(model.pieces)
    ]


def _defined(model: Any, names: list[str]) -> list[str]:
    return [name for name, p in zip(names, model.pieces, strict=True) if p.type == DEFINED]


def _core(folder: Folder, model: Any, names: list[str], order: list[str]) -> models.Model:
    spec = model.trainer_spec
    ids = {name: i for i, name in enumerate(order)}
    if lost := [name for name, p in zip(names, model.pieces, strict=True) if p.type == NORMAL and name not in ids]:
        raise UserError(
            f"{folder.path}: {len(lost)} pieces of its SentencePiece model, as {lost[0]!r}, have no id: copy it anew"
        )
    if spec.model_type == UNIGRAM:
        scores = {name: p.score for name, p in zip(names, model.pieces, strict=True)}
        scored = [(name, scores.get(name, NEVER)) for name in order]
        return models.Unigram(scored, ids[spec.unk_piece], byte_fallback=spec.byte_fallback)
    if spec.model_type != BPE:
        raise UserError(f"{folder.path}: a SentencePiece model of words or characters is not supported: give BPE")
    known = {n: (-p.score, i) for i, (n, p) in enumerate(zip(names, model.pieces, strict=True)) if p.type == NORMAL}
    ranked = [
        (*known[name], name[:at], name[at:])
        for name in known
        for at in range(1, len(name))
        if name[:at] in known and name[at:] in known
    ]
    return models.BPE(
        ids,
        [(left, right) for _, _, left, right in sorted(ranked)],
        unk_token=spec.unk_piece,
        fuse_unk=True,
        byte_fallback=spec.byte_fallback,
        ignore_merges=bool(_defined(model, names)),
    )


def _pieces_and_merges(model: Any) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """A BPE model's pieces with their ids, and what is merged, by the id of what it becomes."""
    if model.trainer_spec.model_type != BPE:
        raise UserError("its SentencePiece model is no BPE model, as this class of tokenizer has: name another class")
    ids = {p.piece: i for i, p in enumerate(model.pieces)}
    parts = ((piece[:at], piece[at:]) for piece in ids for at in range(1, len(piece)))
    return ids, [(left, right) for left, right in parts if left in ids and right in ids]


def sentencepiece_model(folder: Folder, *names: str) -> Any:
    """The content of the folder's SentencePiece model. Raises `UserError` for what is none, and says what it is."""
    from google.protobuf.message import DecodeError

    path = folder.file(*(names or MODELS))
    model = package("sentencepiece.sentencepiece_model_pb2", path).ModelProto()
    try:
        model.ParseFromString(path.read_bytes())
    except OSError as e:
        raise UserError(f"cannot read {path}: {e.strerror}") from e
    except DecodeError as e:
        raise UserError(f"{path} is no SentencePiece model: copy it anew, or the tokenizer.json of this model") from e
    if not model.pieces:
        raise UserError(f"{path} is a SentencePiece model without pieces: copy it anew")
    return model
