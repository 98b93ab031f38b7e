"""SmolLM3 (Bakouch et al. 2025, Hugging Face): LLaMA's layers with grouped queries and a tied head, of which every
fourth has no positions (NoPE to RoPE: Yang et al. 2025, arXiv 2501.18795)."""

from lm.core.errors import UserError
from lm.core.param import Normal
from lm.model.attention import Attention
from lm.model.block import Block
from lm.model.layers import RMSNorm
from lm.model.masks import Causal, Window
from lm.model.mlp import GatedMLP
from lm.model.rotary import Rotary, Scaling
from lm.model.transformer import LanguageModel
from lm.zoo import llama
from lm.zoo.dialect import ANSWERS, Config, Custom, Dialect, Knob, Knobs, act, generators
from lm.zoo.family import Family
from lm.zoo.parts import GLOBAL, LOCAL, decoder, head_size, layers_of, pre_norm
from lm.zoo.rope import Rope

SIZES = {
    "3b": {"layers": 36, "d_model": 2048, "heads": 16, "kv_heads": 4, "d_ff": 11008, "theta": 5000000.0},
}


def smollm3(
    *,
    layers: int,
    d_model: int,
    heads: int,
    d_ff: int,
    kv_heads: int | None = None,
    head_dim: int | None = None,
    vocab: int = 128256,
    rotary_pattern: int = 4,
    rotary_layers: tuple[bool, ...] = (),
    layer_types: tuple[str, ...] = (),
    window: int = 4096,
    activation: str = "silu",
    theta: float = 2000000.0,
    scaling: Scaling | None = None,
    attention_bias: bool = False,
    mlp_bias: bool = False,
    eps: float = 1e-6,
    tied: bool = True,
) -> LanguageModel:
    """A SmolLM3 of any shape. Of `rotary_pattern` layers all but the last have rotary positions, unless `rotary_layers`
    says of each layer whether it has. `layer_types` says which layers have a window, none by default."""
    rotates = rotary_layers or tuple((i + 1) % rotary_pattern != 0 for i in range(layers))
    kinds = layers_of(layer_types, layers)
    if len(rotates) != layers:
        raise UserError(f"rotary_layers has {len(rotates)} entries for {layers} layers: give one for each")
    init = Normal(0.02)
    mlp = GatedMLP(d_ff, activation, bias=mlp_bias, init=init, out_init=init)

    def block(rotate: bool, kind: str) -> Block:
        attention = Attention(
            heads=heads,
            head_dim=head_dim or head_size(d_model, heads),
            kv_heads=kv_heads,
            mask=Window(window) if kind == LOCAL else Causal(),
            rotary=Rotary(theta=theta, scaling=scaling) if rotate else None,
            biases=("q", "k", "v", "o") if attention_bias else (),
            init=init,
            out_init=init,
        )
        return pre_norm(attention, mlp, RMSNorm(eps))

    blocks = [block(rotate, kind) for rotate, kind in zip(rotates, kinds, strict=True)]
    return decoder(blocks, d_model=d_model, vocab=vocab, norm=RMSNorm(eps), tied=tied, init=init)


FAMILIES = {"smollm3": Family(smollm3, SIZES, "Hugging Face 2025")}

_WINDOWED, _WINDOW = "use_sliding_window", "sliding_window"
_ROTARY, _EVERY = "no_rope_layers", "no_rope_layer_interval"


def _read(config: Config) -> Knobs:
    """`no_rope_layers` holds 1 for layers that do rotate. Unless `layer_types` says otherwise, those that do not have
    the window."""
    layers, every = config["num_hidden_layers"], config.get(_EVERY, 4)
    told = config.get(_ROTARY)
    rotates = tuple(map(bool, told[:layers])) if told else tuple((i + 1) % every != 0 for i in range(layers))
    window = config.get(_WINDOW)
    windowed = bool(config.get(_WINDOWED)) and window is not None
    kinds = config.get("layer_types") or [GLOBAL if rotate or not windowed else LOCAL for rotate in rotates]
    if LOCAL in kinds and window is None:
        raise UserError(f"layer_types holds {LOCAL!r}, but {_WINDOW} is null: give the window's width")
    knobs: Knobs = {"rotary_layers": rotates, "layer_types": tuple(kinds)}
    return knobs | ({} if window is None else {"window": window})


def _write(knobs: Knobs) -> dict:
    layers, every = knobs["layers"], knobs["rotary_pattern"]
    return {
        _ROTARY: [int(x) for x in knobs["rotary_layers"] or ((i + 1) % every != 0 for i in range(layers))],
        "layer_types": list(knobs["layer_types"]) or [GLOBAL] * layers,
        _WINDOWED: LOCAL in knobs["layer_types"],
        _WINDOW: knobs["window"] if LOCAL in knobs["layer_types"] else None,
    }


DIALECTS = {
    "smollm3": Dialect(
        "smollm3",
        generators("SmolLM3", answers=ANSWERS._replace(prefix="transformer.")),
        (
            *(f for f in llama.SHARED if f.names != ("num_key_value_heads",)),
            Knob("kv_heads", "num_key_value_heads", 4),
            Rope(theta=2000000.0, longest=32768),
            Custom((_ROTARY, _EVERY, "layer_types", _WINDOWED, _WINDOW), _read, _write),
            act("activation", "hidden_act", "silu"),
            Knob("attention_bias", "attention_bias", False),
            Knob("mlp_bias", "mlp_bias", False),
            Knob("eps", "rms_norm_eps", 1e-6),
            Knob("tied", "tie_word_embeddings", True),
        ),
        llama.HF,
    )
}
