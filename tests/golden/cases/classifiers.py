"""Other heads on the decoders: classifiers of rows and of tokens, and ends of answers."""

from tests.golden.case import Case
from tests.golden.cases import decoders, experts, further, recent

# Which of a decoder's cases -> the classes beside its language model.
ROWS, TOKENS, ANSWERS = "ForSequenceClassification", "ForTokenClassification", "ForQuestionAnswering"
BASES = {
    "gpt1": ("OpenAIGPT", ROWS),
    "gpt2": ("GPT2", ROWS, TOKENS, ANSWERS),
    "gpt_neo": ("GPTNeo", ROWS, TOKENS, ANSWERS),
    "gptj": ("GPTJ", ROWS, ANSWERS),
    "gpt_neox": ("GPTNeoX", ROWS, TOKENS, ANSWERS),
    "opt": ("OPT", ROWS, ANSWERS),
    "bloom": ("Bloom", ROWS, TOKENS, ANSWERS),
    "falcon_40b": ("Falcon", ROWS, TOKENS, ANSWERS),
    "mpt": ("Mpt", ROWS, TOKENS, ANSWERS),
    "bigcode_multi_query": ("GPTBigCode", ROWS, TOKENS),
    "starcoder2": ("Starcoder2", ROWS, TOKENS),
    "llama_gqa_tied": ("Llama", ROWS, TOKENS, ANSWERS),
    "mistral": ("Mistral", ROWS, TOKENS, ANSWERS),
    "qwen2": ("Qwen2", ROWS, TOKENS, ANSWERS),
    "qwen3": ("Qwen3", ROWS, TOKENS, ANSWERS),
    "gemma": ("Gemma", ROWS, TOKENS),
    "gemma2": ("Gemma2", ROWS, TOKENS),
    "gemma3": ("Gemma3Text", ROWS),
    "phi": ("Phi", ROWS, TOKENS),
    "phi3": ("Phi3", ROWS, TOKENS),
    "nemotron": ("Nemotron", ROWS, TOKENS, ANSWERS),
    "glm": ("Glm", ROWS, TOKENS),
    "glm4": ("Glm4", ROWS, TOKENS),
    "stablelm": ("StableLm", ROWS, TOKENS),
    "olmo": ("Olmo", ROWS),
    "olmo2": ("Olmo2", ROWS),
    "olmo3": ("Olmo3", ROWS),
    "smollm3": ("SmolLM3", ROWS, TOKENS, ANSWERS),
    "mixtral": ("Mixtral", ANSWERS),
    "qwen2_moe": ("Qwen2Moe", ROWS),
    "qwen3_moe": ("Qwen3Moe", ANSWERS),
    "gpt_oss": ("GptOss", TOKENS),
    "phimoe": ("Phimoe", ROWS),
    "jetmoe": ("JetMoe", ROWS),
    "hunyuan_moe": ("HunYuanMoEV1", ROWS),
    "persimmon": ("Persimmon", ROWS, TOKENS),
}
SHORT = {ROWS: "rows", TOKENS: "tokens", ANSWERS: "answers"}


def _case(base: str, kind: str) -> Case:
    case = (decoders.CASES | recent.CASES | further.CASES | experts.CASES)[base]
    return case._replace(kind=kind, config={**case.config, "pad_token_id": 1, "num_labels": 3}, gradients=())


CASES: dict[str, Case] = {
    f"{base}_{SHORT[suffix]}": _case(base, stem + suffix)
    for base, (stem, *suffixes) in BASES.items()
    for suffix in suffixes
}
