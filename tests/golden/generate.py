"""Writes the goldens: what `transformers` computes for small models with unusual knobs.

Needs torch and transformers >= 5 in an environment of its own, which the tests do not use:

    pip install numpy torch "transformers>=5"
    python -m tests.golden.generate          # from the top of the checkout: all goldens, or those that are named

float32 on one CPU thread, eager attention but where a case says otherwise. A file holds `meta` (JSON: transformers
class, config, the fields that its model type has, shapes of a file's tensors), the inputs [B, S] (`tokens`, `mask`,
`positions`, `types`; an encoder's as `encoder/tokens` and so on; one row is padded on the left, one on the right), the
`labels`, the mean `loss`, the outputs (`out/<name>`, those of tokens at real positions only, in reading order),
gradients of some tensors (`grad/<name>`), and what greedy decoding adds to each row, `greedy` [B, new]; of models with
experts the routers' logits of real tokens, `router` [layers, tokens, E], and the balance loss of all rows, `balance`
(of encoder-decoders those of the first row, for each side, and `router_z`). `meta` also has the `noise` of loss,
outputs and gradients: how far the reference's own float32 is from its float64, relative to the largest value. It says
how much of a difference rounding alone can make, on whatever processor.
"""

import inspect
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from torch.overrides import TorchFunctionMode
from transformers.core_model_loading import revert_weight_conversion

from tests.golden.case import Case
from tests.golden.cases import CASES
from tests.golden.inputs import LENGTH, WHOLE, Arrays, labels_of, pairs, permuted, rows
from tests.golden.mended import mend
from tests.golden.weights import tensor

LEFT, RIGHT, NEW = (0, 7, 0), (0, 0, 3), 12
PADDING = {"both": (LEFT, RIGHT), "left": (LEFT, WHOLE[1]), "right": (WHOLE[0], RIGHT), "none": WHOLE}
CORRECTION = "e_score_correction_bias"  # of choices among experts: a buffer, or a parameter that no gradient moves
NOISY = ("loss", *(f"{side}{name}" for side in ("", "encoder/") for name in ("router", "balance", "router_z")))
# Outputs by their name there -> what our heads call them; an only one has no name.
OUTPUTS = {
    "logits": "",
    "prediction_logits": "mlm",
    "seq_relationship_logits": "nsp",
    "sop_logits": "sop",
    "last_hidden_state": "states",
    "pooler_output": "pooler",
}


def golden(case: Case) -> Arrays:
    for seed in range(50):
        model = made(case)  # anew: a model may remember how long its last text was
        found = computed(model, case, seed)
        if found is not None:
            break
    else:
        raise SystemExit(f"{case.kind}: with all prompts two tokens are as good as each other: use other weights")

    found |= gradients(model, case)
    with Float64():
        exact = made(case).double()
        truth = computed(exact, case._replace(greedy=False), seed) | gradients(exact, case)
    config = model.config.to_dict()
    meta = {
        "class": case.kind,
        "config": {"model_type": config["model_type"], "architectures": [case.kind], **case.config},
        "fields": fields(config),
        "shapes": {name: list(p.shape) for name, p in filed(model, stored(model)).items()},
        "transformers": transformers.__version__,
        "noise": {k: noise(x, truth[k]) for k, x in found.items() if k in NOISY or k.startswith(("out/", "grad/"))},
    }
    return {"meta": np.array(json.dumps(meta)), **found}


def fields(config: dict[str, Any]) -> list[str]:
    """What a config has, and what the configs of two towers within it have."""
    towers = {side: inner for side in ("encoder", "decoder") if isinstance(inner := config.get(side), dict)}
    return sorted([*config, *(f"{side}.{name}" for side, inner in towers.items() for name in inner)])


class Float64(TorchFunctionMode):
    """Whoever asks for float32, as many models do for some of their steps, gets float64."""

    def __enter__(self) -> "Float64":
        torch.set_default_dtype(torch.float64)
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        torch.set_default_dtype(torch.float32)
        super().__exit__(*error)

    def __torch_function__(self, function: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        function = torch.Tensor.double if function is torch.Tensor.float else function
        args = tuple(torch.float64 if a is torch.float32 else a for a in args)
        return function(*args, **{k: torch.float64 if a is torch.float32 else a for k, a in (kwargs or {}).items()})


def gradients(model: torch.nn.Module, case: Case) -> Arrays:
    """Those of the loss that `computed` left in the model."""
    if not case.gradients:
        return {}
    found = filed(model, {name: p.grad for name, p in stored(model).items() if p.grad is not None})
    return {f"grad/{name}": found[name].numpy() for name in case.gradients}


def noise(value: np.ndarray, truth: np.ndarray) -> float:
    """How far float32 is from float64, relative to the largest value; two digits are enough."""
    return float(f"{np.abs(value - truth).max() / np.abs(truth).max():.1e}")


def made(case: Case) -> torch.nn.Module:
    """The case's model, with values that depend on its tensors' names and shapes only."""
    cls = getattr(transformers, case.kind)
    how = {"attn_implementation": case.attention, "experts_implementation": "eager"}
    model = cls(cls.config_class(**case.config, **how)).eval()
    for name in case.apart:
        owner, _, leaf = name.rpartition(".")
        module = model.get_submodule(owner)
        setattr(module, leaf, torch.nn.Parameter(torch.empty_like(getattr(module, leaf))))
    with torch.no_grad():
        fill(model)
    return model


def fill(model: torch.nn.Module) -> None:
    """The values of a file's tensors, put where the model keeps them."""
    parameters, places, total = stored(model), {}, 0
    for name, p in parameters.items():
        places[name] = torch.arange(total, total + p.numel()).reshape(p.shape)
        total += p.numel()
    values = torch.empty(total)
    for name, place in filed(model, places).items():
        values[place.flatten()] = torch.from_numpy(tensor(name, place.shape)).flatten().to(values.dtype)
    for name, p in parameters.items():
        p.copy_(values[places[name]])


def filed(model: torch.nn.Module, values: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Values of a model's tensors by the names that a file has: it may hold those apart that are one in memory, as the
    matrices of experts."""
    return revert_weight_conversion(model, values)


def stored(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """What a file of the model holds, by name: parameters, a tied one once, and buffers of numbers. Tables of
    sinusoids, which are computed, are none."""
    kept = model.state_dict().keys()
    found = {name: p for name, p in model.named_parameters() if p.requires_grad or name.endswith(CORRECTION)}
    return found | {name: b for name, b in model.named_buffers() if name in kept and b.is_floating_point()}


def computed(model: torch.nn.Module, case: Case, seed: int) -> Arrays | None:
    """What the model makes of random rows; None where greedy decoding meets two tokens as good as each other. Leaves
    the gradients of the loss in the model."""
    rng, config = np.random.default_rng(seed), model.config
    wanted = inspect.signature(model.forward).parameters
    if "decoder_input_ids" in wanted and config.is_encoder_decoder:
        inputs = pairs(rng, model, case)
        theirs = {"input_ids": inputs["encoder/tokens"], "attention_mask": inputs["encoder/mask"]}
        theirs |= {"decoder_input_ids": inputs["tokens"], "decoder_attention_mask": inputs["mask"]}
    else:
        left, right = PADDING["none" if "QuestionAnswering" in case.kind else case.padding]
        inputs = rows(rng, config, LENGTH, left, right)
        theirs = {"input_ids": inputs["tokens"]}
        theirs |= {"attention_mask": inputs["mask"]} if case.padding != "none" else {}
        if case.positions == "given" and "position_ids" in wanted:
            theirs["position_ids"] = inputs["positions"]
    if case.positions == "index":
        for name in ("positions", "encoder/positions"):
            if name in inputs:
                inputs[name] = np.broadcast_to(np.arange(inputs[name].shape[1], dtype=np.int32), inputs[name].shape)
    types = getattr(config, "type_vocab_size", None) or case.types
    if "token_type_ids" in wanted and types > 1:
        inputs["types"] = rng.integers(0, types, inputs["tokens"].shape).astype(np.int32)
        theirs["token_type_ids"] = inputs["types"]
    if getattr(config, "use_task_id", False):
        inputs["tasks"] = rng.integers(0, config.task_type_vocab_size, inputs["tokens"].shape).astype(np.int32)
        theirs["task_type_ids"] = inputs["tasks"]
    if "global_attention_mask" in wanted:
        side = "encoder/" if "decoder_input_ids" in wanted else ""
        mask, tokens = inputs[f"{side}mask"], inputs[f"{side}tokens"]
        if case.anchors == "given":
            inputs[f"{side}global"] = theirs["global_attention_mask"] = mask * (rng.random(mask.shape) < 0.15)
        elif "QuestionAnswering" in case.kind:  # a question, and an answer's text between two separators
            places = rng.permuted(np.broadcast_to(np.arange(1, mask.shape[1]), (len(mask), mask.shape[1] - 1)), axis=1)
            np.put_along_axis(tokens, places[:, :3], config.sep_token_id, axis=1)
    labels = labels_of(model, inputs, rng)
    masks, more = {}, {}
    if case.recalls:
        before = rows(rng, config, LENGTH, *WHOLE)
        more["mems"] = model(torch.from_numpy(before["tokens"].astype(np.int64))).mems
        inputs["positions"] = inputs["positions"] + np.int32(config.reuse_len or LENGTH)
        inputs |= {f"before/{name}": before[name] for name in ("tokens", "positions")}
    if "MultipleChoice" in case.kind:  # among one; tasks are passed on as they are
        theirs = {name: value if name == "task_type_ids" else value[:, None] for name, value in theirs.items()}
    if case.permuted:
        inputs, asked, masks = permuted(rng, inputs)
        theirs["labels"], labels = asked, {"labels": np.where(inputs["shown"] == 1, inputs["tokens"], -100)}
    else:
        theirs |= labels
    given = {name: torch.from_numpy(np.array(value, np.int64)) for name, value in theirs.items()}
    given |= {name: torch.from_numpy(mask).to(model.dtype) for name, mask in masks.items()}
    out = model(**given, **more)
    found = {}
    model.zero_grad()
    if labels:
        out.loss.backward()
        found["loss"] = out.loss.detach().numpy()
    shown = {ours: out[name].detach().numpy() for name, ours in OUTPUTS.items() if out.get(name) is not None}
    if "start_logits" in out:
        shown[""] = torch.stack([out.start_logits, out.end_logits], -1).detach().numpy()
    if len(shown) == 1:
        shown = {"": next(iter(shown.values()))}
    # A pooled [B, d] may have as many columns as a row has tokens; what has a label for each token is no such thing.
    labelled = np.shape(labels.get("labels"))
    per_token = {
        name: x.shape[:2] == inputs["mask"].shape and (x.ndim > 2 or x.shape == labelled) for name, x in shown.items()
    }
    found |= {f"out/{name}": x[inputs["mask"] == 1] if per_token[name] else x for name, x in shown.items()}
    found |= inputs | {name: value.astype(np.int32) for name, value in labels.items()}
    recorded = getattr(model.base_model, "_can_record_outputs", None) or {}
    if "output_router_logits" in wanted or (model.can_generate() and "router_logits" in recorded):
        found |= (routed_pairs if "encoder/tokens" in inputs else routed)(model, {**given, **more}, inputs["mask"])
    if not model.can_generate() or not case.greedy:
        return found
    added, margin = greedy(model, inputs)
    return found | {"greedy": added} if margin > 1e-3 * np.abs(shown[""]).max() else None


def routed(model: torch.nn.Module, given: dict[str, torch.Tensor], mask: np.ndarray) -> Arrays:
    """What the routers of a decoder say of real tokens, and the loss that balances them, if there is one."""
    with torch.no_grad():
        out = model(**given, output_router_logits=True)
    found = {} if out.aux_loss is None else {"balance": out.aux_loss.numpy()}
    if out.router_logits:  # not of dense layers alone
        found["router"] = torch.stack(out.router_logits).numpy()[:, mask.flatten() == 1]
    return found


def routed_pairs(model: torch.nn.Module, given: dict[str, torch.Tensor], mask: np.ndarray) -> Arrays:
    """The same of encoder and decoder, of the first row alone, which has no padding: theirs is not told from tokens."""
    with torch.no_grad():
        out = model(**{name: x[:1] for name, x in given.items()}, output_router_logits=True)
    found: Arrays = {}
    for side, ours in (("encoder", "encoder/"), ("decoder", "")):
        logits = torch.stack(out[f"{side}_router_logits"])
        found[f"{ours}router"] = logits.reshape(len(logits), -1, logits.shape[-1]).numpy()
        for name, kind in (("aux", "balance"), ("z", "router_z")):
            if isinstance(
                loss := out.get(f"{side}_{name}_loss"), torch.Tensor
            ):  # where all layers are sparse, theirs are 0
                found[f"{ours}{kind}"] = loss.numpy()
    return found


def by_length(config: Any) -> bool:
    """Whether rotations depend on the length of a text."""
    return (getattr(config, "rope_parameters", None) or {}).get("rope_type") in ("dynamic", "longrope")


def greedy(model: torch.nn.Module, inputs: Arrays) -> tuple[np.ndarray, float]:
    """The tokens that greedy decoding adds to each row's real ones, and by how much the closest choice was made."""
    if len(inputs["mask"]) > 1 and by_length(model.config):  # theirs looks at the longest of a batch
        rows = [row == 1 for row in inputs["mask"]]
        apart = [{name: x[i : i + 1, row] for name, x in inputs.items()} for i, row in enumerate(rows)]
        added, margins = zip(*(greedy(model, row) for row in apart), strict=True)
        return np.concatenate(added), min(margins)
    prefix = "encoder/" if model.config.is_encoder_decoder else ""
    tokens, mask = inputs[f"{prefix}tokens"], inputs[f"{prefix}mask"]
    if not prefix:  # real tokens to the right
        order = np.argsort(mask, axis=1, kind="stable")
        tokens, mask = np.take_along_axis(tokens, order, 1), np.take_along_axis(mask, order, 1)
    padding, given = getattr(getattr(model.base_model, "embeddings", None), "padding_idx", None), {}
    if padding is not None:  # where positions begin; `generate` would count from 0
        given["position_ids"] = torch.from_numpy(mask.cumsum(1) * mask + padding).long()
    result = model.generate(
        torch.from_numpy(tokens.astype(np.int64)),
        **given,
        attention_mask=torch.from_numpy(mask.astype(np.int64)),
        max_new_tokens=NEW,
        min_new_tokens=None,
        do_sample=False,
        num_beams=1,
        eos_token_id=None,
        forced_bos_token_id=None,
        forced_eos_token_id=None,
        pad_token_id=getattr(model.config, "pad_token_id", None) or 0,
        output_logits=True,
        return_dict_in_generate=True,
    )
    best = torch.stack(result.logits).topk(2).values
    return result.sequences[:, -NEW:].numpy().astype(np.int32), (best[..., 0] - best[..., 1]).min().item()


if __name__ == "__main__":
    torch.set_num_threads(1)
    mend()
    transformers.logging.set_verbosity_error()
    for name, case in CASES.items():
        if sys.argv[1:] and name not in sys.argv[1:]:
            continue
        arrays = golden(case)
        kind = json.loads(str(arrays["meta"]))["config"]["model_type"].replace("-", "_")
        path = Path(__file__).parent / kind / f"{name}.npz"
        path.parent.mkdir(exist_ok=True)
        np.savez_compressed(path, **arrays)
        print(f"{kind}/{path.name}", path.stat().st_size, "bytes")
