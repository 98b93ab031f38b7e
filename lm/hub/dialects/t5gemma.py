"""transformers' T5Gemma: two Gemma2 configs in one, and a norm before and after each of a layer's three parts."""

from lm.hub.dialects import gemma
from lm.hub.tables.classes import BASE_MODEL
from lm.hub.tables.decoders import GATED
from lm.hub.tables.format import Fixed, HFClass, HFFormat, Knob, Nested, Unused, label_count
from lm.hub.tables.tensor_names import SAME, TensorNames, attention_names, entries, tower_names
from lm.model.heads import SequenceClassifier, TokenClassifier

PARTS = (("attention", "self_attn"), ("cross", "cross_attn"), ("mlp", "feedforward"))
LAYER = (
    *((f"{part}_norm/before", f"pre_{name}_layernorm") for part, name in PARTS),
    *((f"{part}_norm/after", f"post_{name}_layernorm") for part, name in PARTS),
    *attention_names("self_attn."),
    *attention_names("cross_attn.", part="cross"),
    *GATED,
)


def _tower(ours: str, theirs: str) -> TensorNames:
    return tower_names(ours, f"model.{theirs}.", LAYER, layers="layers", token="embed_tokens", norm="norm")


NAMES: TensorNames = (
    *_tower("encoder", "encoder"),
    *_tower("body", "encoder"),
    *_tower("decoder", "decoder"),
    ("head/w", "lm_head.out_proj.weight", SAME),
)
PAIR, ENCODER = {"encoder_only": False}, {"encoder_only": True}
SCORES = entries("head/", "", ("out", "score.out_proj"))
CLASSES = {
    "T5GemmaForConditionalGeneration": HFClass(PAIR),
    "T5GemmaModel": BASE_MODEL._replace(knobs=PAIR),
    "T5GemmaEncoderModel": BASE_MODEL._replace(knobs=ENCODER),
    "T5GemmaForSequenceClassification": HFClass(
        head=lambda config: SequenceClassifier(label_count(config), at="last"), names=SCORES
    ),
    "T5GemmaForTokenClassification": HFClass(head=lambda config: TokenClassifier(label_count(config)), names=SCORES),
}
# Gemma 2's fields, of which one is about both towers, and one about the decoder alone.
INNER = tuple(f for f in gemma.MODEL_TYPES["gemma2"].fields if f.keys[0] != "tie_word_embeddings")
DROPOUT = Unused("dropout_rate", "attention_dropout", "classifier_dropout_rate")
READS = (*(f for f in INNER if f.keys[0] != "final_logit_softcapping"), Unused("final_logit_softcapping"))
SHARED = ("cap", "final_cap", "activation", "theta", "scaling", "attention_bias", "eps")
KIND = "t5_gemma_module"

MODEL_TYPES = {
    "t5gemma": HFFormat(
        "t5gemma",
        CLASSES,
        (
            Nested("encoder", {KIND: (*READS, DROPOUT, Fixed("is_decoder", (False,)), Unused("tie_word_embeddings"))}),
            Nested(
                "decoder",
                {KIND: (*INNER, DROPOUT, Fixed("is_decoder", (True,)), Unused("tie_word_embeddings"))},
                prefix="decoder_",
                whole=SHARED,
            ),
            Knob("tied", "tie_word_embeddings", True),
            Knob("encoder_only", "is_encoder_decoder", True, lambda pair: not pair, lambda alone: not alone),
            DROPOUT,
            Unused("vocab_size"),  # each tower has its own
        ),
        NAMES,
        tokenizer="GemmaTokenizer",
    )
}
