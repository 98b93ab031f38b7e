"""What `transformers` knows of a tokenizer by its class alone: rules, special tokens and those around a text."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tokenizers import Regex, normalizers, pre_tokenizers

from lm.hub.tables.format import ANY_TOKENIZER
from lm.hub.vocabulary import (
    BytesBPE,
    Folder,
    Make,
    Pieces,
    as_it_says,
    gemma,
    listed,
    llama,
    nllb,
    of_a_pair,
    vocabulary,
    with_codes,
    word_pieces,
    words_bpe,
)

Scored = list[tuple[str, float]]
Roles = dict[str, str]


@dataclass(frozen=True)
class Kind:
    """make: its rules, from the folder's files; roles: special tokens, where the folder names none; around: the roles
    that stand before and after a text, those of bos and eos by `add_bos_token` and `add_eos_token` if None; marks:
    flags of a role's token other than `special`; language: the one of a text where no `src_lang` is given (a role,
    then); extra: further special tokens; spelled: how the token of a language is; absent: roles without a token after
    all; plain: tokens that are found in a text before its pieces and are not special; size: the number of ids, if there
    are pieces without one."""

    make: Make
    roles: Mapping[str, str] = field(default_factory=dict)
    around: tuple[tuple[str, ...], tuple[str, ...]] | None = None
    marks: Mapping[str, Mapping[str, bool]] = field(default_factory=dict)
    language: str | None = None
    extra: Callable[[Folder], list[str]] = lambda folder: []
    spelled: str = "{}"
    absent: Callable[[Folder], tuple[str, ...]] = lambda folder: ()
    plain: Callable[[Folder], list[str]] = lambda folder: []
    size: Callable[[Folder], int | None] = lambda folder: None


LANGUAGES = (  # of mBART
    "ar_AR cs_CZ de_DE en_XX es_XX et_EE fi_FI fr_XX gu_IN hi_IN it_IT ja_XX kk_KZ ko_KR lt_LT lv_LV my_MM ne_NP nl_XX "
    "ro_RO ru_RU si_LK tr_TR vi_VN zh_CN"
)
MORE_LANGUAGES = (  # and of mBART-50
    "af_ZA az_AZ bn_IN fa_IR he_IL hr_HR id_ID ka_GE km_KH mk_MK ml_IN mn_MN mr_IN pl_PL ps_AF pt_XX sv_SE sw_KE ta_IN "
    "te_IN th_TH tl_XX uk_UA ur_PK xh_ZA gl_ES sl_SI"
)
QWEN2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


MANY = (  # of M2M-100
    "af am ar ast az ba be bg bn br bs ca ceb cs cy da de el en es et fa ff fi fr fy ga gd gl gu ha he hi hr "
    "ht hu hy id ig ilo is it ja jv ka kk km kn ko lb lg ln lo lt lv mg mk ml mn mr ms my ne nl no ns oc or pa "
    "pl ps pt ro ru sd si sk sl so sq sr ss su sv sw ta th tl tn tr uk ur uz vi wo xh yi yo zh zu"
)
CODES = LANGUAGES.split()
CODES_50 = CODES + MORE_LANGUAGES.split()


def _fairseq(folder: Folder, pieces: Scored) -> Scored:
    """Four special tokens, then the pieces but the model's own first three."""
    r = folder.roles
    first = (r.get("bos", r["cls"]), r["pad"], r["eos"], r["unk"])
    return [*((piece, 0.0) for piece in first), *pieces[3:]]


def _and_mask(folder: Folder, pieces: Scored) -> Scored:
    return [*_fairseq(folder, pieces), (folder.roles["mask"], 0.0)]


def _camembert(folder: Folder, pieces: Scored) -> Scored:
    r = folder.roles
    first = [("<s>NOTUSED", 0.0), (r["pad"], 0.0), ("</s>NOTUSED", 0.0), (r["unk"], 0.0), ("<unk>NOTUSED", -100.0)]
    return [*first, *pieces[1:], (r["mask"], 0.0)]


def _and_languages(codes: list[str]) -> Callable[[Folder, Scored], Scored]:
    def order(folder: Folder, pieces: Scored) -> Scored:
        return [*_fairseq(folder, pieces), *((code, 0.0) for code in codes), (folder.roles["mask"], 0.0)]

    return order


def sentinels(folder: Folder) -> list[str]:
    """T5's, the last first."""
    return [f"<extra_id_{i}>" for i in reversed(range(folder.knob("extra_ids", 100)))]


def _and_sentinels(folder: Folder, pieces: Scored) -> Scored:
    return pieces + [(piece, 0.0) for piece in sentinels(folder)]


def _pegasus(folder: Folder, pieces: Scored) -> Scored:
    """Two masks and 101 that are unused, before the pieces but the first two."""
    r = folder.roles
    masks = [folder.knob("mask_token_sent", "<mask_1>"), r["mask"]]
    unused = [(piece, -100.0) for piece in _unused(folder)]
    return [(r["pad"], 0.0), (r["eos"], 0.0), *((mask, 0.0) for mask in masks), *unused, *pieces[2:]]


def _unused(folder: Folder) -> list[str]:
    return [f"<unk_{i}>" for i in range(2, folder.knob("offset", 103))]


def _albert(folder: Folder, own: list[Any]) -> list[Any]:
    rules: list[Any] = [normalizers.Replace("``", '"'), normalizers.Replace("''", '"')]
    rules += [] if folder.knob("keep_accents", False) else [normalizers.NFKD(), normalizers.StripAccents()]
    return rules + ([normalizers.Lowercase()] if folder.knob("do_lower_case", True) else []) + own


def _xlnet(folder: Folder, own: list[Any]) -> list[Any]:
    rules: list[Any] = [normalizers.Replace("``", '"'), normalizers.Replace("''", '"')]
    rules += [normalizers.NFKD(), normalizers.StripAccents()]
    return rules + ([normalizers.Lowercase()] if folder.knob("do_lower_case", False) else []) + own


def _deberta2(folder: Folder, own: list[Any]) -> list[Any]:
    lower: list[Any] = [normalizers.Lowercase()] if folder.knob("do_lower_case", False) else []
    spaces = normalizers.Replace(Regex(r"\s{2,}|[\n\r\t]"), " ")
    return [*lower, spaces, normalizers.NFC(), normalizers.Strip(left=False, right=True)]


def _one_space(folder: Folder, own: list[Any]) -> list[Any]:
    return [*own, normalizers.Replace(Regex(" {2,}"), " ")]


def _one_space_a_line(folder: Folder, own: list[Any]) -> list[Any]:
    return _one_space(folder, own or [normalizers.Replace("\n", " ")])


def _punctuation(folder: Folder) -> list[Any]:
    return [pre_tokenizers.Punctuation(behavior="isolated")] if folder.knob("split_by_punct", False) else []


def _named(text: str) -> Roles:
    """Of "unk=[UNK] sep=[SEP]"."""
    return dict(part.split("=", 1) for part in text.split())


BERT = _named("unk=[UNK] sep=[SEP] pad=[PAD] cls=[CLS] mask=[MASK]")
FAIRSEQ = _named("bos=<s> eos=</s> unk=<unk> sep=</s> pad=<pad> cls=<s> mask=<mask>")
GPT2 = _named("bos=<|endoftext|> eos=<|endoftext|> unk=<|endoftext|>")
LLAMA = _named("bos=<s> eos=</s> unk=<unk>")
ALBERT = _named("bos=[CLS] eos=[SEP] unk=<unk> sep=[SEP] pad=<pad> cls=[CLS] mask=[MASK]")
SENTENCE = (("cls",), ("sep",))
WORDLIKE = {"mask": {"lstrip": True, "normalized": True}}  # takes the space before it along
BYTES = "ByT5Tokenizer"  # has no vocabulary file

KINDS: dict[str, Kind] = {
    ANY_TOKENIZER: Kind(as_it_says, LLAMA),  # a SentencePiece model by its own settings
    "AlbertTokenizer": Kind(Pieces(unk=1, rules=_albert), ALBERT, SENTENCE),
    "BertTokenizer": Kind(word_pieces, BERT, SENTENCE),
    "BigBirdTokenizer": Kind(
        Pieces(rules=lambda folder, own: [normalizers.Replace(Regex(" {2,}"), "\u2581")], whole=True),
        FAIRSEQ | _named("sep=[SEP] mask=[MASK] cls=[CLS]"),
        SENTENCE,
        WORDLIKE,
    ),
    "BlenderbotTokenizer": Kind(BytesBPE(prefix_space=True), FAIRSEQ, marks={"mask": {"lstrip": True}}),
    "CamembertTokenizer": Kind(Pieces(_camembert), FAIRSEQ, (("bos",), ("eos",)), {"mask": {"lstrip": True}}),
    "DebertaTokenizer": Kind(BytesBPE(), BERT | _named("bos=[CLS] eos=[SEP]"), SENTENCE),
    "DebertaV2Tokenizer": Kind(
        Pieces(rules=_deberta2, whole=True, split=_punctuation), BERT | _named("bos=[CLS] eos=[SEP]"), SENTENCE
    ),
    "GemmaTokenizer": Kind(gemma, _named("bos=<bos> eos=<eos> unk=<unk> pad=<pad> mask=<mask>")),
    "GPT2Tokenizer": Kind(BytesBPE(), GPT2),
    "GPTNeoXTokenizer": Kind(BytesBPE(compose=True), GPT2 | _named("pad=<|padding|>")),
    "LlamaTokenizer": Kind(llama, LLAMA),
    "M2M100Tokenizer": Kind(
        listed,
        {role: piece for role, piece in FAIRSEQ.items() if role not in ("cls", "mask")},
        (("language",), ("eos",)),
        language="en",
        spelled="__{}__",
        extra=lambda folder: [f"__{code}__" for code in MANY.split()],
    ),
    "MBartTokenizer": Kind(
        Pieces(_and_languages(CODES), 3, lambda folder, own: []),
        FAIRSEQ, ((), ("eos", "language")), WORDLIKE, "en_XX", lambda folder: CODES,
    ),
    "MBart50Tokenizer": Kind(
        Pieces(_and_languages(CODES_50), 3, _one_space, whole=True),
        {role: piece for role, piece in FAIRSEQ.items() if role != "bos"},
        (("language",), ("eos",)), WORDLIKE, "en_XX", lambda folder: CODES_50,
    ),
    "MPNetTokenizer": Kind(word_pieces, FAIRSEQ | _named("unk=[UNK]"), SENTENCE, WORDLIKE),
    "NllbTokenizer": Kind(
        nllb, FAIRSEQ, (("language",), ("eos",)), WORDLIKE, "eng_Latn",
    ),
    "OpenAIGPTTokenizer": Kind(words_bpe, _named("unk=<unk>")),
    "PegasusTokenizer": Kind(
        Pieces(_pegasus, rules=_one_space_a_line, whole=True),
        _named("eos=</s> unk=<unk> pad=<pad> mask=<mask_2>"), ((), ("eos",)),
        extra=lambda folder: [folder.knob("mask_token_sent", "<mask_1>"), *_unused(folder)],
    ),
    "MarianTokenizer": Kind(
        of_a_pair,
        _named("eos=</s> unk=<unk> pad=<pad>"),
        ((), ("eos",)),
        plain=lambda folder: [piece for piece in vocabulary(folder) if re.fullmatch(">>.+<<", piece)],
        size=lambda folder: len(vocabulary(folder)),
    ),
    "PLBartTokenizer": Kind(
        with_codes,
        FAIRSEQ,
        ((), ("eos", "language")),
        {"mask": {"lstrip": True}},
        spelled="__{}__",
        absent=lambda folder: () if folder.knob("language_codes", "base") == "base" else ("mask",),
    ),
    "ProphetNetTokenizer": Kind(
        word_pieces, _named("unk=[UNK] sep=[SEP] x_sep=[X_SEP] pad=[PAD] mask=[MASK]"), ((), ("sep",))
    ),
    "Qwen2Tokenizer": Kind(
        BytesBPE(QWEN2, compose=True), _named("eos=<|endoftext|> unk=<|endoftext|> pad=<|endoftext|>")
    ),
    "RobertaTokenizer": Kind(BytesBPE(), FAIRSEQ, SENTENCE),
    "T5Tokenizer": Kind(
        Pieces(_and_sentinels, 2), _named("eos=</s> unk=<unk> pad=<pad>"), ((), ("eos",)), extra=sentinels
    ),
    "XLMRobertaTokenizer": Kind(Pieces(_and_mask, 3), FAIRSEQ, (("bos",), ("eos",))),
    "XLNetTokenizer": Kind(
        Pieces(rules=_xlnet), FAIRSEQ | _named("sep=<sep> cls=<cls>"), ((), ("sep", "cls")),
        WORDLIKE,
    ),
}  # fmt: skip

SAME = {  # other names of these
    "BertTokenizer": "ConvBert DistilBert DPRContextEncoder DPRQuestionEncoder Electra Ernie LayoutLM Lxmert "
    "MobileBert NomicBert Realm Retribert SqueezeBert",
    "RobertaTokenizer": "Bart LED Longformer Mvp",
    "GPT2Tokenizer": "CodeGen",
    "AlbertTokenizer": "FNet",
}
ALIASES = {f"{name}Tokenizer": kind for kind, names in SAME.items() for name in names.split()}
ALIASES |= {"PreTrainedTokenizer": ANY_TOKENIZER, "LLaMATokenizer": "LlamaTokenizer"}

# Of model types without a dialect, which would tell it: their folders still give a tokenizer.
WITHOUT_DIALECT = {name: "BertTokenizer" for name in ("convbert", "mobilebert", "squeezebert")}
WITHOUT_DIALECT |= {"mixtral": ANY_TOKENIZER}
