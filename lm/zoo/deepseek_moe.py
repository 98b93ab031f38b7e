"""DeepSeekMoE 16B (Dai et al. 2024, arXiv 2401.06066): LLaMA's layers, of which all but the first have many narrow
experts, a token taking six of 64, and two more that every token takes.

A router's weights are those of its softmax over all experts. In the published code they are divided by their sum where
norm_topk_prob says so (it does not), and more than one expert is taken."""

from lm.core.param import Normal
from lm.model.mlp import GatedMLP
from lm.model.rotary import Scaling
from lm.model.transformer import LanguageModel
from lm.zoo.family import Family, Sizes
from lm.zoo.llama import llama
from lm.zoo.parts import fine_experts, with_experts

SIZES: Sizes = {"16b": {"layers": 28, "d_model": 2048, "heads": 16, "d_ff": 10944}}


def deepseek_moe(
    *,
    layers: int,
    d_model: int,
    heads: int,
    d_ff: int,
    experts: int = 64,
    k: int = 6,
    expert_ff: int = 1408,
    shared: int = 2,
    first_dense: int = 1,
    every: int = 1,
    normalize: bool = False,
    kv_heads: int | None = None,
    vocab: int = 102400,
    activation: str = "silu",
    theta: float = 10000.0,
    scaling: Scaling | None = None,
    attention_bias: bool = False,
    eps: float = 1e-6,
    tied: bool = False,
    std: float = 0.006,
) -> LanguageModel:
    """A DeepSeekMoE of any shape. Of the layers from `first_dense` on, each whose number is a multiple of `every` has
    `experts` experts of width `expert_ff` (0: none has), of which a token takes `k`, and `shared` more that all tokens
    take; with `normalize` the weights of a token's experts add up to one."""
    model = llama(
        layers=layers,
        d_model=d_model,
        heads=heads,
        kv_heads=kv_heads,
        d_ff=d_ff,
        vocab=vocab,
        activation=activation,
        theta=theta,
        scaling=scaling,
        attention_bias=attention_bias,
        eps=eps,
        tied=tied,
        std=std,
    )
    sparse = [i for i in range(first_dense, layers) if experts and i % every == 0]
    if not sparse:
        return model
    expert = GatedMLP(expert_ff, activation, init=Normal(std), out_init=Normal(std, depth=2 * layers))
    moe = fine_experts(experts, expert, k, shared, score="softmax", normalize=normalize and k > 1, rate=None)
    return with_experts(model, moe, sparse)


FAMILIES = {"deepseek_moe": Family(deepseek_moe, SIZES, "arXiv 2401.06066")}
