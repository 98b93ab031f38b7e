"""An isoFLOP sweep that a laptop makes: four budgets, six sizes, bytes of the Python source of NumPy, SciPy and JAX
(42 MB, which every installation has), so that no run reads a text twice. `make sweep` runs it in three parts:

    isoflop.py:tune     three learning rates and two batch sizes at two low budgets, for three sizes
    isoflop.py          the sweep, with what came of that (--tuned)
    isoflop.py:seeds    one cell again with two other seeds
"""

from pathlib import Path

import jax
import numpy
import scipy
from ml_collections.config_dict import ConfigDict

from lm.zoo.registry import knobs
from scaling.cells import default

SHAPES = ((16, 2), (24, 2), (32, 2), (48, 3), (64, 4), (96, 4))


def get_config(part: str = "") -> ConfigDict:
    config = default()
    with config.unlocked():
        config.model = knobs("gpt2", head_dim=8, vocab=384, context=128)
    config.data.source = ",".join(str(Path(package.__file__).parent) for package in (numpy, scipy, jax))
    config.data.pattern = "*.py"
    config.data.length = 128
    config.data.batch_size = 4
    config.train.unroll = True
    config.sweep.warmup = 0.3  # tokens per parameter: a third of the shortest run, 9 steps of the smallest model
    config.sweep.update(
        {
            "": {"budgets": (1e12, 2e12, 4e12, 8e12), "shapes": SHAPES, "ratios": (1.0, 2000.0)},
            "tune": {
                "budgets": (2.5e11, 5e11),
                "shapes": ((16, 2), (32, 2), (48, 3)),
                "lr_factors": (0.75, 1.5, 3.0),
                "batch_sizes": (4, 8),
            },
            "seeds": {"budgets": (2e12,), "shapes": ((32, 2),), "seeds": (1, 2)},
        }[part]
    )
    return config
