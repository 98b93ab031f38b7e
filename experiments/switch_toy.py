"""A small Switch transformer (Fedus et al. 2021, arXiv 2101.03961): a decoder whose feed-forward layers are four
experts, one of which serves each token, composed from components. Metrics show dropped choices and the busiest
expert's load."""

from ml_collections.config_dict import ConfigDict

from lm.core.component import to_dict
from lm.core.param import Normal
from lm.model.attention import Attention, Projections
from lm.model.block import Block
from lm.model.embed import Embed
from lm.model.heads import LMHead
from lm.model.layers import RMSNorm
from lm.model.mlp import MLP
from lm.model.moe.layer import MoE
from lm.model.moe.routers import SoftmaxRouter
from lm.model.residual import PreNorm
from lm.model.rotary import Rotary
from lm.model.stack import Stack
from lm.model.transformer import LanguageModel, Transformer
from lm.train.config import default


def switch_decoder(*, layers: int, d_model: int, heads: int, d_ff: int, experts: int, vocab: int) -> LanguageModel:
    """Dense and routed layers in turn, as in the paper."""
    small = Normal(0.02, depth=2 * layers)
    attention = Attention(heads, d_model // heads, rotary=Rotary(), projections=Projections(out_init=small))
    expert = MLP(d_ff, activation="relu", bias=False, out_init=small)
    dense = Block((("attention", attention), ("mlp", expert)), PreNorm(RMSNorm()))
    routed = Block((("attention", attention), ("moe", MoE(experts, expert, SoftmaxRouter(k=1)))), PreNorm(RMSNorm()))
    body = Transformer(d_model, Embed(vocab), Stack.of([dense, routed] * (layers // 2), norm=RMSNorm()))
    return LanguageModel(body, LMHead(vocab), ties=(("head/w", "body/embed/token"),))


def get_config() -> ConfigDict:
    config = default()
    with config.unlocked():
        model = switch_decoder(layers=4, d_model=128, heads=4, d_ff=512, experts=4, vocab=384)
        config.model = ConfigDict(to_dict(model))
    config.objective.loss.aux = (("balance", 0.01),)
    config.optimizer.learning_rate = 2e-3
    config.train.steps = 300
    return config
