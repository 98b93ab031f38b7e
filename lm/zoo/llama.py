"""LLaMA 1, 2, 3 and 3.1 (Touvron et al. 2023, arXiv 2302.13971 and 2307.09288; Llama team 2024, 2407.21783).

Pre-RMSNorm decoder with rotary positions, SwiGLU, no biases and an untied head; grouped-query attention in the larger
LLaMA 2 models and all of LLaMA 3, whose rotary base is 500000; 3.1 stretches the low frequencies by 8."""

from lm.core.param import Normal
from lm.model.attention import Attention
from lm.model.block import Block
from lm.model.embed import Embed
from lm.model.heads import LMHead
from lm.model.layers import RMSNorm
from lm.model.masks import Causal
from lm.model.mlp import GatedMLP
from lm.model.positions import FrequencyScaling, LinearScaling, Rotary
from lm.model.residual import PreNorm
from lm.model.stack import Stack
from lm.model.transformer import LanguageModel, Transformer
from lm.zoo.names import LINEAR, SAME, Table
from lm.zoo.shapes import head_size

_1 = {"vocab": 32000, "eps": 1e-6}
_2 = {"vocab": 32000, "eps": 1e-5}
_3 = {"vocab": 128256, "eps": 1e-5, "theta": 500000.0, "kv_heads": 8}
_31 = {**_3, "scaling": FrequencyScaling(factor=8.0)}
_7B = {"layers": 32, "d_model": 4096, "heads": 32, "d_ff": 11008}
_13B = {"layers": 40, "d_model": 5120, "heads": 40, "d_ff": 13824}
_8B = {"layers": 32, "d_model": 4096, "heads": 32, "d_ff": 14336}
_70B = {"layers": 80, "d_model": 8192, "heads": 64, "d_ff": 28672}

SIZES = {
    "1-7b": {**_7B, **_1},
    "1-13b": {**_13B, **_1},
    "1-33b": {"layers": 60, "d_model": 6656, "heads": 52, "d_ff": 17920, **_1},
    "1-65b": {"layers": 80, "d_model": 8192, "heads": 64, "d_ff": 22016, **_1},
    "2-7b": {**_7B, **_2},
    "2-13b": {**_13B, **_2},
    "2-34b": {"layers": 48, "d_model": 8192, "heads": 64, "kv_heads": 8, "d_ff": 22016, **_2},
    "2-70b": {**_70B, "kv_heads": 8, **_2},
    "3-8b": {**_8B, **_3},
    "3-70b": {**_70B, **_3},
    "3.1-8b": {**_8B, **_31},
    "3.1-70b": {**_70B, **_31},
    "3.1-405b": {"layers": 126, "d_model": 16384, "heads": 128, "d_ff": 53248, **_31},
}

# transformers' LlamaForCausalLM.
HF: Table = (
    ("body/embed/token", "model.embed_tokens.weight", SAME),
    ("body/stack/{layer}/attention_norm/w", "model.layers.{layer}.input_layernorm.weight", SAME),
    ("body/stack/{layer}/attention/q/{leaf}", "model.layers.{layer}.self_attn.q_proj.{leaf}", LINEAR),
    ("body/stack/{layer}/attention/k/{leaf}", "model.layers.{layer}.self_attn.k_proj.{leaf}", LINEAR),
    ("body/stack/{layer}/attention/v/{leaf}", "model.layers.{layer}.self_attn.v_proj.{leaf}", LINEAR),
    ("body/stack/{layer}/attention/o/{leaf}", "model.layers.{layer}.self_attn.o_proj.{leaf}", LINEAR),
    ("body/stack/{layer}/mlp_norm/w", "model.layers.{layer}.post_attention_layernorm.weight", SAME),
    ("body/stack/{layer}/mlp/gate/{leaf}", "model.layers.{layer}.mlp.gate_proj.{leaf}", LINEAR),
    ("body/stack/{layer}/mlp/up/{leaf}", "model.layers.{layer}.mlp.up_proj.{leaf}", LINEAR),
    ("body/stack/{layer}/mlp/down/{leaf}", "model.layers.{layer}.mlp.down_proj.{leaf}", LINEAR),
    ("body/stack/norm/w", "model.norm.weight", SAME),
    ("head/w", "lm_head.weight", SAME),
    ((), "model.layers.{layer}.self_attn.rotary_emb.inv_freq", SAME),
    ((), "model.rotary_emb.inv_freq", SAME),
)


def llama(
    *,
    layers: int,
    d_model: int,
    heads: int,
    kv_heads: int | None = None,
    head_dim: int | None = None,
    d_ff: int | None = None,
    vocab: int = 32000,
    theta: float = 10000.0,
    scaling: LinearScaling | FrequencyScaling | None = None,
    eps: float = 1e-5,
    tied: bool = False,
    std: float = 0.02,
) -> LanguageModel:
    """A LLaMA of any shape; `SIZES` has the published ones. d_ff defaults to 8/3 d_model, rounded up to 256."""
    attention = Attention(
        heads=heads,
        head_dim=head_dim or head_size(d_model, heads),
        kv_heads=kv_heads,
        mask=Causal(),
        rotary=Rotary(theta=theta, scaling=scaling),
        init=Normal(std),
        out_init=Normal(std, depth=2 * layers),
    )
    mlp = GatedMLP(
        d_ff=d_ff or -(-8 * d_model // 3 // 256) * 256, init=Normal(std), out_init=Normal(std, depth=2 * layers)
    )
    block = Block((("attention", attention), ("mlp", mlp)), PreNorm(RMSNorm(eps)))
    return LanguageModel(
        body=Transformer(
            d_model=d_model,
            embed=Embed(vocab, init=Normal(std)),
            stack=Stack.of([block] * layers, norm=RMSNorm(eps)),
        ),
        head=LMHead(vocab, init=Normal(std)),
        ties=(("head/w", "body/embed/token"),) if tied else (),
    )
