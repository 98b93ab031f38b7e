"""Opt-in: what we export, opened by transformers. In our environment, then in one with transformers and torch:

python -m tests.hub.opened_elsewhere write FOLDER      # a tiny model of every model type, with several tokenizers; or
                                                       # only of those that are named behind it
python tests/hub/opened_elsewhere.py read FOLDER       # ids, text, special tokens, logits, generation: all equal?
"""

import json
import sys
from pathlib import Path

TEXTS = [
    "",
    " ",
    "the old river",
    "  two  spaces ",
    "def f(x):\n\treturn  x\n\n",
    "héllo",
    "日本語 🙂",
    "a▁b",
    "x</s>y <s>",
]
WRITERS = (
    "CausalLM",
    "LMHead",
    "ConditionalGeneration",
    "MaskedLM",
    "MarianMT",
    "GenerationModel",
    "EncoderDecoder",
    "GenerationDecoder",
)
CONTEXT = 77
# transformers masks the predicting streams of ProphetNet otherwise than its paper, and mistakes the experts of NLLB-MoE
# (tests/golden/mended.py).
OTHER_LOGITS = ("prophetnet", "nllb-moe")


def write(out: Path, *kinds: str) -> None:
    import numpy as np

    from lm.core.component import to_dict
    from lm.data.learn import train_sentencepiece
    from lm.data.sources import open_source
    from lm.hub.config import read_config
    from lm.hub.save import save_folder
    from lm.model.transformer import EncoderDecoder
    from lm.text.format import TextFormat
    from lm.text.tokenizers import ByteTokenizer, Tokenizer
    from lm.zoo.registry import build
    from tests import toys
    from tests.golden import FILES

    out.mkdir(parents=True, exist_ok=True)
    source = open_source("python-stdlib", "train")
    tokenizers: dict[str, Tokenizer] = {"byte": ByteTokenizer()}
    for kind in ("bpe", "unigram"):
        path = out / f"{kind}.model"
        tokenizers[kind] = train_sentencepiece(source, 420, path, model_type=kind, reserved=["<|user|>"])
    done = set()
    for file in FILES.values():
        stored = np.load(file)
        config = json.loads(str(stored["meta"]))["config"]
        kind, classes = config["model_type"], config.get("architectures") or [""]
        if (kinds and kind not in kinds) or not any(word in classes[0] for word in WRITERS):
            continue
        which = f"{kind}-experts" if "router" in stored else kind
        if which in done:
            continue
        done.add(which)
        for name, tokenizer in tokenizers.items():
            knobs = {k: to_dict(v) for k, v in read_config(config).knobs.items() if v is not None} | {"vocab": 420}
            knobs.pop("decoder_vocab", None)  # then it is the encoder's
            model = build(knobs)
            params, pair = toys.values(model.spec()), isinstance(model, EncoderDecoder)
            text = TextFormat.of(tokenizer, None, pair)._replace(
                context=CONTEXT, template="{{ messages[0]['content'] }}"
            )
            folder = out / f"{which}-{name}"
            save_folder(folder, knobs, params, text, model_type=kind, architecture=classes[0])
            ids = np.random.default_rng(0).integers(3, 380, (1, 9)).astype(np.int32)
            batch = {"tokens": ids} | ({"encoder/tokens": ids} if pair else {})
            spelled = [tokenizer.encode_marked(t).tolist() for t in TEXTS]
            expected = {
                "rows": [[t, [*i, *text.after], tokenizer.decode(i)] for t, i in zip(TEXTS, spelled, strict=True)],
                **{
                    "ids": ids.tolist(),
                    "pair": pair,
                    "class": classes[0],
                    "ends": list(text.ends),
                    "start": text.start,
                },
                "logits": np.asarray(model(params, batch))[0].tolist(),
            }
            (folder / "expected.json").write_text(json.dumps(expected))


def read(out: Path) -> int:
    import numpy as np
    import torch
    import transformers

    wrong = 0
    for folder in sorted(path.parent for path in out.glob("*/expected.json")):
        expected, found = json.loads((folder / "expected.json").read_text()), []
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        for text, ids, decoded in expected["rows"]:
            if (got := tokenizer(text).input_ids) != ids:
                found.append(f"ids of {text!r}: {got}, not {ids}")
            if (got := tokenizer.decode(ids, skip_special_tokens=True)) != decoded:
                found.append(f"text {got!r}, not {decoded!r}")
        config = transformers.AutoConfig.from_pretrained(folder)
        said = (config.bos_token_id, config.eos_token_id, tokenizer.model_max_length, bool(tokenizer.chat_template))
        if said != (None, *expected["ends"], CONTEXT, True):
            found.append(f"begin, end, context, template: {said}")
        if expected["pair"] and config.decoder_start_token_id != expected["start"]:
            found.append(f"start {config.decoder_start_token_id}")
        kind = getattr(transformers, expected["class"])
        plain = {"attn_implementation": "eager", "experts_implementation": "eager"}
        model = kind.from_pretrained(folder, dtype=torch.float32, **plain).eval()
        ids, want = torch.tensor(expected["ids"]), np.array(expected["logits"])
        more = {"decoder_input_ids": ids} if expected["pair"] else {}
        with torch.no_grad():
            logits = model(input_ids=ids, **more).logits[0].numpy()
            if model.can_generate():
                model.generate(**tokenizer("the old river", return_tensors="pt"), max_new_tokens=4, do_sample=False)
        off = np.abs(logits - want).max() / np.abs(want).max()
        if off > 1e-4 and not folder.name.startswith(OTHER_LOGITS):
            found.append(f"logits differ by {off:.1e}")
        wrong += bool(found)
        print(folder.name, "equal" if not found else "; ".join(found))
    print(f"{wrong} differ")
    return wrong > 0


if __name__ == "__main__":
    commands = {"write": write, "read": read}
    sys.exit(commands[sys.argv[1]](Path(sys.argv[2]), *sys.argv[3:]))
