"""Hugging Face folders with the vocabulary files of many classes of tokenizers, made from scratch; with transformers
this file also records what it makes of them: python tests/hub/tokenizer_folders.py (writes tokenizer_ids.json)."""

import base64
import json
import tempfile
from pathlib import Path

RECORD = Path(__file__).with_name("tokenizer_ids.json")
TEXTS = (
    "the old river",
    " The  Old   river, ",
    "\nthe\t\told\n\nriver\n",
    "",
    "  ",
    "Ünï é 日本 😀 e\u0301 ﬁ",
    "it's 12345 we'll `` ''",
    "<s> the</s><pad><unk> [CLS]old [SEP]",
    "a <mask> b<mask>c [MASK] d",
    "x<|im_start|>user\nhi <|im_end|>  y",
    "x <tool>  y<tool>z <nor>the",
    "the <extra_id_0> river <extra_id_1>.",
    "▁the ▁ old",
    "azz zz zzy",
    ">>fr<< the Ü ïÜ 本ï 😀x😀 of",
)
WORDS = ["the", "old", "river", "of", "stone", "and", "light", "ing", "er", "in", "on", "word"]
LETTERS = "abcdefghijklmnopqrstuvwxyzTO0123456789.,é日"
NORMAL, UNKNOWN, CONTROL, DEFINED, BYTE = 1, 2, 3, 4, 6


def pieces_model(first, *, bpe=False, dummy=True, squeeze=True, byte_fallback=False, unk="<unk>"):
    """A SentencePiece model; `first`: its first pieces and their kinds."""
    from sentencepiece import sentencepiece_model_pb2

    model = sentencepiece_model_pb2.ModelProto()
    kinds = list(first.items())
    kinds += [(f"<0x{b:02X}>", BYTE) for b in range(256) if byte_fallback]
    grown = ["▁" + word for word in WORDS] + WORDS
    if bpe:  # whatever is merged is there
        grown = sorted({word[:n] for word in grown for n in range(2, len(word) + 1)}, key=lambda w: (len(w), w))
    known = dict.fromkeys([*grown, "▁", *LETTERS])
    kinds += [(piece, NORMAL) for piece in known if piece not in first]
    for i, (piece, kind) in enumerate(kinds):
        model.pieces.add(piece=piece, score=-i / 10 if kind == NORMAL else 0.0, type=kind)
    spec, rules = model.trainer_spec, model.normalizer_spec
    spec.model_type, spec.byte_fallback, spec.unk_piece = 2 if bpe else 1, byte_fallback, unk
    names = [piece for piece, _ in kinds]
    spec.unk_id = names.index(unk)
    for role, piece in (("bos", "<s>"), ("eos", "</s>"), ("pad", "<pad>")):
        setattr(spec, f"{role}_id", names.index(piece) if piece in names else -1)
    rules.name, rules.add_dummy_prefix, rules.remove_extra_whitespaces = "identity", dummy, squeeze
    return model.SerializeToString()


def seen(byte):
    """The character that stands for a byte."""
    shown = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    return chr(byte) if byte in shown else chr(0x100 + [b for b in range(256) if b not in shown].index(byte))


FAIRSEQ = ("<s>", "<pad>", "</s>", "<unk>")
MERGES = [
    ("t", "h"),
    ("th", "e"),
    ("Ġ", "the"),
    ("o", "l"),
    ("ol", "d"),
    ("Ġ", "old"),
    ("w", "o"),
    ("r", "d"),
    ("Ġ", "Ġ"),
]


def byte_pairs(*first, last=()):
    pieces = [*first, *map(seen, range(256)), *(a + b for a, b in MERGES), *last]
    merges = "#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in MERGES)
    return {"vocab.json": {piece: i for i, piece in enumerate(pieces)}, "merges.txt": merges}


def word_pieces(*first, last=()):
    words = [*WORDS, *LETTERS, *("##" + letter for letter in LETTERS), "##s", "##ing", "un"]
    return "".join(f"{piece}\n" for piece in dict.fromkeys([*first, *words, *last]))


def numbered(model, *names, first=FAIRSEQ, lost=(), last=("madeupword0",)):
    """The files of SentencePiece models whose pieces have other ids than their own, some of them none."""
    from sentencepiece import sentencepiece_model_pb2

    pieces = [p.piece for p in sentencepiece_model_pb2.ModelProto.FromString(model).pieces if p.type == NORMAL]
    order = [*first, *reversed([piece for piece in pieces if piece not in lost]), "Ü", "😀x", "本ï", *last]
    return {"vocab.json": {piece: i for i, piece in enumerate(order)}} | dict.fromkeys(names, model)


def ends_of_words():
    vocab = ["<unk>", *LETTERS, *(letter + "</w>" for letter in LETTERS), "th", "the</w>", "ol", "old</w>"]
    merges = "#version: 0.2\nt h\nth e</w>\no l\nol d</w>\n"
    return {"vocab.json": {piece: i for i, piece in enumerate(dict.fromkeys(vocab))}, "merges.txt": merges}


def ranks():
    pieces = [bytes([b]) for b in range(256)] + [b"th", b"the", b" the", b"ol", b"old", b" old"]
    return "".join(f"{base64.b64encode(piece).decode()} {i}\n" for i, piece in enumerate(pieces))


def token(content, **flags):
    off = dict.fromkeys(("lstrip", "rstrip", "normalized", "single_word"), False)
    return {"content": content, **off, "special": True, **flags}


BERT = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
PLAIN = {"<unk>": UNKNOWN, "<s>": CONTROL, "</s>": CONTROL}
T5 = {"<pad>": CONTROL, "</s>": CONTROL, "<unk>": UNKNOWN}
LLAMA = {"bpe": True, "squeeze": False, "byte_fallback": True}
DECLARED = {str(i): token(piece) for i, piece in enumerate(PLAIN)}


def of_llama(model_type="llama", **settings):
    """259 bytes and special tokens, then the other pieces; two tokens are added."""
    size = len(llama_pieces())
    added = {
        str(size): token("<|im_start|>"),
        str(size + 1): token("<|im_end|>", rstrip=True),
        str(size + 2): token("<tool>", lstrip=True, rstrip=True, special=False),
        str(size + 3): token("<nor>", normalized=True, special=False),
        str(size + 4): token("zz", single_word=True, special=False),
    }
    roles = {"bos_token": "<s>", "eos_token": "<|im_end|>", "unk_token": "<unk>", "tokenizer_class": "LlamaTokenizer"}
    settings = {**roles, "add_bos_token": True, "added_tokens_decoder": DECLARED | added, **settings}
    return model_type, settings, {"tokenizer.model": pieces_model(PLAIN, **LLAMA)}


def llama_pieces():
    from sentencepiece import sentencepiece_model_pb2

    return sentencepiece_model_pb2.ModelProto.FromString(pieces_model(PLAIN, **LLAMA)).pieces


def folders():
    """Name -> model type, tokenizer_config.json or None, files."""
    plain, t5 = pieces_model(PLAIN), pieces_model(T5)
    qwen = {
        "tokenizer_class": "Qwen2Tokenizer",
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "bos_token": None,
        "unk_token": None,
        "additional_special_tokens": ["<|im_start|>"],
        "added_tokens_decoder": {
            str(265 + i): token(t) for i, t in enumerate(("<|endoftext|>", "<|im_start|>", "<|im_end|>"))
        },
    }
    marked = {
        "__type": "AddedToken",
        "content": "</s>",
        "lstrip": False,
        "normalized": True,
        "rstrip": False,
        "single_word": False,
    }
    albert = {"<pad>": CONTROL, "<unk>": UNKNOWN, "[CLS]": CONTROL, "[SEP]": CONTROL, "[MASK]": DEFINED}
    deberta = {"[PAD]": CONTROL, "[CLS]": CONTROL, "[SEP]": CONTROL, "[UNK]": UNKNOWN}
    gemma = {
        "<pad>": CONTROL,
        "<eos>": CONTROL,
        "<bos>": CONTROL,
        "<unk>": UNKNOWN,
        "<|im_start|>": DEFINED,
        "\n\n": DEFINED,
    }
    xlnet = PLAIN | dict.fromkeys(("<cls>", "<sep>", "<pad>", "<mask>", "<eod>", "<eop>"), CONTROL)
    bird = {
        "<pad>": CONTROL,
        "</s>": CONTROL,
        "<s>": CONTROL,
        "<unk>": UNKNOWN,
        "[SEP]": CONTROL,
        "[MASK]": CONTROL,
        "[CLS]": CONTROL,
    }
    return {
        "bert": ("bert", {"do_lower_case": True}, {"vocab.txt": word_pieces(*BERT)}),
        "bert bare": ("bert", None, {"vocab.txt": word_pieces(*BERT)}),
        "bert cased": (
            "bert",
            {"do_lower_case": False, "tokenizer_class": "BertTokenizer"},
            {"vocab.txt": word_pieces(*BERT)},
        ),
        "bert accents": (
            "electra",
            {"strip_accents": False, "tokenize_chinese_chars": False, "tokenizer_class": "ElectraTokenizer"},
            {"vocab.txt": word_pieces(*BERT)},
        ),
        "bert added": (
            "distilbert",
            {"tokenizer_class": "DistilBertTokenizer"},
            {"vocab.txt": word_pieces(*BERT, last=["<tool>"]), "added_tokens.json": {"<nor>": 104, "zz": 105}},
        ),
        "mpnet": ("mpnet", None, {"vocab.txt": word_pieces("<s>", "<pad>", "</s>", "[UNK]", last=["<mask>"])}),
        "gpt2": ("gpt2", None, byte_pairs(last=["<|endoftext|>"])),
        "gpt2 prefix": ("gpt2", {"add_prefix_space": True, "add_bos_token": True}, byte_pairs(last=["<|endoftext|>"])),
        "opt": (
            "opt",
            {
                "tokenizer_class": "GPT2Tokenizer",
                "add_bos_token": True,
                "bos_token": marked,
                "eos_token": marked,
                "unk_token": "</s>",
                "pad_token": "<pad>",
            },
            byte_pairs(*FAIRSEQ),
        ),
        "roberta": ("roberta", None, byte_pairs(*FAIRSEQ, last=["<mask>"])),
        "bart": ("bart", {"tokenizer_class": "BartTokenizer"}, byte_pairs(*FAIRSEQ, last=["<mask>"])),
        "blenderbot": ("blenderbot", None, byte_pairs(*FAIRSEQ, last=["<mask>"])),
        "gpt neox": ("gpt_neox", {"tokenizer_class": "GPTNeoXTokenizer"}, byte_pairs("<|endoftext|>", "<|padding|>")),
        "deberta": ("deberta", None, byte_pairs("[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]")),
        "qwen2": ("qwen2", qwen, byte_pairs()),
        "gpt": ("openai-gpt", None, ends_of_words()),
        "xlm-roberta": ("xlm-roberta", None, {"sentencepiece.bpe.model": plain}),
        "camembert": ("camembert", None, {"sentencepiece.bpe.model": plain}),
        "mbart": ("mbart", {"src_lang": "fr_XX"}, {"sentencepiece.bpe.model": plain}),
        "mbart50": ("mbart", {"tokenizer_class": "MBart50Tokenizer"}, {"sentencepiece.bpe.model": plain}),
        "nllb": (
            "m2m_100",
            {
                "tokenizer_class": "NllbTokenizer",
                "src_lang": "fra_Latn",
                "additional_special_tokens": ["eng_Latn", "fra_Latn"],
            },
            {"sentencepiece.bpe.model": pieces_model(PLAIN, bpe=True)},
        ),
        "m2m": ("m2m_100", {"src_lang": "fr"}, numbered(pieces_model(PLAIN, bpe=True), "sentencepiece.bpe.model")),
        "m2m unigram": ("m2m_100", {"tokenizer_class": "M2M100Tokenizer"}, numbered(plain, "sentencepiece.bpe.model")),
        "plbart": ("plbart", {"src_lang": "java"}, {"sentencepiece.bpe.model": plain}),
        "prophetnet": ("prophetnet", None, {"prophetnet.tokenizer": word_pieces(*BERT[:2], "[X_SEP]", *BERT[3:])}),
        "marian": (
            "marian",
            None,
            numbered(
                plain,
                "source.spm",
                "target.spm",
                first=("</s>", "<unk>"),
                lost=("▁the", "of"),
                last=(">>fr<<", "<pad>"),
            ),
        ),
        "t5": ("t5", None, {"spiece.model": t5}),
        "t5 few": (
            "t5",
            {"extra_ids": 2, "additional_special_tokens": ["<extra_id_0>", "<extra_id_1>"]},
            {"spiece.model": t5},
        ),
        "mt5": ("mt5", {"extra_ids": 0, "tokenizer_class": "T5Tokenizer"}, {"spiece.model": t5}),
        "albert": ("albert", None, {"spiece.model": pieces_model(albert)}),
        "albert cased": (
            "albert",
            {"do_lower_case": False, "keep_accents": True},
            {"spiece.model": pieces_model(albert)},
        ),
        "deberta-v2": ("deberta-v2", None, {"spm.model": pieces_model(deberta, unk="[UNK]")}),
        "deberta-v2 lower": (
            "deberta-v2",
            {"do_lower_case": True, "split_by_punct": True},
            {"spm.model": pieces_model(deberta, unk="[UNK]"), "added_tokens.json": {"[MASK]": 71}},
        ),
        "xlnet": ("xlnet", None, {"spiece.model": pieces_model(xlnet)}),
        "pegasus": ("pegasus", None, {"spiece.model": t5}),
        "big bird": ("big_bird", None, {"spiece.model": pieces_model(bird)}),
        "llama": of_llama(),
        "llama legacy": of_llama(legacy=True),
        "llama bare": of_llama(legacy=False, add_prefix_space=False),
        "llama map": (
            "llama",
            {"tokenizer_class": "LlamaTokenizer", "add_bos_token": True, "add_eos_token": True},
            {
                "tokenizer.model": pieces_model(PLAIN, **LLAMA),
                "added_tokens.json": {"<pad>": len(llama_pieces()), "<tool>": len(llama_pieces()) + 1},
                "special_tokens_map.json": {
                    "bos_token": "<s>",
                    "eos_token": {k: v for k, v in token("<tool>", rstrip=True).items() if k != "special"},
                    "pad_token": "<pad>",
                    "unk_token": "<unk>",
                },
            },
        ),
        "mistral": of_llama("mistral", legacy=True),
        "phi3": of_llama("phi3", legacy=False),
        "ernie 4.5": of_llama("ernie4_5"),
        "no class": (
            "llama",
            None,
            {"tokenizer.model": pieces_model(PLAIN | {"<|im_start|>": DEFINED, "zz": DEFINED}, **LLAMA)},
        ),
        "gemma": (
            "gemma",
            {"add_bos_token": True},
            {"tokenizer.model": pieces_model(gemma, bpe=True, dummy=False, squeeze=False, byte_fallback=True)},
        ),
        "tiktoken": (
            "llama",
            {
                "bos_token": "<|im_start|>",
                "eos_token": "<|im_end|>",
                "added_tokens_decoder": {"262": token("<|im_start|>"), "265": token("<|im_end|>")},
            },
            {"tokenizer.model": ranks()},
        ),
    }


def write(folder: Path, model_type, settings, files):
    folder.mkdir(parents=True)
    for name, content in {
        "config.json": {"model_type": model_type},
        "tokenizer_config.json": settings,
        **files,
    }.items():
        if isinstance(content, bytes):
            (folder / name).write_bytes(content)
        elif content is not None:
            (folder / name).write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return folder


def split(t, text):
    return t(text, add_special_tokens=False, split_special_tokens=True).input_ids


def record():
    import transformers

    found = {}
    for name, made in folders().items():
        with tempfile.TemporaryDirectory() as root:
            t = transformers.AutoTokenizer.from_pretrained(write(Path(root) / "folder", *made))
        bare = [t(text, add_special_tokens=False).input_ids for text in TEXTS]
        found[name] = {
            "size": len(t),
            "roles": {role: str(piece) for role, piece in t.special_tokens_map.items()},
            "first": t(TEXTS[0]).input_ids,
            "ids": bare,
            "plain": {str(i): ids for i, ids in enumerate(split(t, text) for text in TEXTS) if ids != bare[i]},
            "texts": [t.decode(ids, skip_special_tokens=True) for ids in bare],
        }
    lines = [f'"{name}": {json.dumps(row, ensure_ascii=False)}' for name, row in found.items()]
    RECORD.write_text(
        "{\n" + ",\n".join(lines) + f',\n"transformers": "{transformers.__version__}"\n}}\n', encoding="utf-8"
    )


if __name__ == "__main__":
    record()
