"""Published parameter counts, by kind of model."""

from tests.zoo.counts import decoders, encdec, encoders, further, relative

GROUPS = (decoders, encdec, encoders, relative, further)
COUNTS = {key: value for group in GROUPS for key, value in group.COUNTS.items()}
APPROXIMATE = {key: value for group in GROUPS for key, value in group.APPROXIMATE.items()}
UNCOUNTED = {key: value for group in GROUPS for key, value in group.UNCOUNTED.items()}
