"""XLNet."""

from tests.golden.case import Case

SMALL = {
    "vocab_size": 83,
    "d_model": 24,
    "n_layer": 3,
    "n_head": 4,
    "d_inner": 40,
    "layer_norm_eps": 1e-2,
    "clamp_len": 9,
    "ff_activation": "relu",
}
LAYER = "transformer.layer.1."
MORE = ("r_w_bias", "r_r_bias", "r_s_bias", "seg_embed", "q", "o", "r")
GRADIENTS = (
    "transformer.word_embedding.weight",
    *(f"{LAYER}rel_attn.{name}" for name in MORE),
    f"{LAYER}ff.layer_1.bias",
)

CASES = {
    "xlnet": Case("XLNetLMHeadModel", SMALL, GRADIENTS, types=3, greedy=False),
    "xlnet_causal": Case(  # which fails with a mask and more than one row
        "XLNetLMHeadModel",
        {**SMALL, "attn_type": "uni", "clamp_len": -1, "ff_activation": "gelu", "mem_len": None},
        padding="none",
        greedy=False,
    ),
    "xlnet_permuted": Case(
        "XLNetLMHeadModel",
        {**SMALL, "tie_word_embeddings": False, "reuse_len": 16},
        ("transformer.mask_emb", *GRADIENTS),
        types=3,
        greedy=False,
        permuted=True,
    ),
    "xlnet_memory": Case(
        "XLNetLMHeadModel",
        {**SMALL, "mem_len": 7, "reuse_len": 13, "clamp_len": 20},
        GRADIENTS,
        padding="none",
        types=2,
        greedy=False,
        recalls=True,
    ),
    "xlnet_states": Case("XLNetModel", SMALL, types=3),
    "xlnet_rows": Case("XLNetForSequenceClassification", {**SMALL, "num_labels": 3}, types=3, padding="left"),
    "xlnet_tokens": Case("XLNetForTokenClassification", {**SMALL, "num_labels": 3}, types=3),
    "xlnet_answers": Case("XLNetForQuestionAnsweringSimple", SMALL, types=3),
}
