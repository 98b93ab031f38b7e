"""Our families compute what `transformers` computes, from the same weights (goldens: `tests/golden/generate.py`)."""

import functools
import json
import re
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lm.core.component import from_dict, to_dict
from lm.core.ctx import Ctx
from lm.core.errors import UserError
from lm.core.param import abstract
from lm.hub.binding import Binding
from lm.hub.config import read_config, write_config
from lm.hub.model_types import MODEL_TYPES
from lm.hub.tables.tensor_names import TensorNames
from lm.infer.generate import Generator
from lm.infer.sampling import Sampler
from lm.model.cache import CacheShape
from lm.model.heads import Heads
from lm.model.moe.stats import balance_of_batch
from lm.model.transformer import Model
from lm.objectives.causal import NextToken
from lm.objectives.token_loss import TokenLoss
from lm.zoo.registry import build
from tests.golden import FILES
from tests.golden.weights import tensors

CASES = list(FILES)
STORED = {name: set(np.load(path).files) for name, path in FILES.items()}
GENERATORS = [name for name in CASES if "greedy" in STORED[name]]
FIRST = {FILES[name].parent: name for name in reversed(GENERATORS)}.values()  # of each model type
PAIRS = [name for name in GENERATORS if "encoder/tokens" in STORED[name]]
STREAMS = ["prophetnet", "prophetnet_three"]  # whose loss is not of their outputs alone
HEADS = ["bart", "bert_decoder", "codegen", "gemma2", "granite", "opt_post_norm", "t5", *STREAMS]  # one of each kind
CLOSE = 2e-5  # float32 agrees to 1e-6 or so; ten times this would let a wrong GELU pass
NOISE = 8  # times the reference's own rounding, where that is more: how it is summed differs between processors
# Fields of config.json that any model type has, and that do not touch what a model computes.
COMMON = set(
    """_name_or_path architectures attn_implementation bad_words_ids begin_suppress_tokens bos_token_id
    chunk_size_feed_forward cls_token_id cross_attention_hidden_size decoder_start_token_id diversity_penalty do_sample
    dtype early_stopping encoder_no_repeat_ngram_size eos_token_id exponential_decay_length_penalty finetuning_task
    forced_bos_token_id forced_eos_token_id id2label initializer_range is_decoder is_encoder_decoder label2id
    length_penalty mask_token_id max_length min_length model_type no_repeat_ngram_size num_beam_groups num_beams
    num_return_sequences output_attentions output_hidden_states output_scores pad_token_id prefix problem_type
    pruned_heads remove_invalid_values repetition_penalty return_dict return_dict_in_generate sep_token_id
    suppress_tokens task_specific_params temperature tf_legacy_loss tokenizer_class top_k top_p torchscript
    transformers_version typical_p use_bfloat16 use_cache""".split()  # noqa: SIM905
)


class Golden(NamedTuple):
    """A golden's file, and the same model here."""

    model: Model
    names: TensorNames
    params: Any
    config: dict[str, Any]
    fields: set[str]
    noise: dict[str, float]
    kind: str
    arrays: dict[str, np.ndarray]

    @property
    def batch(self) -> dict[str, np.ndarray]:
        """The rows that the model reads."""
        renamed = {"mask": "segments"}
        wanted = ("tokens", "mask", "positions", "types", "tasks", "order", "global")
        return {
            f"{side}{renamed.get(name, name)}": self.arrays[f"{side}{name}"]
            for side in ("", "encoder/")
            for name in wanted
            if f"{side}{name}" in self.arrays
        }


@functools.cache
def golden(name: str) -> Golden:
    arrays = dict(np.load(FILES[name]))
    meta = json.loads(str(arrays["meta"]))
    described = read_config(meta["config"])
    model, (names, prefix, _) = build(described.knobs), described.spelling
    known, given = Binding(model, names).links, tensors(meta["shapes"])
    given = {f"{prefix}{n}" if f"{prefix}{n}" in known else n: t for n, t in given.items()}  # a base model's
    params = jax.device_put(Binding(model, names).to_params(given))
    return Golden(model, names, params, meta["config"], set(meta["fields"]), meta["noise"], meta["class"], arrays)


class Computed(NamedTuple):
    """What our model makes of a golden's rows: outputs by head ("": the only one), loss and gradients where the golden
    has them."""

    outputs: dict[str, np.ndarray]
    loss: jax.Array | None
    gradients: Any


@functools.cache
def computed(name: str) -> Computed:
    return compute(golden(name))


def compute(g: Golden) -> Computed:
    """In one program: compiling takes longer than anything else here."""

    def both(params: Any) -> tuple[jax.Array | None, dict[str, jax.Array]]:
        found = scores(g, params)
        return loss(g, found) if "loss" in g.arrays else None, found

    gradients = None
    if any(key.startswith("grad/") for key in g.arrays):
        (total, found), gradients = jax.jit(jax.value_and_grad(both, has_aux=True))(g.params)
    else:
        total, found = jax.jit(both)(g.params)
    return Computed({k: np.asarray(v) for k, v in found.items()}, total, gradients)


def scores(g: Golden, params: Any) -> dict[str, jax.Array]:
    found = g.model(params, g.batch)
    if "before/tokens" in g.arrays:  # rows that go on from others
        before = {name: g.arrays[f"before/{name}"] for name in ("tokens", "positions")}
        _, cache, _ = g.model.hidden(params, before, Ctx(), g.model.cache(CacheShape(len(before["tokens"]), 0)))
        x, _, _ = g.model.hidden(params, g.batch, Ctx(), cache)
        found = g.model.logits(params, x, Ctx())
    return found if isinstance(found, dict) else {"": found}


def relative_error(ours: Any, theirs: np.ndarray) -> float:
    ours = np.asarray(ours)
    assert ours.shape == theirs.shape
    return np.abs(ours - theirs).max() / np.abs(theirs).max()


def assert_close(name: str, key: str, ours: Any, theirs: np.ndarray | None = None) -> None:
    """`ours` is the array `key` of a golden, or that part of it which is given."""
    g = golden(name)
    error, most = relative_error(ours, g.arrays[key] if theirs is None else theirs), limit(g, key)
    print(f"{name} {key}: relative error {error:.1e}, {error / most:.0%} of the limit")  # shown by pytest -s
    assert error < most, f"{name} {key}: relative error {error:.1e}, more than {most:.1e}"


def limit(g: Golden, key: str) -> float:
    return max(CLOSE, NOISE * g.noise[key])


def each(names: Iterable[str], slow: Iterable[str] = ()) -> pytest.MarkDecorator:
    """A test for each of the goldens, next to the other tests of the same one, which share what it computes."""
    marked = [pytest.param(name, marks=[pytest.mark.slow] if name in slow else []) for name in names]
    return pytest.mark.parametrize("name", marked, scope="module")


@each(CASES)
def test_outputs(name):
    g, ours = golden(name), computed(name).outputs
    mask = g.arrays["mask"]
    stored = {k.removeprefix("out/"): v for k, v in g.arrays.items() if k.startswith("out/")}
    assert stored.keys() == ours.keys()
    for head, found in ours.items():
        if found.ndim > 2 and found.shape[:2] == mask.shape:
            theirs, shown = stored[head], g.arrays.get("shown", mask)
            assert_close(name, f"out/{head}", found[shown == 1].reshape(theirs.shape))
        else:
            kept = ~pooled_padding(name)
            assert_close(name, f"out/{head}", found[kept], stored[head][kept])


@each(n for n in CASES if STORED[n] & {"router", "encoder/router"})
def test_routers(name):
    """Logits of each layer with experts, and the losses where the class has them."""
    g = golden(name)
    pair = "encoder/tokens" in g.arrays
    batch = {key: x[:1] for key, x in g.batch.items()} if pair else g.batch
    _, _, aux = jax.jit(lambda p: g.model.hidden(p, batch, Ctx(record=frozenset(["router_logits"]))))(g.params)
    towers = {"": (g.model.tower, aux)}
    if pair:
        towers = {"encoder/": (g.model.encoder, aux["encoder"]), "": (g.model.decoder, aux["decoder"])}
    for side, (tower, own) in towers.items():
        places = map(tower.stack.locate, range(tower.stack.layers))
        parts = [(part, at.repeat) for at in places for part in own[str(at.segment)][str(at.position)].values()]
        routed = [(part, repeat) for part, repeat in parts if "router" in part]
        logits = np.stack([layer["router_logits"][repeat] for layer, repeat in routed])
        assert_close(name, f"{side}router", logits[:, batch[f"{side}segments"] == 1])
        records = [*{id(layer): layer["router"] for layer, _ in routed}.values()]  # of the layers of a group, one
        if f"{side}balance" in g.arrays:
            assert_close(name, f"{side}balance", balance_of_batch(records))
        if f"{side}router_z" in g.arrays:
            z, tokens = (sum(getattr(record, key).sum() for record in records) for key in ("z", "tokens"))
            assert_close(name, f"{side}router_z", z / tokens)


def pooled_padding(name: str) -> np.ndarray:
    """bool [B]: the rows of which their head pools a first token that is padding; ours the first real one."""
    head = golden(name).model.head
    parts = [part for _, part in head.parts] if isinstance(head, Heads) else [head]
    first = any(getattr(part, "at", None) == "first" for part in parts)
    return (golden(name).arrays["mask"][:, 0] == 0) & first


def nll(logits: jax.Array, labels: np.ndarray) -> jax.Array:
    """Mean over labels that are not -100."""
    logits, labels = logits.reshape(-1, logits.shape[-1]), labels.reshape(-1)
    logits, labels = logits[labels >= 0], labels[labels >= 0]
    each = jax.nn.logsumexp(logits, axis=-1) - logits[np.arange(len(labels)), labels]
    return each.mean()


def loss(g: Golden, found: dict[str, jax.Array]) -> jax.Array:
    """As the class defines it, from our outputs."""
    arrays, first = g.arrays, next(iter(found.values()))
    if "start_positions" in arrays:
        ends = (arrays["start_positions"], arrays["end_positions"])
        return sum(nll(first[..., i], end) for i, end in enumerate(ends)) / 2
    if first.shape[-1] == 1 and first.ndim == 3:  # which tokens were replaced
        replaced, labels = first[..., 0][arrays["mask"] == 1], arrays["labels"][arrays["mask"] == 1]
        return (jnp.logaddexp(0, replaced) - replaced * labels).mean()
    causal = g.kind.endswith("ForCausalLM") or ("greedy" in arrays and "encoder/tokens" not in arrays)
    if causal and (arrays["labels"][:, -1] >= 0).any():
        return nll(first[:, :-1], arrays["labels"][:, 1:])  # the tokens themselves: theirs moves them
    total = nll(first, arrays["labels"])
    for head, labels in (("nsp", "next_sentence_label"), ("sop", "sentence_order_label")):
        total += nll(found[head], arrays[labels]) if head in found and labels in arrays else 0
    return total


@each(n for n in CASES if "loss" in STORED[n] and n not in STREAMS)
def test_loss(name):
    """And gradients."""
    if pooled_padding(name).any():
        pytest.skip("they pool padding")
    assert_close(name, "loss", computed(name).loss)
    check_gradients(name, computed(name).gradients)


def check_gradients(name: str, gradients: Any) -> None:
    """Against those that the golden keeps."""
    for key, ours in stored_gradients(golden(name), gradients):
        assert_close(name, key, ours)


def stored_gradients(g: Golden, gradients: Any) -> Iterator[tuple[str, np.ndarray]]:
    """Of our gradients, those that the golden has too, by its name of each."""
    ours = {} if gradients is None else Binding(g.model, g.names).to_tensors(gradients)
    for key in filter(lambda key: key.startswith("grad/"), g.arrays):
        yield key, ours[key.removeprefix("grad/")]


def next_tokens(g: Golden) -> dict[str, np.ndarray]:
    """A golden's rows as `NextToken` prepares them."""
    rows = zip(g.arrays["tokens"], g.arrays["mask"], strict=True)
    examples = [NextToken().examples()({"tokens": t, "segments": s}, np.random.default_rng(0)) for t, s in rows]
    return {key: np.stack([example[key] for example in examples]) for key in examples[0]}


@each(GENERATORS, slow=set(GENERATORS) - set(HEADS))
def test_next_token_objective(name):
    """The mean loss of a golden's rows under `NextToken`, and its gradients."""
    g, objective = golden(name), NextToken(TokenLoss(aux=()))
    if name in PAIRS:  # the labels are what the decoder is to write
        targets = g.arrays["labels"]
        batch = g.batch | {"targets": np.maximum(targets, 0), "weights": (targets >= 0).astype(np.float32)}
    else:
        batch = next_tokens(g)  # one token less than theirs reads, whose prediction it drops
        batch["length"] = np.broadcast_to(g.arrays["mask"].sum(1, keepdims=True), batch["tokens"].shape)

    def mean(params: Any) -> jax.Array:
        loss = objective(g.model, params, batch, Ctx())
        return loss.total / loss.weight

    graded = any(key.startswith("grad/") for key in g.arrays)
    loss, gradients = jax.jit(jax.value_and_grad(mean) if graded else lambda p: (mean(p), None))(g.params)
    assert_close(name, "loss", loss)
    check_gradients(name, gradients)


@pytest.mark.parametrize("name", ["gemma", "gpt2", "umt5"])  # the first and the last are among the noisiest
def test_limits_are_not_blind(name):
    """A model with the other GELU is past every limit, in outputs and in gradients."""
    g, other = golden(name), {"gelu": "gelu_tanh", "gelu_tanh": "gelu"}
    written = re.sub(r'"(gelu(_tanh)?)"', lambda found: json.dumps(other[found[1]]), json.dumps(to_dict(g.model)))
    wrong = g._replace(model=from_dict(json.loads(written)))
    assert wrong.model != g.model
    found = compute(wrong)
    assert relative_error(found.outputs[""][g.arrays["mask"] == 1], g.arrays["out/"]) > limit(g, "out/")
    for key, gradient in stored_gradients(g, found.gradients):
        assert relative_error(gradient, g.arrays[key]) > limit(g, key), key


@each(GENERATORS, slow=set(GENERATORS) - set(FIRST))
def test_greedy_tokens(name):
    g = golden(name)

    def real(side: str = "") -> list[np.ndarray]:
        pairs = zip(g.arrays[f"{side}tokens"], g.arrays[f"{side}mask"], strict=True)
        return [row[mask == 1] for row, mask in pairs]

    prompts, encoder = real(), None
    if "encoder/tokens" in g.arrays:
        start = g.config.get("decoder_start_token_id", 0)
        prompts, encoder = [np.array([start])] * len(prompts), real("encoder/")
    new = g.arrays["greedy"].shape[1]
    ours = Generator(g.model, g.params)(prompts, max_new=new, sampler=Sampler(temperature=0), encoder=encoder)
    np.testing.assert_array_equal(np.stack(ours), g.arrays["greedy"])


def program(model: Model, g: Golden) -> str:
    """What a model computes of a golden's rows: sizes that follow from others may be given or not."""
    return str(jax.make_jaxpr(model)(abstract(model.spec()), g.batch))


@each(CASES)
def test_config_is_written_and_read_again(name):
    """Weights too: what we write is what was read."""
    g = golden(name)
    knobs = read_config(g.config).knobs
    written = write_config(g.config["model_type"], knobs, g.kind)
    assert written["architectures"] == g.config["architectures"]
    model = build(read_config(json.loads(json.dumps(written))).knobs)
    assert model == g.model or program(model, g) == program(g.model, g)
    again = Binding(g.model, g.names).to_params(Binding(g.model, g.names).to_tensors(g.params))
    jax.tree.map(np.testing.assert_array_equal, again, g.params)


@each(CASES)
def test_every_field_is_read(name):
    """A dialect accounts for each field that the model type has."""
    g = golden(name)
    known = {field for part in MODEL_TYPES[g.config["model_type"]].fields for field in part.keys}
    own = {field for field in g.fields if field.rpartition(".")[2] not in COMMON}  # of towers within, too
    assert not own - known


def test_unsupported_values_are_refused():
    with pytest.raises(UserError, match="activation"):
        read_config({**golden("gpt2").config, "activation_function": "mish"})
