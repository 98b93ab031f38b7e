"""SmolLM3 (Bakouch et al. 2025, Hugging Face): LLaMA's layers with grouped queries and a tied head, of which every
fourth has no positions (NoPE to RoPE: Yang et al. 2025, arXiv 2501.18795)."""

from lm.core.errors import UserError
from lm.core.param import Normal
from lm.model.attention import Attention, Projections
from lm.model.block import Block
from lm.model.layers import RMSNorm
from lm.model.masks import Causal, Window
from lm.model.mlp import GatedMLP
from lm.model.rotary import Rotary, Scaling
from lm.model.transformer import LanguageModel
from lm.zoo.family import Family
from lm.zoo.parts import LOCAL, decoder, head_size, layers_of, pre_norm

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
            projections=Projections(("q", "k", "v", "o") if attention_bias else (), init=init, out_init=init),
        )
        return pre_norm(attention, mlp, RMSNorm(eps))

    blocks = [block(rotate, kind) for rotate, kind in zip(rotates, kinds, strict=True)]
    return decoder(blocks, d_model=d_model, vocab=vocab, norm=RMSNorm(eps), tied=tied, init=init)


FAMILIES = {"smollm3": Family(smollm3, SIZES, "Hugging Face 2025")}
