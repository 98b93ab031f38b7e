"""Pictures of fits.

Each function returns a matplotlib `Figure` that belongs to no window and no global state; `save` writes it.
"""

from .allocation import agreement, envelope, isoflop
from .errors import fan, held_out, profiles, rates, residuals
from .frontier import parametric
from .style import save

__all__ = [
    "agreement",
    "envelope",
    "fan",
    "held_out",
    "isoflop",
    "parametric",
    "profiles",
    "rates",
    "residuals",
    "save",
]
