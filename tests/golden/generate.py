"""Writes the goldens: what `transformers` computes for small models with unusual knobs.

Needs torch and transformers >= 5 in an environment of its own, which the tests do not use:

    pip install numpy torch "transformers>=5"
    python -m tests.golden.generate          # from the top of the checkout; writes tests/golden/*.npz, or the named ones

float32 on one CPU thread, eager attention. A file holds `meta` (JSON: transformers class, config, tensor shapes),
tokens and attention mask [B, S], logits at real positions [real, vocab] in reading order, the mean loss, gradients
of some tensors (`grad/<name>`), and what greedy decoding adds to each row [B, new].
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
import transformers

from tests.golden.cases import CASES
from tests.golden.weights import tensor

LENGTH, PADDING, NEW = 24, (0, 7, 3), 12

def golden(kind: str, config: dict, kept: tuple[str, ...] = ()) -> dict[str, np.ndarray]:
    cls = getattr(transformers, kind)
    model = cls(cls.config_class(**config, attn_implementation="eager")).eval()
    parameters = dict(model.named_parameters())  # a tied tensor once
    with torch.no_grad():
        for name, p in parameters.items():
            p.copy_(torch.from_numpy(tensor(name, p.shape)))

    for seed in range(50):
        found = computed(model, config["vocab_size"], seed)
        if found is not None:
            break
    else:
        raise SystemExit(f"{kind}: with all prompts two tokens are as good as each other: use other weights")

    told = model.config.to_dict()
    meta = {
        "class": kind,
        "config": {"model_type": told["model_type"], "architectures": [kind], **config},
        "fields": sorted(told),
        "shapes": {name: list(p.shape) for name, p in parameters.items()},
        "transformers": transformers.__version__,
    }
    return {
        "meta": np.array(json.dumps(meta)),
        **found,
        **{f"grad/{name}": parameters[name].grad.numpy() for name in kept},
    }


def computed(model: torch.nn.Module, vocab: int, seed: int) -> dict[str, np.ndarray] | None:
    """What the model makes of random prompts; None where greedy decoding meets two tokens as good as each other. Leaves
    the gradients of the loss in the model."""
    tokens = np.random.default_rng(seed).integers(0, vocab, (len(PADDING), LENGTH))
    mask = (np.arange(LENGTH) >= np.array(PADDING)[:, None]).astype(np.int64)
    first = (mask.cumsum(1) == 1) & (mask == 1)  # predicted from padding: not part of the loss
    ids, attention = torch.from_numpy(tokens), torch.from_numpy(mask)
    out = model(
        input_ids=ids,
        attention_mask=attention,
        position_ids=(attention.cumsum(1) - 1).clamp(min=0),
        labels=torch.from_numpy(np.where((mask == 1) & ~first, tokens, -100)),
    )
    model.zero_grad()
    out.loss.backward()
    logits = out.logits.detach().numpy()[mask == 1]

    greedy = model.generate(
        ids,
        attention_mask=attention,
        max_new_tokens=NEW,
        do_sample=False,
        eos_token_id=None,
        pad_token_id=0,
        output_logits=True,
        return_dict_in_generate=True,
    )
    best = torch.stack(greedy.logits).topk(2).values
    margin = (best[..., 0] - best[..., 1]).min().item()
    if margin < 1e-3 * np.abs(logits).max():
        return None
    return {
        "tokens": tokens.astype(np.int32),
        "mask": mask.astype(np.int32),
        "logits": logits,
        "loss": out.loss.detach().numpy(),
        "greedy": greedy.sequences[:, LENGTH:].numpy().astype(np.int32),
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    for name, case in CASES.items():
        if sys.argv[1:] and name not in sys.argv[1:]:
            continue
        path = Path(__file__).parent / f"{name}.npz"
        np.savez_compressed(path, **golden(*case))
        print(path.name, path.stat().st_size, "bytes")
