"""Languages of a translation, and what generation_config.json says of decoding: applied, or told."""

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lm.core.errors import UserError
from lm.hub.text import read_text
from lm.infer.decoding import Decoding, decoding_of, in_languages, lacks_language, languages
from lm.infer.generate import Generator
from lm.infer.prompt import prompt_of
from lm.infer.sampling import Sampler
from lm.text.format import TextFormat
from lm.text.hf_tokenizer import HFTokenizer
from tests import toy_towers, toys

tokenizers = pytest.importorskip("tokenizers", reason="the package tokenizers is not installed")
CODES = {"mbart": ["en_XX", "fr_XX"], "nllb": ["eng_Latn", "fra_Latn"], "m2m": ["__en__", "__fr__"]}
EN, FR = 4, 5


def tokenizer(kind: str) -> Any:
    vocab = {piece: i for i, piece in enumerate(["<s>", "<pad>", "</s>", "<unk>", *CODES.get(kind, []), *"abc"])}
    made = tokenizers.Tokenizer(tokenizers.models.BPE(vocab, [], unk_token="<unk>"))
    made.add_special_tokens(["<s>", "<pad>", "</s>", "<unk>", *CODES.get(kind, [])])
    return made


def text(kind: str, **more: Any) -> TextFormat:
    return TextFormat(HFTokenizer(tokenizer(kind).to_str(), {"eos": "</s>"}), (2,), start=2, **more)


def test_languages_are_known_by_their_codes():
    assert languages(text("mbart").tokenizer) == {"en_XX": EN, "fr_XX": FR}
    assert languages(text("nllb").tokenizer) == {"eng_Latn": EN, "fra_Latn": FR}
    assert languages(text("m2m").tokenizer) == {"en": EN, "fr": FR}
    assert languages(text("other").tokenizer) == {}


def test_a_translation_begins_with_its_language():
    """mBART-50, NLLB and M2M are forced to it after the start, mBART starts with it."""
    pair = toy_towers.encoder_decoder()
    m2m = in_languages(text("m2m", before=(EN,), after=(2,)), None, "fr")
    assert prompt_of(pair, m2m, np.array([6, 7])).ids.tolist() == [2, FR]
    assert prompt_of(pair, m2m, np.array([6, 7])).encoder.tolist() == [EN, 6, 7, 2]
    mbart = in_languages(text("mbart", after=(2, EN))._replace(start=EN), "fr_XX", "fr_XX")
    prompt = prompt_of(pair, mbart, np.array([6, 7]))
    assert prompt.ids.tolist() == [FR] and prompt.encoder.tolist() == [6, 7, 2, FR]


def test_a_language_that_is_not_chosen_is_told():
    several = text("m2m", before=(EN,))
    assert lacks_language(several) and not lacks_language(in_languages(several, None, "en"))
    assert not lacks_language(text("other")) and not lacks_language(several._replace(start=EN))


def test_languages_that_are_not_there():
    with pytest.raises(UserError, match=r"--language=fr_X is not a language of this model; did you mean 'fr_XX'\?"):
        in_languages(text("mbart"), None, "fr_X")
    with pytest.raises(UserError, match=r"--language=fr: this model has no tokens of languages; .* as >>fra<<"):
        in_languages(text("other"), None, "fr")
    with pytest.raises(UserError, match="--source_language=en: this model is not told the language of what it reads"):
        in_languages(text("m2m"), "en")


@pytest.mark.parametrize(("target", "forced"), [("fr", FR), (None, None)])
def test_a_folder_says_its_languages(tmp_path, target, forced):
    """tgt_lang counts where generation_config.json forces nothing."""
    tokenizer("m2m").save(str(tmp_path / "tokenizer.json"))
    write(tmp_path / "tokenizer_config.json", {"eos_token": "</s>", "tgt_lang": target})
    write(tmp_path / "config.json", {"model_type": "m2m_100", "decoder_start_token_id": 2})
    read = read_text(tmp_path)
    assert read.start == 2 and (read.generation or {}).get("forced_bos_token_id") == forced
    write(tmp_path / "generation_config.json", {"decoder_start_token_id": 1, "forced_bos_token_id": EN})
    assert read_text(tmp_path).generation == {"forced_bos_token_id": EN} and read_text(tmp_path).start == 1


def write(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value))


def test_what_is_applied_and_what_is_told():
    settings = {"suppress_tokens": [3], "begin_suppress_tokens": [4], "bad_words_ids": [[5], [6, 7]], "num_beams": 4}
    settings |= {"forced_eos_token_id": 2, "no_repeat_ngram_size": 3, "repetition_penalty": 1.0, "temperature": 0.6}
    note = "generation_config.json asks for num_beams=4, no_repeat_ngram_size=3, bad_words_ids of several tokens, "
    assert decoding_of(text("m2m", generation=settings)) == Decoding((3, 5), (4,), 2, (f"{note}which is not applied",))
    assert decoding_of(text("m2m", generation={"forced_eos_token_id": [2, 1]})) == Decoding(last=2)
    assert decoding_of(text("m2m")) == Decoding()


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_banned_tokens_are_never_drawn(temperature):
    logits = jnp.array([[0.0, 9.0, 8.0, 7.0]] * 64)
    keys = jax.random.split(jax.random.key(0), 64)
    sampler = Sampler(temperature, banned=(1, 99), banned_first=(2,))
    drawn, first = set(sampler(keys, logits).tolist()), set(sampler.first(keys, logits).tolist())
    assert 1 not in drawn and 2 in drawn and not first & {1, 2} and 3 in first


def test_the_first_and_the_last_of_a_text():
    model = toys.language_model([toys.block(toys.attention())] * 2)
    generator = Generator(model, toys.values(model.spec()))
    greedy, prompts = Sampler(temperature=0), [np.array([1, 2, 3])]
    plain = generator(prompts, max_new=5, sampler=greedy)[0].tolist()
    banned = generator(prompts, max_new=5, sampler=Sampler(0, banned_first=(plain[0],)))[0].tolist()
    assert banned[0] != plain[0]
    assert generator(prompts, max_new=5, sampler=greedy, last=0)[0].tolist() == [*plain[:4], 0]
    assert generator(prompts, max_new=5, sampler=greedy, last=0, eos_id=0)[0].tolist() == [t for t in plain[:4] if t]
