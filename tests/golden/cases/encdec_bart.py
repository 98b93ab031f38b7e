"""Encoder-decoders with BART's names: name -> case."""

from typing import Any

from tests.golden.case import Case

SHAPE = {
    "vocab_size": 97,
    "d_model": 24,
    "encoder_layers": 3,
    "encoder_attention_heads": 4,
    "encoder_ffn_dim": 40,
    "decoder_layers": 2,
    "decoder_attention_heads": 3,
    "decoder_ffn_dim": 36,
    "max_position_embeddings": 40,
    "decoder_start_token_id": 2,
}
APART = {"tie_word_embeddings": False}
GRADIENTS = (
    "model.shared.weight",
    "model.encoder.layers.1.self_attn.q_proj.bias",
    "model.decoder.layers.0.encoder_attn.v_proj.weight",
)
ALONE = ("model.decoder.embed_tokens.weight", "model.decoder.layers.1.self_attn.v_proj.weight")

# While it generates, its relative positions are right with padding id 0 only, and with no more layers in the decoder.
PROPHETNET = {
    "vocab_size": 97,
    "hidden_size": 24,
    "num_encoder_layers": 3,
    "num_encoder_attention_heads": 4,
    "encoder_ffn_dim": 40,
    "num_decoder_layers": 2,
    "num_decoder_attention_heads": 3,
    "decoder_ffn_dim": 36,
    "max_position_embeddings": 40,
    "num_buckets": 10,
    "relative_max_distance": 15,
    "decoder_start_token_id": 2,
}
PROPHETS = (
    "prophetnet.decoder.ngram_embeddings.weight",
    "prophetnet.decoder.layers.1.self_attn.relative_pos_embeddings.weight",
    "prophetnet.decoder.layers.0.self_attn.value_proj.weight",
)


def _case(kind: str, gradients: tuple[str, ...] = (), positions: Any = "index", **config: Any) -> Case:
    padding = "none" if kind.endswith("ForCausalLM") else "both"  # a decoder alone counts padding on its left too
    return Case(kind, {**SHAPE, **config}, gradients, positions=positions, padding=padding)


CASES: dict[str, Case] = {
    "bart": _case("BartForConditionalGeneration", (*GRADIENTS, "model.encoder.embed_positions.weight")),
    "bart_apart": _case("BartForConditionalGeneration", activation_function="gelu_new", scale_embedding=True, **APART),
    "bart_base": _case("BartModel"),
    "bart_rows": _case("BartForSequenceClassification", eos_token_id=0, num_labels=4),
    "bart_answers": _case("BartForQuestionAnswering"),
    "bart_alone": _case("BartForCausalLM", ALONE),
    "mbart_alone": _case("MBartForCausalLM", ALONE, scale_embedding=True, **APART),
    "plbart_alone": _case("PLBartForCausalLM", ALONE),
    "pegasus_alone": _case("PegasusForCausalLM", ALONE, scale_embedding=True),
    "marian_alone": _case("MarianForCausalLM", ALONE, pad_token_id=1),
    "blenderbot_alone": _case("BlenderbotForCausalLM", ALONE),
    "blenderbot_small_alone": _case("BlenderbotSmallForCausalLM", ALONE),
    "mbart": _case("MBartForConditionalGeneration", GRADIENTS, scale_embedding=True, activation_function="relu"),
    "mbart_rows": _case("MBartForSequenceClassification", scale_embedding=True, num_labels=3),
    "mbart_answers": _case("MBartForQuestionAnswering"),
    "plbart": _case("PLBartForConditionalGeneration", GRADIENTS),
    "plbart_rows": _case("PLBartForSequenceClassification", scale_embedding=False),
    "pegasus": _case("PegasusForConditionalGeneration", GRADIENTS, scale_embedding=True, activation_function="relu"),
    "marian": _case("MarianMTModel", GRADIENTS, scale_embedding=True, activation_function="swish", pad_token_id=1),
    "marian_two_vocabularies": _case(
        "MarianMTModel",
        ("model.decoder.embed_tokens.weight", "model.encoder.embed_tokens.weight"),
        decoder_vocab_size=103,
        share_encoder_decoder_embeddings=False,
        pad_token_id=1,
    ),
    "marian_apart": _case("MarianMTModel", pad_token_id=1, **APART),
    "m2m": _case("M2M100ForConditionalGeneration", GRADIENTS, "mask", pad_token_id=2, decoder_start_token_id=1),
    "m2m_unscaled": _case(
        "M2M100ForConditionalGeneration", (), "mask", scale_embedding=False, activation_function="gelu", **APART
    ),
    "nllb_moe": _case(
        "NllbMoeForConditionalGeneration",
        (
            "model.encoder.layers.1.ffn.router.classifier.weight",
            "model.encoder.layers.1.ffn.experts.expert_2.fc1.bias",
            "model.decoder.layers.0.ffn.experts.expert_0.fc2.weight",
        ),
        "mask",
        pad_token_id=2,
        decoder_start_token_id=1,
        encoder_layers=2,
        num_experts=5,
        encoder_sparse_step=2,
        decoder_sparse_step=1,
        moe_token_dropout=0.3,
        router_bias=True,
    ),
    "nllb_moe_apart": _case(
        "NllbMoeForConditionalGeneration",
        (),
        "mask",
        num_experts=3,
        encoder_sparse_step=3,
        decoder_sparse_step=2,
        moe_token_dropout=0.0,
        scale_embedding=False,
        activation_function="gelu",
        normalize_router_prob_before_dropping=True,
        batch_prioritized_routing=True,
        **APART,
    )._replace(greedy=False),
    "nllb_moe_base": _case("NllbMoeModel", (), "mask", num_experts=4, encoder_sparse_step=3, decoder_sparse_step=2),
    "blenderbot": _case("BlenderbotForConditionalGeneration", GRADIENTS, scale_embedding=True),
    "blenderbot_small": _case(
        "BlenderbotSmallForConditionalGeneration", (*GRADIENTS, "model.decoder.layernorm_embedding.weight")
    ),
    "prophetnet": Case(
        "ProphetNetForConditionalGeneration",
        PROPHETNET,
        ("prophetnet.word_embeddings.weight", *PROPHETS),
        positions="index",
    ),
    "prophetnet_three": Case(
        "ProphetNetForConditionalGeneration",
        {**PROPHETNET, "ngram": 3, "activation_function": "relu", **APART},
        ("prophetnet.decoder.word_embeddings.weight", *PROPHETS),
        positions="index",
    ),
    "prophetnet_base": Case("ProphetNetModel", {**PROPHETNET, "pad_token_id": 2}, positions="index"),
}
