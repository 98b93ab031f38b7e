"""Two pairs of small isoFLOP sweeps over the same text, the members of a pair at equal FLOPs and of equal shapes:

    isoflop_pairs.py:dense    and  isoflop_pairs.py:switch  every second layer has 4 experts, of which a token meets one
    isoflop_pairs.py:causal   and  isoflop_pairs.py:ul2     the next token, and UL2's seven denoisers

A dense model is the mixture of a single expert. UL2's loss is of other tokens than the causal one, so that of this pair
only the best sizes can be compared.
"""

from ml_collections.config_dict import ConfigDict

from experiments import isoflop
from lm.core.component import to_dict
from lm.model.masks import Prefix
from lm.objectives.denoising import PrefixMixtureOfDenoisers
from lm.objectives.examples.published import SEVEN
from lm.zoo.registry import knobs

BUDGETS = (5e11, 1e12, 2e12)
SHAPES = ((16, 2), (32, 2), (48, 2), (64, 4))


def get_config(member: str) -> ConfigDict:
    config = isoflop.get_config()
    with config.unlocked():
        if member in ("dense", "switch"):
            config.model = knobs("switch_decoder", experts=4 if member == "switch" else 1, vocab=384)
            config.sweep.head_dim = 16
            config.objective.loss.aux = (("balance", 0.01),)
        elif member == "causal":
            config.model = knobs("palm", head_dim=16, vocab=384)
        elif member == "ul2":
            objective, config.data.length = PrefixMixtureOfDenoisers.filling(config.data.length, SEVEN, exact=True)
            config.model, config.objective = knobs("palm", head_dim=16, vocab=384, mask=Prefix()), to_dict(objective)
        else:
            raise ValueError(f"{member!r} is none of dense, switch, causal and ul2")
    config.sweep.update({"budgets": BUDGETS, "shapes": SHAPES})
    return config
