"""Published parameter counts, by kind of model."""

from tests.zoo.counts import decoders, encdec, encoders, experts, further, relative

GROUPS = (decoders, encdec, encoders, relative, further, experts)
COUNTS = {key: value for group in GROUPS for key, value in group.COUNTS.items()}
APPROXIMATE = {key: value for group in GROUPS for key, value in group.APPROXIMATE.items()}
ACTIVE = experts.ACTIVE
UNCOUNTED = {key: value for group in GROUPS for key, value in group.UNCOUNTED.items()}
