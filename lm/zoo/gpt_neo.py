"""GPT-Neo (Black et al. 2021, EleutherAI): GPT-2's layers, whose attention alternates between all tokens and a window,
is not divided by sqrt(head_dim), and has a bias behind the output projection only."""

from lm.core.param import Normal
from lm.model.attention import Attention
from lm.model.block import Block
from lm.model.layers import LayerNorm
from lm.model.masks import Causal, Window
from lm.model.mlp import MLP
from lm.model.positions import Learned
from lm.model.transformer import LanguageModel
from lm.zoo.dialect import ANSWERS, Config, Custom, Dialect, Knob, Knobs, Unused, act, generators, layers_heads
from lm.zoo.family import Family
from lm.zoo.names import LAYER, SAME, TensorNames, rows, unused
from lm.zoo.parts import GLOBAL, LOCAL, decoder, head_size, layers_of, pre_norm

SIZES = {
    "125m": {"layers": 12, "d_model": 768, "heads": 12},
    "1.3b": {"layers": 24, "d_model": 2048, "heads": 16},
    "2.7b": {"layers": 32, "d_model": 2560, "heads": 20},
}


def gpt_neo(
    *,
    layers: int,
    d_model: int,
    heads: int,
    d_ff: int | None = None,
    vocab: int = 50257,
    context: int = 2048,
    layer_types: tuple[str, ...] = (),
    window: int = 256,
    activation: str = "gelu_tanh",
    eps: float = 1e-5,
    tied: bool = True,
) -> LanguageModel:
    """A GPT-Neo of any shape. By default every second layer is local; d_ff defaults to 4 d_model."""
    init = Normal(0.02)
    mlp = MLP(d_ff or 4 * d_model, activation, init=init, out_init=init)

    def block(kind: str) -> Block:
        attention = Attention(
            heads=heads,
            head_dim=head_size(d_model, heads),
            mask=Window(window) if kind == LOCAL else Causal(),
            biases=("o",),
            scale=1.0,
            init=init,
            out_init=init,
        )
        return pre_norm(attention, mlp, LayerNorm(eps))

    kinds = layer_types or tuple((GLOBAL, LOCAL)[i % 2] for i in range(layers))
    return decoder(
        [block(kind) for kind in layers_of(kinds, layers)],
        d_model=d_model,
        vocab=vocab,
        norm=LayerNorm(eps),
        tied=tied,
        position=Learned(context, init=init),
        init=init,
    )


FAMILIES = {"gpt_neo": Family(gpt_neo, SIZES, "Black et al. 2021")}

# transformers' GPTNeoForCausalLM.
HF: TensorNames = (
    ("body/embed/token", "transformer.wte.weight", SAME),
    ("body/embed/position/w", "transformer.wpe.weight", SAME),
    *rows(
        LAYER,
        "transformer.h.{layer}.",
        ("attention_norm", "ln_1"),
        ("attention/q", "attn.attention.q_proj"),
        ("attention/k", "attn.attention.k_proj"),
        ("attention/v", "attn.attention.v_proj"),
        ("attention/o", "attn.attention.out_proj"),
        ("mlp_norm", "ln_2"),
        ("mlp/up", "mlp.c_fc"),
        ("mlp/down", "mlp.c_proj"),
    ),
    *rows("body/stack/", "transformer.", ("norm", "ln_f")),
    ("head/w", "lm_head.weight", SAME),
    *unused("transformer.h.{layer}.attn.attention.bias", "transformer.h.{layer}.attn.attention.masked_bias"),
)
THEIRS = {"global": GLOBAL, "local": LOCAL}


def _read(config: Config) -> Knobs:
    """attention_types [[["global", "local"], 12]]: patterns and how often each is repeated."""
    types = config.get("attention_types", [[["global", "local"], 12]])
    return {"layer_types": tuple(THEIRS[kind] for pattern, times in types for _ in range(times) for kind in pattern)}


def _write(knobs: Knobs) -> dict:
    layers = knobs["layers"]
    kinds = knobs["layer_types"] or tuple((GLOBAL, LOCAL)[i % 2] for i in range(layers))
    return {"attention_types": [[["global" if kind == GLOBAL else "local"], 1] for kind in kinds]}


DIALECTS = {
    "gpt_neo": Dialect(
        "gpt_neo",
        generators("GPTNeo", tokens="classifier", answers=ANSWERS),
        (
            *layers_heads("hidden_size", "num_layers", "num_heads"),
            Knob("vocab", "vocab_size", 50257),
            Knob("context", "max_position_embeddings", 2048),
            Knob("d_ff", "intermediate_size", None),
            Custom(("attention_types", "attention_layers"), _read, _write),
            Knob("window", "window_size", 256),
            act("activation", "activation_function", "gelu_new"),
            Knob("eps", "layer_norm_epsilon", 1e-5),
            Knob("tied", "tie_word_embeddings", True),
            Unused("resid_dropout", "embed_dropout", "attention_dropout", "classifier_dropout"),
        ),
        HF,
        "transformer.",
    )
}
