"""XLNet (Yang et al. 2019, arXiv 1906.08237): a post-LayerNorm encoder with Transformer-XL's relative positions and
memory, and a term for pairs of tokens of one segment (row `types`). It learns to predict tokens in any order: the row
`order` tells which tokens a token may see, and asks for some that are not there (see `lm.model.masks.Permuted`), by
which both of the paper's streams are one batch: S tokens, then a query for each that is to be predicted, at its
position.

Without that row it is a bidirectional encoder or, `causal`, a decoder. For text that is read backwards (bi_data) give
positions that run down. transformers' generation, which asks a query stream and recomputes the last tokens, is not
what cached decoding computes here."""

from lm.core.param import Normal
from lm.model.attention import Attention
from lm.model.attention_bias import RelativeBias, SameType
from lm.model.block import Block
from lm.model.embed import Embed
from lm.model.heads import LMHead, SequenceClassifier
from lm.model.kv_sources import SegmentMemory, SelfKV
from lm.model.layers import LayerNorm
from lm.model.masks import Permuted
from lm.model.mlp import MLP
from lm.model.residual import PostNorm
from lm.model.stack import Stack
from lm.model.transformer import LanguageModel, Transformer
from lm.zoo.dialect import (
    ANSWERS,
    BASE,
    Class,
    Dialect,
    Fixed,
    Knob,
    Unused,
    act,
    labels,
    layers_heads,
    token_labels,
)
from lm.zoo.family import Family
from lm.zoo.names import LAYER, SAME, Layout, TensorNames, rows
from lm.zoo.parts import head_size

SIZES = {
    "base": {"layers": 12, "d_model": 768, "heads": 12, "d_ff": 3072},
    "large": {"layers": 24, "d_model": 1024, "heads": 16, "d_ff": 4096},
}


def xlnet(
    *,
    layers: int,
    d_model: int,
    heads: int,
    d_ff: int,
    head_dim: int | None = None,
    vocab: int = 32000,
    activation: str = "gelu",
    causal: bool = False,
    memory: int | None = None,
    reuse: int | None = None,
    clamp: int | None = None,
    eps: float = 1e-12,
    dropout: float = 0.0,
    tied: bool = True,
) -> LanguageModel:
    """An XLNet of any shape; head_dim defaults to d_model / heads. `memory`: tokens kept from earlier calls, of each
    the first `reuse` (all); with queries in a batch set `reuse`, so that they are not remembered. Distances count up to
    `clamp`."""
    init = Normal(0.02)
    attention = Attention(
        heads=heads,
        head_dim=head_dim or head_size(d_model, heads),
        mask=Permuted(causal),
        terms=(RelativeBias(clamp=clamp, init=init), SameType(init)),
        source=SegmentMemory(memory, reuse) if memory else SelfKV(),
        dropout=dropout,
        init=init,
        out_init=init,
    )
    mlp = MLP(d_ff, activation, dropout=dropout, init=init, out_init=init)
    block = Block((("attention", attention), ("mlp", mlp)), PostNorm(LayerNorm(eps), dropout=dropout))
    return LanguageModel(
        body=Transformer(d_model, Embed(vocab, blank=True, dropout=dropout, init=init), Stack.of([block] * layers)),
        head=LMHead(vocab, bias=True, init=init),
        ties=(("head/w", "body/embed/token"),) if tied else (),
    )


FAMILIES = {"xlnet": Family(xlnet, SIZES, "arXiv 1906.08237")}

# transformers' XLNetLMHeadModel. Projections are [d_model, heads, head_dim], that of the outputs too.
HEADS_IN, HEADS_OUT = Layout(split="heads"), Layout(transpose=True, split="heads")
HF: TensorNames = (
    ("body/embed/token", "transformer.word_embedding.weight", SAME),
    ("body/embed/blank", "transformer.mask_emb", Layout(split=1)),
    *((f"{LAYER}attention/{x}/w", f"transformer.layer.{{layer}}.rel_attn.{x}", HEADS_IN) for x in "qkv"),
    (f"{LAYER}attention/o/w", "transformer.layer.{layer}.rel_attn.o", HEADS_OUT),
    (f"{LAYER}attention/terms/0/r/w", "transformer.layer.{layer}.rel_attn.r", HEADS_IN),
    (f"{LAYER}attention/terms/0/u", "transformer.layer.{layer}.rel_attn.r_w_bias", SAME),
    (f"{LAYER}attention/terms/0/v", "transformer.layer.{layer}.rel_attn.r_r_bias", SAME),
    (f"{LAYER}attention/terms/1/b", "transformer.layer.{layer}.rel_attn.r_s_bias", SAME),
    (f"{LAYER}attention/terms/1/e", "transformer.layer.{layer}.rel_attn.seg_embed", SAME),
    *rows(
        LAYER,
        "transformer.layer.{layer}.",
        ("attention_norm", "rel_attn.layer_norm"),
        ("mlp/up", "ff.layer_1"),
        ("mlp/down", "ff.layer_2"),
        ("mlp_norm", "ff.layer_norm"),
    ),
    ("head/w", "lm_loss.weight", SAME),
    ("head/b", "lm_loss.bias", SAME),
)
SUMMARY = Class(  # of the last token
    head=lambda config: SequenceClassifier(labels(config), at="last", activation="tanh"),
    names=rows("head/", "", ("dense", "sequence_summary.summary"), ("out", "logits_proj")),
)
KINDS = {"bi": False, "uni": True}
DIALECTS = {
    "xlnet": Dialect(
        "xlnet",
        {
            "XLNetLMHeadModel": Class(),
            "XLNetModel": BASE,
            "XLNetForSequenceClassification": SUMMARY,
            "XLNetForTokenClassification": token_labels("classifier"),
            "XLNetForQuestionAnsweringSimple": ANSWERS,
        },
        (
            *layers_heads("d_model", "n_layer", "n_head", "d_inner"),
            Knob("head_dim", "d_head", None),
            Knob("vocab", ("vocab_size", "n_token"), 32000),
            act("activation", "ff_activation", "gelu"),
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
        HF,
        "transformer.",
    )
}
