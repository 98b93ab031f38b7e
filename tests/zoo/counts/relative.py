"""Decoders with relative positions: exact counts are those of the authors' class or the transformers class with these
sizes (the same number)."""

# (family, size) -> parameters
COUNTS = {
    # arXiv 1901.02860
    ("transformer_xl", "base"): 151_107_538,
    ("transformer_xl", "large"): 285_170_506,
    ("transformer_xl", "enwik8"): 277_231_820,
    # arXiv 1906.08237, with the head's bias
    ("xlnet", "base"): 116_718_336 + 32_000,
    ("xlnet", "large"): 360_268_800 + 32_000,
}

INFERRED = "activation, biases and tying are inferred from the totals, and whether those hold u and v is not stated"
IMPLIED = "the figure is what the published shapes imply, which the paper rounds to one digit"

# (family, size) -> published figure, and what is in doubt; ours is within 1.5 %
APPROXIMATE = {
    ("gopher", "44m"): (44_000_000, INFERRED),
    ("gopher", "117m"): (117_000_000, INFERRED),
    ("gopher", "417m"): (417_000_000, INFERRED),
    ("gopher", "1.4b"): (1_374_259_200, f"{INFERRED}; the paper prints 1.4B, 1.9 % more"),
    ("gopher", "7.1b"): (7_100_000_000, INFERRED),
    ("gopher", "280b"): (280_000_000_000, INFERRED),
    ("chinchilla", "70b"): (70_000_000_000, INFERRED),
    ("lamda", "2b"): (2_179_072_000, f"{IMPLIED} (2B), and d_ff = 8 d_model is inferred"),
    ("lamda", "8b"): (8_721_006_592, f"{IMPLIED} (8B), and d_ff = 8 d_model is inferred"),
    ("lamda", "137b"): (137_000_000_000, "norms and tying are not published, nor whether the figure counts them"),
}

UNCOUNTED: dict[str, str] = {}
