"""Writes the golden of ELECTRA's joint loss: transformers' masked language model and discriminator over the same
tables of tokens and positions, for given draws; see `tests.golden.generate` for what it needs.

    python -m tests.golden.electra_joint

The file holds the tokens with some hidden (`shown` [B, S]), `original`, which were `asked`, which are `real`, what was
`drawn` for all of them, `loss` (generator, discriminator, generator + 50 discriminator) and the `gradient` of the last
for the token table."""

from pathlib import Path

import numpy as np
import torch
import transformers

from tests.golden.joint import CLASSES, owner
from tests.golden.weights import tensor

SHAPE = {
    "vocab_size": 23,
    "embedding_size": 6,
    "num_hidden_layers": 2,
    "max_position_embeddings": 12,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}
SIZES = {
    "generator": {"hidden_size": 4, "num_attention_heads": 1, "intermediate_size": 16},
    "discriminator": {"hidden_size": 8, "num_attention_heads": 2, "intermediate_size": 32},
}


def main() -> None:
    models = {
        name: getattr(transformers, kind)(transformers.ElectraConfig(**SHAPE, **SIZES[name])).eval()
        for name, kind in CLASSES.items()
    }
    with torch.no_grad():
        for name, model in models.items():
            for path, p in model.named_parameters():
                p.copy_(torch.from_numpy(tensor(owner(name, path), p.shape)))
    tables = [model.electra.embeddings for model in models.values()]
    for table in ("word_embeddings", "position_embeddings"):
        getattr(tables[0], table).weight = getattr(tables[1], table).weight
    models["generator"].tie_weights()

    rng = np.random.default_rng(0)
    original, drawn = (torch.from_numpy(rng.integers(1, 23, (3, 10))) for _ in range(2))
    drawn[:, ::4] = original[:, ::4]  # some draws are the original
    real = torch.ones(3, 10, dtype=torch.int64)
    real[1, 8:], real[2, 5:] = 0, 0
    asked = torch.from_numpy(rng.random((3, 10)) < 0.4) & (real > 0)
    shown = torch.where(
        asked & torch.from_numpy(rng.random((3, 10)) < 0.85), 22, original
    )  # 0 is padding there, whose row learns nothing
    tokens = torch.where(asked, drawn, original)
    labels = torch.where(asked, original, -100)
    filled = models["generator"](input_ids=shown, attention_mask=real, labels=labels).loss
    replaced = (tokens != original).long()
    detected = models["discriminator"](input_ids=tokens, attention_mask=real, labels=replaced).loss
    whole = filled + 50 * detected
    whole.backward()
    np.savez_compressed(
        Path(__file__).with_suffix(".npz"),
        **{
            name: x.numpy().astype(np.int32) for name, x in (("shown", shown), ("original", original), ("drawn", drawn))
        },
        asked=asked.numpy(),
        real=real.numpy().astype(np.int32),
        loss=np.array([filled.item(), detected.item(), whole.item()]),
        gradient=tables[1].word_embeddings.weight.grad.numpy(),
    )


if __name__ == "__main__":
    main()
