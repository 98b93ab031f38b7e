"""What both sides of the golden of ELECTRA's joint loss know of its two models."""

CLASSES = {"generator": "ElectraForMaskedLM", "discriminator": "ElectraForPreTraining"}
SHARED = ("word_embeddings.weight", "position_embeddings.weight", "generator_lm_head.weight")


def owner(model: str, name: str) -> str:
    """The name from which a tensor's values are made; shared tables have one for both models."""
    table = next((table for table in SHARED if name.endswith(table)), None)
    if table is None:
        return f"{model}:{name}"
    return "word_embeddings.weight" if table == SHARED[2] else table
