"""Gemma 1 (Gemma team 2024, arXiv 2403.08295), 2 (2408.00118) and 3 (2503.19786): RMS norms with gains 1 + w,
embeddings times sqrt(d), GeGLU, heads wider than d / heads, a tied head. Gemma 2 norms on both sides of each sub-
layer, caps scores and logits and alternates windows with full attention; Gemma 3 has norms of queries and keys
instead of caps, and five layers with a window, and a rotary base of their own, to one without."""

import functools
import math
from types import MappingProxyType
from typing import Any

from lm.core.errors import UserError
from lm.core.param import Normal
from lm.model.attention import Attention
from lm.model.block import Block
from lm.model.heads import LMHead
from lm.model.layers import RMSNorm
from lm.model.masks import Bidirectional, Causal, Window
from lm.model.mlp import GatedMLP
from lm.model.residual import PreNorm, Sandwich
from lm.model.rotary import LinearScaling, Rotary, Scaling
from lm.model.transformer import LanguageModel
from lm.zoo import llama
from lm.zoo.dialect import (
    BASE,
    SEQUENCE,
    Class,
    Config,
    Custom,
    Dialect,
    Field,
    Fixed,
    Knob,
    Knobs,
    Unused,
    act,
    count,
    generators,
    layer_kinds,
    number,
)
from lm.zoo.family import Family, Sizes
from lm.zoo.names import LAYER, SAME, TensorNames, rows, unused
from lm.zoo.parts import GLOBAL, LOCAL, decoder, layers_of
from lm.zoo.rope import Rope, RopeByLayer

SIZES_1 = {
    "2b": {"layers": 18, "d_model": 2048, "heads": 8, "kv_heads": 1, "d_ff": 16384},
    "7b": {"layers": 28, "d_model": 3072, "heads": 16, "kv_heads": 16, "d_ff": 24576},
}
SIZES_2: Sizes = {
    "2b": {"layers": 26, "d_model": 2304, "heads": 8, "kv_heads": 4, "d_ff": 9216},
    "9b": {"layers": 42, "d_model": 3584, "heads": 16, "kv_heads": 8, "d_ff": 14336},
    "27b": {
        "layers": 46,
        "d_model": 4608,
        "heads": 32,
        "kv_heads": 16,
        "head_dim": 128,
        "d_ff": 36864,
        "scalar": 144.0,
    },
}
_3 = {"vocab": 262208, "window": 1024, "scaling": LinearScaling(8.0)}
SIZES_3: Sizes = {
    "270m": {"layers": 18, "d_model": 640, "heads": 4, "kv_heads": 1, "d_ff": 2048, "vocab": 262144, "window": 512},
    "1b": {"layers": 26, "d_model": 1152, "heads": 4, "kv_heads": 1, "d_ff": 6912, "vocab": 262144, "window": 512},
    "4b": {"layers": 34, "d_model": 2560, "heads": 8, "kv_heads": 4, "d_ff": 10240, **_3},
    "12b": {"layers": 48, "d_model": 3840, "heads": 16, "kv_heads": 8, "d_ff": 15360, **_3},
    "27b": {
        "layers": 62,
        "d_model": 5376,
        "heads": 32,
        "kv_heads": 16,
        "head_dim": 128,
        "d_ff": 21504,
        "scalar": 168.0,
        **_3,
    },
}


def gemma(
    *,
    layers: int,
    d_model: int,
    heads: int,
    d_ff: int,
    kv_heads: int | None = None,
    head_dim: int = 256,
    vocab: int = 256000,
    sandwich: bool = False,
    qk_norm: bool = False,
    scalar: float | None = None,
    cap: float = 0.0,
    final_cap: float = 0.0,
    layer_types: tuple[str, ...] = (),
    pattern: int = 1,
    window: int = 4096,
    activation: str = "gelu_tanh",
    theta: float = 10000.0,
    scaling: Scaling | None = None,
    local_theta: float | None = None,
    local_scaling: Scaling | None = None,
    attention_bias: bool = False,
    bidirectional: bool = False,
    eps: float = 1e-6,
    tied: bool = True,
) -> LanguageModel:
    """A Gemma of any shape. Scores are divided by sqrt(`scalar`), by default head_dim. Of `pattern` layers all but the
    last have a window, unless `layer_types` says otherwise; they use `local_theta` and `local_scaling` if the first is
    given. Scores and logits are capped by `cap` and `final_cap`, unless these are 0. `bidirectional` ones, which embed
    texts (EmbeddingGemma), see the keys behind a query too, in windows to both sides."""
    init, norm = Normal(0.02), RMSNorm(eps, gain="1+w")
    mlp = GatedMLP(d_ff, activation, init=init, out_init=init)
    residual = Sandwich(norm, norm) if sandwich else PreNorm(norm)
    local = Window(window, window if bidirectional else 1)
    everywhere = Bidirectional() if bidirectional else Causal()

    def block(kind: str) -> Block:
        rotary = Rotary(theta=theta, scaling=scaling)
        if kind == LOCAL and local_theta is not None:
            rotary = Rotary(theta=local_theta, scaling=local_scaling)
        attention = Attention(
            heads=heads,
            head_dim=head_dim,
            kv_heads=kv_heads,
            mask=local if kind == LOCAL else everywhere,
            rotary=rotary,
            biases=("q", "k", "v", "o") if attention_bias else (),
            scale=None if scalar is None else scalar**-0.5,
            cap=cap or None,
            q_norm=norm if qk_norm else None,
            k_norm=norm if qk_norm else None,
            init=init,
            out_init=init,
        )
        return Block((("attention", attention), ("mlp", mlp)), residual)

    return decoder(
        [block(kind) for kind in layers_of(layer_types, layers, pattern)],
        d_model=d_model,
        vocab=vocab,
        norm=norm,
        tied=tied,
        embed_scale=math.sqrt(d_model),
        head=LMHead(vocab, cap=final_cap or None, init=init),
        init=init,
    )


gemma2 = functools.partial(gemma, sandwich=True, scalar=256.0, cap=50.0, final_cap=30.0, pattern=2)
gemma3 = functools.partial(
    gemma,
    vocab=262208,
    sandwich=True,
    qk_norm=True,
    scalar=256.0,
    pattern=6,
    theta=1000000.0,
    local_theta=10000.0,
)
FAMILIES = {
    "gemma": Family(gemma, SIZES_1, "arXiv 2403.08295"),
    "gemma2": Family(gemma2, SIZES_2, "arXiv 2408.00118"),
    "gemma3": Family(gemma3, SIZES_3, "arXiv 2503.19786"),
}

# transformers' Gemma2ForCausalLM and Gemma3ForCausalLM: what others call post_attention_layernorm comes before the MLP.
HF_2: TensorNames = (
    ("body/embed/token", "model.embed_tokens.weight", SAME),
    *rows(
        LAYER,
        "model.layers.{layer}.",
        ("attention_norm/before", "input_layernorm"),
        ("attention_norm/after", "post_attention_layernorm"),
        ("attention/q", "self_attn.q_proj"),
        ("attention/k", "self_attn.k_proj"),
        ("attention/v", "self_attn.v_proj"),
        ("attention/o", "self_attn.o_proj"),
        ("attention/q_norm", "self_attn.q_norm"),
        ("attention/k_norm", "self_attn.k_norm"),
        ("mlp_norm/before", "pre_feedforward_layernorm"),
        ("mlp_norm/after", "post_feedforward_layernorm"),
        ("mlp/gate", "mlp.gate_proj"),
        ("mlp/up", "mlp.up_proj"),
        ("mlp/down", "mlp.down_proj"),
    ),
    *rows("body/stack/", "model.", ("norm", "norm")),
    ("head/w", "lm_head.weight", SAME),
    *unused("model.layers.{layer}.self_attn.rotary_emb.inv_freq"),
)


def _cap(ours: str, theirs: str, default: float | None) -> Knob:
    return Knob(ours, theirs, default, lambda cap: float(cap or 0), lambda cap: cap or None)


_ROPES = RopeByLayer(
    Rope(theta=1000000.0, longest=131072),
    Rope(theta=10000.0, longest=131072, theta_name="rope_local_base_freq"),
    scaled=(GLOBAL,),
)
_SHARED: tuple[Field, ...] = (
    *(f for f in llama.SHARED if f.names != ("head_dim",)),
    Knob("head_dim", "head_dim", 256),
    Knob("eps", "rms_norm_eps", 1e-6),
    Knob("attention_bias", "attention_bias", False),
    Knob("tied", "tie_word_embeddings", True),
)
_CAUSAL = Fixed("use_bidirectional_attention", (None, False))


def _scalar(value: Any) -> float:
    return number("query_pre_attn_scalar", value, above=0)


_LATER: tuple[Field, ...] = (
    *_SHARED,
    act("activation", "hidden_activation", "gelu_pytorch_tanh"),
    Knob("scalar", "query_pre_attn_scalar", 256, _scalar, lambda s: int(s) if s == int(s) else s),
)
# Gemma 1's configs say `gelu` in hidden_act and mean the tanh form; hidden_activation, where there is one, wins.
_ACT = {"gelu": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "gelu_new": "gelu_tanh", "silu": "silu", "relu": "relu"}


def _read_act(config: Config) -> Knobs:
    field = "hidden_activation" if config.get("hidden_activation") else "hidden_act"
    name = config.get(field) or "gelu_pytorch_tanh"
    return act("activation", field, "gelu_pytorch_tanh", _ACT).read({field: name})


def _write_act(knobs: Knobs) -> dict:
    name = {"gelu_tanh": "gelu_pytorch_tanh"}.get(knobs["activation"], knobs["activation"])
    return {"hidden_act": name, "hidden_activation": name}


BOTH_WAYS, WINDOW = "use_bidirectional_attention", "sliding_window"


def _read_window(config: Config) -> Knobs:
    """Where attention goes both ways, the file's window is that of both sides."""
    both, window = config.get(BOTH_WAYS), count(WINDOW)(config.get(WINDOW, 4096))
    if both not in (None, True, False) or isinstance(both, (int, float)) is not isinstance(both, bool):
        raise UserError(f"{BOTH_WAYS}={both!r} is not understood: give true or false")
    return {"window": window // 2 + 1 if both else window, "bidirectional": bool(both)}


def _write_window(knobs: Knobs) -> dict:
    both, window = knobs["bidirectional"], knobs["window"]
    return {BOTH_WAYS: both, WINDOW: 2 * (window - 1) if both else window}


# What text_config leaves out in the files of models that see images as well: the model type's own defaults.
TEXT = {
    "hidden_size": 2304,
    "intermediate_size": 9216,
    "num_hidden_layers": 26,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "vocab_size": 262208,
}
DIALECTS = {
    "gemma": Dialect(
        "gemma",
        generators("Gemma"),
        (*_SHARED, _CAUSAL, Rope(longest=8192), Custom(("hidden_act", "hidden_activation"), _read_act, _write_act)),
        llama.HF,
    ),
    "gemma2": Dialect(
        "gemma2",
        generators("Gemma2"),
        (
            *_LATER,
            _CAUSAL,
            Knob("window", WINDOW, 4096),
            Rope(longest=8192),
            layer_kinds(2),
            _cap("cap", "attn_logit_softcapping", 50.0),
            _cap("final_cap", "final_logit_softcapping", 30.0),
        ),
        HF_2,
    ),
    "gemma3_text": Dialect(
        "gemma3",
        {
            "Gemma3ForCausalLM": Class(),
            "Gemma3TextModel": BASE,
            "Gemma3TextForSequenceClassification": SEQUENCE,
        },
        (
            *_LATER,
            Custom((BOTH_WAYS, WINDOW), _read_window, _write_window),
            _ROPES,
            layer_kinds(6),
            Unused("attn_logit_softcapping"),  # Gemma 2's: read by nothing there
            _cap("final_cap", "final_logit_softcapping", None),
        ),
        HF_2,
        within=MappingProxyType({"gemma3": TEXT}),
    ),
}
