"""transformers' XLNet, whose projections are [d_model, heads, head_dim], that of the outputs too."""

from lm.hub.tables.classes import ANSWERS, BASE_MODEL, token_classifier
from lm.hub.tables.format import Fixed, HFClass, HFFormat, Knob, Unused, activation, label_count, size_fields
from lm.hub.tables.tensor_names import LAYER, SAME, Layout, TensorNames, entries, mlp_names, norm_names, tower_names
from lm.model.heads import SequenceClassifier

HEADS_IN, HEADS_OUT = Layout(split="heads"), Layout(transpose=True, split="heads")
ATTENTION = "transformer.layer.{layer}.rel_attn."
NAMES: TensorNames = (
    *tower_names(
        "body",
        "transformer.",
        mlp_names("ff.layer_1", "ff.layer_2"),
        norm_names("rel_attn.layer_norm", "ff.layer_norm"),
        layers="layer",
        token="word_embedding",
    ),
    ("body/embed/blank", "transformer.mask_emb", Layout(split=1)),
    *((f"{LAYER}attention/{x}/w", f"{ATTENTION}{x}", HEADS_IN) for x in "qkv"),
    (f"{LAYER}attention/o/w", f"{ATTENTION}o", HEADS_OUT),
    (f"{LAYER}attention/terms/0/r/w", f"{ATTENTION}r", HEADS_IN),
    (f"{LAYER}attention/terms/0/u", f"{ATTENTION}r_w_bias", SAME),
    (f"{LAYER}attention/terms/0/v", f"{ATTENTION}r_r_bias", SAME),
    (f"{LAYER}attention/terms/1/b", f"{ATTENTION}r_s_bias", SAME),
    (f"{LAYER}attention/terms/1/e", f"{ATTENTION}seg_embed", SAME),
    ("head/w", "lm_loss.weight", SAME),
    ("head/b", "lm_loss.bias", SAME),
)
SUMMARY = HFClass(  # of the last token
    head=lambda config: SequenceClassifier(label_count(config), at="last", activation="tanh"),
    names=entries("head/", "", ("dense", "sequence_summary.summary"), ("out", "logits_proj")),
)
KINDS = {"bi": False, "uni": True}
MODEL_TYPES = {
    "xlnet": HFFormat(
        "xlnet",
        {
            "XLNetLMHeadModel": HFClass(),
            "XLNetModel": BASE_MODEL,
            "XLNetForSequenceClassification": SUMMARY,
            "XLNetForTokenClassification": token_classifier("classifier"),
            "XLNetForQuestionAnsweringSimple": ANSWERS,
        },
        (
            *size_fields("d_model", "n_layer", "n_head", "d_inner"),
            Knob("head_dim", "d_head", None),
            Knob("vocab", ("vocab_size", "n_token"), 32000),
            activation("ff_activation", "gelu"),
            Knob("causal", "attn_type", "bi", KINDS.__getitem__, lambda causal: "uni" if causal else "bi"),
            Knob("memory", "mem_len", 512, lambda n: n or None),
            Knob("reuse", "reuse_len", None, lambda n: n or None),
            Knob("clamp", "clamp_len", -1, lambda n: n if n > 0 else None, lambda n: n or -1),
            Knob("eps", "layer_norm_eps", 1e-12),
            Knob("tied", "tie_word_embeddings", True),
            Unused("untie_r"),  # files hold the biases of each layer either way
            Fixed("same_length", (False,)),  # what it hides depends on how much was remembered so far
            Fixed("bi_data", (False,)),  # reads the second half of a batch backwards: positions can
            Fixed("summary_type", ("last",)),
            Fixed("summary_use_proj", (True,)),
            Fixed("summary_activation", ("tanh",)),
            Unused("dropout", "summary_last_dropout", "use_mems_eval", "use_mems_train", "start_n_top", "end_n_top"),
        ),
        NAMES,
        "transformer.",
        tokenizer="XLNetTokenizer",
    )
}
