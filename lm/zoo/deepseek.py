"""DeepSeek-V2 (DeepSeek-AI 2024, arXiv 2405.04434), V3 (2412.19437) and R1 (2501.12948).

Their attention is multi-head latent attention: keys and values of all heads are read from one latent per token, and a
part of each head's query and one key for all heads carry the (interleaved) rotary positions. Norms of latents have an
eps of their own. Behind the first few layers, which are LLaMA's but for that, all have experts: many narrow ones, of
which a token takes a few, and shared ones that every token takes (DeepSeekMoE, 2401.06066).

V2's router weighs by a softmax and, in the large model, keeps to the groups of the best experts. V3's has sigmoids,
keeps to the groups whose two best experts are best together, and balances loads by a bias of the choice instead of a
loss. V3 also predicts the second next token, by a module that has one more layer (section 2.2; `further`)."""

import dataclasses
import functools
from typing import Any

from lm.core.errors import UserError
from lm.core.param import Normal
from lm.model.heads import LMHead
from lm.model.layers import RMSNorm
from lm.model.mlp import GatedMLP
from lm.model.rotary import Rotary, Scaling, YarnScaling, yarn_magnitude
from lm.model.special.latent import LatentAttention
from lm.model.special.multi_token import MultiTokenHead
from lm.model.stack import Stack
from lm.model.transformer import LanguageModel
from lm.zoo.family import Family, Sizes
from lm.zoo.parts import decoder, fine_experts, pre_norm


def _yarn(temper: float) -> dict[str, Any]:
    """Texts of 4096 tokens stretched to 160K, of which the models are said to read 128K (V2-Lite: 32K)."""
    return {"scaling": YarnScaling(40.0, 4096, magnitude=1.0), "temper": temper}


V2_SIZES: Sizes = {
    "lite": {
        "layers": 27, "d_model": 2048, "heads": 16, "d_ff": 10944, "experts": 64, "k": 6, "expert_ff": 1408,
        "shared": 2, "first_dense": 1, **_yarn(0.707),
    },
    "236b": {
        "layers": 60, "d_model": 5120, "heads": 128, "d_ff": 12288, "q_rank": 1536, "experts": 160, "k": 6,
        "expert_ff": 1536, "shared": 2, "first_dense": 1, "groups": 8, "kept_groups": 3, "scale": 16.0, **_yarn(0.707),
    },
}  # fmt: skip
_V3 = {
    "layers": 61, "d_model": 7168, "heads": 128, "d_ff": 18432, "q_rank": 1536, "experts": 256, "k": 8,
    "expert_ff": 2048, "shared": 1, "first_dense": 3, "groups": 8, "kept_groups": 4, "scale": 2.5, **_yarn(1.0),
}  # fmt: skip
V3_SIZES: Sizes = {"671b": _V3, "r1": _V3}


def deepseek(
    *,
    layers: int,
    d_model: int,
    heads: int,
    d_ff: int,
    kv_rank: int = 512,
    q_rank: int | None = None,
    nope_dim: int = 128,
    rope_dim: int = 64,
    value_dim: int = 128,
    experts: int = 0,
    k: int | None = None,
    expert_ff: int = 2048,
    shared: int = 0,
    first_dense: int = 0,
    every: int = 1,
    score: str = "sigmoid",
    groups: int = 1,
    kept_groups: int = 1,
    group_best: int = 2,
    normalize: bool = True,
    scale: float = 1.0,
    rate: float | None = 1e-3,
    further: int = 0,
    vocab: int = 129280,
    activation: str = "silu",
    theta: float = 10000.0,
    interleaved: bool = True,
    scaling: Scaling | None = None,
    temper: float = 0.0,
    attention_bias: bool = False,
    mlp_bias: bool = False,
    eps: float = 1e-6,
    latent_eps: float = 1e-6,
    tied: bool = False,
) -> LanguageModel:
    """A DeepSeek-V2 or V3 of any shape. With a `scaling` by a factor f scores are multiplied by (0.1 temper ln f + 1)^2
    (YaRN's temperature, there called mscale_all_dim).

    Of the layers from `first_dense` on, each whose number is a multiple of `every` has `experts` experts of width
    `expert_ff` (0: none has), of which a token takes `k`, and `shared` more that all tokens take. `score`, `normalize`,
    `scale` and `rate` are the router's (`lm.model.moe.top_k.TopK`); of `groups` groups of experts a token keeps to the
    `kept_groups` whose `group_best` best scores have the highest sums. `further`: how many tokens beyond the next one
    are predicted as well."""
    init, norm = Normal(0.02), RMSNorm(eps)
    stretch = getattr(scaling, "factor", 1.0)
    attention = LatentAttention(
        heads=heads,
        nope_dim=nope_dim,
        rope_dim=rope_dim,
        value_dim=value_dim,
        kv_rank=kv_rank,
        q_rank=q_rank,
        rotary=Rotary(theta=theta, interleaved=interleaved, scaling=scaling),
        norm=RMSNorm(latent_eps),
        scale=(nope_dim + rope_dim) ** -0.5 * yarn_magnitude(stretch, temper) ** 2,
        bias=attention_bias,
        init=init,
        out_init=init,
    )

    mlp = GatedMLP(d_ff, activation, bias=mlp_bias, init=init, out_init=init)
    dense = routed = pre_norm(attention, mlp, norm)
    sparse = [i for i in range(first_dense, layers) if experts and i % every == 0]
    if sparse or (experts and further):  # what predicts further tokens has experts wherever there are any
        if k is None:
            raise UserError(f"model.k is missing: say how many of model.experts={experts} a token takes")
        moe = fine_experts(
            experts,
            GatedMLP(expert_ff, activation, init=init, out_init=init),
            k,
            shared,
            shared_bias=mlp_bias,
            score=score,
            groups=groups,
            kept_groups=kept_groups,
            group_best=group_best,
            normalize=normalize,
            scale=scale,
            rate=rate,
        )
        routed = pre_norm(attention, moe, norm)
    blocks = [routed if i in sparse else dense for i in range(layers)]
    head = LMHead(vocab, init=init)
    if not further:
        return decoder(blocks, d_model=d_model, vocab=vocab, norm=norm, tied=tied, head=head, init=init)
    ahead = MultiTokenHead(head, Stack.of([routed], norm=norm), further, norm, init)
    model = decoder(blocks, d_model=d_model, vocab=vocab, norm=norm, tied=False, head=ahead, init=init)
    tables = ("token", "lm/w") if tied else ("token",)
    return dataclasses.replace(model, ties=tuple((f"head/{table}", "body/embed/token") for table in tables))


v2 = functools.partial(
    deepseek, expert_ff=1407, score="softmax", group_best=1, normalize=False, rate=None, vocab=102400
)
FAMILIES = {
    "deepseek_v2": Family(v2, V2_SIZES, "arXiv 2405.04434"),
    "deepseek_v3": Family(deepseek, V3_SIZES, "arXiv 2412.19437, 2501.12948"),
}
