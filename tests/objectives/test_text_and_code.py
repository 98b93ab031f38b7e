"""Texts and their code (CodeT5+): what each side reads, four losses computed anew, and whom a pair is told from."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ml_collections.config_dict import ConfigDict

from lm.core.component import from_dict, to_dict
from lm.core.ctx import Ctx
from lm.core.errors import UserError
from lm.core.rows import with_totals
from lm.data.records.functions import Functions
from lm.model.heads import Heads, LMHead, SequenceClassifier
from lm.model.transformer import EncoderDecoder, with_head
from lm.objectives.denoising import MixtureOfDenoisers
from lm.objectives.examples.published import SPANS
from lm.objectives.examples.text_and_code import PairTokens, TextAndCodeExamples
from lm.objectives.joint import OfHead
from lm.objectives.objective import Loss, check_needs
from lm.objectives.text_and_code import TextAndCode, hard_negatives
from lm.objectives.token_loss import TokenLoss
from lm.text.tokenizers import ByteTokenizer
from lm.train.config import default
from lm.train.setup import assemble
from lm.zoo.bert import bert
from lm.zoo.registry import build
from lm.zoo.t5 import t5
from tests import toys

WIDE = toys.WIDE
IDS = PairTokens(first=20, code=21, text=22, match=23, eos=1)
TASKS = ("[CLM]", "[CDec]", "[TDec]", "[Match]", "[CLS]")
SHAPE = {"layers": 1, "d_model": 8, "heads": 2, "head_dim": 4, "d_ff": 12}
HEADS = Heads(
    (
        ("lm", LMHead(24, init=WIDE)),
        ("matching", SequenceClassifier(2, at="last", init=WIDE)),
        ("contrast", SequenceClassifier(6, init=WIDE)),
    )
)
MODEL = with_head(t5(**SHAPE, vocab=24), HEADS, (("head/lm/w", "decoder/embed/token"),))
OBJECTIVE = TextAndCode(texts=7, codes=7, temperature=0.5)  # of one length: little is compiled


def row(text: list[int], code: list[int], length: int = 16) -> dict[str, np.ndarray]:
    """As `Pairs` makes one for an encoder-decoder: text, end, start of the decoder, code, end."""
    tokens = [*text, 1, 0, *code, 1] if code else [*text, 1]
    part = [0] * (len(text) + 1) + [1] * (len(code) + 2)
    target = [0] * (len(text) + 2) + [1] * (len(code) + 1)
    columns = {"tokens": tokens, "segments": [1] * len(tokens), "part": part, "target": target}
    return {k: np.array([*v[: len(tokens)], *[0] * (length - len(tokens))], np.int32) for k, v in columns.items()}


def batch_of(rows: list[dict], texts: int = 7) -> dict[str, np.ndarray]:
    build = TextAndCodeExamples(texts, 7, IDS)
    made = [build(r, np.random.default_rng(0)) for r in rows]
    return {k: jnp.stack([one[k] for one in made]) for k in made[0]}


ROWS = [row([5, 6], [7, 8, 9]), row([10, 11, 12], [13]), row([3, 4, 5, 6], [14, 15, 16, 17]), row([9], [], 16)]


def test_each_side_is_read_and_written():
    made = batch_of([row([5, 6], [7, 8, 9]), row([2, 3, 4, 5, 6, 7], [8])], texts=6)
    for key, want in {
        "encoder/tokens": [[20, 5, 6, 1, 0, 0], [20, 2, 3, 4, 5, 1]],  # the second is cut
        "other/encoder/tokens": [[20, 7, 8, 9, 1, 0, 0], [20, 8, 1, 0, 0, 0, 0]],
        "tokens": [[21, 7, 8, 9, 0, 0, 0], [21, 8, 0, 0, 0, 0, 0]],
        "code/targets": [[7, 8, 9, 1, 0, 0, 0], [8, 1, 0, 0, 0, 0, 0]],
        "code/weights": [[1, 1, 1, 1, 0, 0, 0], [1, 1, 0, 0, 0, 0, 0]],
        "other/tokens": [[22, 5, 6, 0, 0, 0], [22, 2, 3, 4, 5, 0]],
        "text/targets": [[5, 6, 1, 0, 0, 0], [2, 3, 4, 5, 1, 0]],
        "matching/tokens": [[23, 7, 8, 9, 1, 0, 0], [23, 8, 1, 0, 0, 0, 0]],
        "matching/segments": [[1, 1, 1, 1, 1, 0, 0], [1, 1, 1, 0, 0, 0, 0]],
        "matching/targets": [[1, 0, 0]] * 2,
        "contrast/weights": [1, 1],
    }.items():
        np.testing.assert_array_equal(made[key], want, err_msg=key)
    lacking = batch_of([row([9], [], 16)])
    assert not any(lacking[k].any() for k in lacking if k.endswith("weights"))


def own(batch: dict, prefix: str, row: int) -> dict[str, np.ndarray]:
    return {k: batch[f"{prefix}{k}"][row : row + 1] for k in ("tokens", "segments", "positions")}


def encoded(params: dict, inputs: dict) -> np.ndarray:
    """[S, D] of one row."""
    return np.asarray(_encoded(params, {f"encoder/{k}": v for k, v in inputs.items()})[0])


@jax.jit
def _encoded(params: dict, inputs: dict) -> jax.Array:
    return MODEL.encode(params, inputs, Ctx())[0]["encoder"]


@jax.jit
def _decoded(params: dict, inputs: dict) -> jax.Array:
    return MODEL.hidden(params, inputs, Ctx())[0]


@jax.jit
def losses(params: dict, batch: dict) -> Loss:
    return OBJECTIVE(MODEL, params, batch, Ctx())


def states(params: dict, batch: dict, read: tuple[str, int], written: tuple[str, int]) -> np.ndarray:
    """[S, D] of the decoder: one row alone, through the whole model."""
    inputs = {f"encoder/{k}": v for k, v in own(batch, *read).items()} | own(batch, *written)
    return np.asarray(_decoded(params, inputs)[0])


def test_four_losses():
    """Each from single rows through the whole model, and the heads by hand."""
    check_needs(OBJECTIVE, MODEL)
    batch, params = batch_of(ROWS), toys.values(MODEL.spec())
    loss = losses(params, with_totals(batch))
    head = jax.tree.map(np.asarray, MODEL.head_params(params))

    def embedded(prefix: str) -> np.ndarray:
        at = np.stack([encoded(params, own(batch, prefix, i))[0] for i in range(3)])
        out = at @ head["contrast"]["out"]["w"] + head["contrast"]["out"]["b"]
        return out / np.linalg.norm(out, axis=1, keepdims=True)

    def nll(scores: np.ndarray, target: int) -> float:
        return float(np.log(np.exp(scores - scores.max()).sum()) + scores.max() - scores[target])

    scores = embedded("encoder/") @ embedded("other/encoder/").T / 0.5
    ways = [nll(scores[i], i) + nll(scores[:, i], i) for i in range(3)]
    want = {"contrast": sum(ways) / 6}

    padded = np.zeros((4, 4), np.float32)
    padded[:3, :3] = scores
    codes, texts, _ = map(np.asarray, hard_negatives(jnp.asarray(padded), jnp.arange(4) < 3, Ctx().at("matching")))
    judged = []
    for i in range(3):
        for text, code, label in ((i, i, 1), (i, codes[i], 0), (texts[i], i, 0)):
            x = states(params, batch, ("encoder/", text), ("matching/", code))
            last = x[batch["matching/segments"][code].sum() - 1]
            judged.append(nll(last @ head["matching"]["out"]["w"] + head["matching"]["out"]["b"], label))
    want["matching"] = float(np.mean(judged))

    for name, read, written in (("code", "encoder/", ""), ("text", "other/encoder/", "other/")):
        each = []
        for i in range(3):
            x = states(params, batch, (read, i), (written, i))
            logits = (x * MODEL.head.parts[0][1].scale) @ head["lm"]["w"].T
            targets, weights = batch[f"{name}/targets"][i], batch[f"{name}/weights"][i]
            each += [nll(logits[t], targets[t]) for t in np.flatnonzero(weights)]
        want[name] = float(np.mean(each))

    for name, value in want.items():
        np.testing.assert_allclose(loss.metrics[f"{name}/loss"].value, value, rtol=2e-5, err_msg=name)
    np.testing.assert_allclose(loss.total / loss.weight, sum(want.values()), rtol=2e-5)
    assert jax.tree.structure(MODEL.update(params, loss.aux)) == jax.tree.structure(params)
    assert from_dict(to_dict(OBJECTIVE)) == OBJECTIVE


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 99), rows=st.sets(st.integers(0, 4)))
def test_no_pair_is_its_own_negative(seed, rows):
    rng = np.random.default_rng(seed)
    scores, real = (
        jnp.asarray(rng.normal(size=(5, 5)) * 9 + 50 * np.eye(5), jnp.float32),
        np.isin(np.arange(5), list(rows)),
    )
    codes, texts, found = map(np.asarray, hard_negatives(scores, jnp.asarray(real), Ctx(key=jax.random.key(seed))))
    for i in range(5):
        assert found[i] == bool(rows - {i})
        if found[i]:
            assert {int(codes[i]), int(texts[i])} <= rows - {i}


def test_what_is_alike_is_drawn_more_often():
    scores = jnp.log(jnp.asarray([[1.0, 6.0, 3.0], [1.0, 1.0, 1.0], [1.0, 1.0, 1.0]]))
    one = lambda key: hard_negatives(scores, jnp.ones(3, bool), Ctx(key=key))[0][0]  # noqa: E731
    drawn = np.asarray(jax.vmap(one)(jax.random.split(jax.random.key(0), 2000)))
    assert abs((drawn == 1).mean() - 2 / 3) < 0.04 and not (drawn == 0).any()


def test_it_learns():
    batch, params = with_totals(batch_of(ROWS)), toys.values(MODEL.spec())

    @jax.jit
    def step(params, i):
        def of(params):
            loss = OBJECTIVE(MODEL, params, batch, Ctx(key=jax.random.fold_in(jax.random.key(0), i)))
            return loss.total / loss.weight, {k: v.total / v.weight for k, v in loss.metrics.items() if "loss" in k}

        (total, metrics), grads = jax.value_and_grad(of, has_aux=True)(params)
        return jax.tree.map(lambda p, g: p - 0.05 * g, params, grads), total, metrics, grads

    params, first, before, grads = step(params, 0)
    assert all(jnp.abs(g).max() > 0 for g in jax.tree.leaves(grads))  # every parameter
    for i in range(1, 30):
        params, last, after, _ = step(params, i)
    assert last < first - 1
    assert all(after[f"{name}/loss"] < before[f"{name}/loss"] for name in ("code", "text"))


def test_functions_with_what_they_say():
    source = '''
class A:
    @staticmethod
    def twice(x):
        """Twice a number.

        More of it."""
        return 2 * x

    def unsaid(self):
        return 1

    def nothing_else(self):
        """Only said."""

def one(x): "On one line."; return x
'''
    document = type("Document", (), {"name": "a.py", "text": source})
    (item,) = Functions().items(document, None)
    assert item.where == "a.py:4" and item.values == {
        "docstring": "Twice a number.",
        "code": "def twice(x):\n    return 2 * x\n",
        "name": "twice",
    }
    assert not list(Functions().items(type("Document", (), {"name": "b", "text": "no python ("}), None))


def test_one_head_of_several_learns():
    """By the loss of the same model with that head alone."""
    alone = EncoderDecoder(MODEL.encoder, MODEL.decoder, MODEL.head.parts[0][1])
    params = toys.values(alone.spec())
    extra = {name: toys.values(head.spec(8)) for name, head in HEADS.parts[1:]}
    whole = params | {"head": {"lm": params["head"]} | extra}
    batch = batch_of(ROWS)
    batch = {k: v for k, v in batch.items() if "/" not in k or k.startswith("encoder/")} | {
        k: batch[f"code/{k}"] for k in ("targets", "weights")
    }
    untied = EncoderDecoder(MODEL.encoder, MODEL.decoder, MODEL.head)
    one, own = jax.jit(
        lambda: (
            OfHead()(untied, whole, batch, Ctx(), jnp.float32).total,
            TokenLoss()(alone, params, batch, Ctx(), jnp.float32).total,
        )
    )()
    np.testing.assert_allclose(one, own, rtol=1e-6)


def test_in_stages(tmp_path):
    """Spans by one of the heads first, then pairs made of the same files by all: steps of both go together."""
    folder = tmp_path / "code"
    folder.mkdir()
    for i in range(12):
        (folder / f"{i}.py").write_text(f'def f{i}(x):\n    """Adds {i}."""\n    return x + {i}\n' * 4)
    model = build({"family": "t5", **SHAPE, "vocab": 384 + len(TASKS)})
    assert isinstance(model, EncoderDecoder)
    heads = Heads((("lm", model.head), *HEADS.parts[1:]))
    c = default()
    with c.unlocked():
        c.model = ConfigDict(to_dict(with_head(model, heads, (("head/lm/w", "decoder/embed/token"),))))
        c.objective = ConfigDict(to_dict(MixtureOfDenoisers.of(24, SPANS, loss=OfHead())))
    c.data.update(
        source=str(folder), pattern="*.py", holdout=0.2, length=24, batch_size=4, cache=str(tmp_path / "cache")
    )
    c.data.reserved = TASKS
    pairs = {"data.records": to_dict(Functions()), "data.packing": "one", "data.length": 64}
    c.stages = ((2, pairs | {"objective": to_dict(TextAndCode(16, 32))}),)
    c.train.steps = 4
    parts = assemble(c, sharding=None)
    state = parts.abstract_state
    for first, stage in parts.stages:
        batch = parts.batches.batch(first)
        shapes = {k: (x.shape, x.dtype) for k, x in stage.abstract_batch.items()}
        assert {k: (x.shape, x.dtype) for k, x in batch.items()} == shapes
        after, metrics = jax.eval_shape(stage.trainer.step, state, batch)
        assert jax.tree.map(jnp.shape, after.params) == jax.tree.map(jnp.shape, state.params)
        assert ("matching/loss" in metrics) == (first == 2)
    assert (
        batch["matching/weights"].all() and batch["tokens"][0, 1:8].tobytes() == batch["code/targets"][0, :7].tobytes()
    )


def test_errors():
    batch, params = batch_of(ROWS), toys.values(MODEL.spec())
    with pytest.raises(UserError, match=r"has 1 row: raise config.data.batch_size"):
        OBJECTIVE(MODEL, params, {k: v[:1] for k, v in batch.items()}, Ctx())
    with pytest.raises(UserError, match=r"trains the heads matching, contrast, lm, but the model has one head, LMHead"):
        check_needs(OBJECTIVE, t5(**SHAPE))
    tower = bert(layers=1, d_model=8, heads=2, vocab=24, context=8)
    with pytest.raises(UserError, match=r"reads the rows 'encoder/tokens' .* EncoderDecoder"):
        check_needs(OBJECTIVE, with_head(tower, HEADS))
    with pytest.raises(UserError, match=r"trains the heads lm, but the model has one head"):
        check_needs(MixtureOfDenoisers.of(16, SPANS, loss=OfHead()), t5(**SHAPE))
    with pytest.raises(UserError, match=r"no \[CDec\] and no \[CLS\] and no \[Match\] and no \[TDec\]"):
        OBJECTIVE.examples(ByteTokenizer())
    with pytest.raises(UserError, match=r"texts=2 and codes=420"):
        TextAndCode(texts=2)
    narrow = dataclasses.replace(MODEL, encoder=dataclasses.replace(MODEL.encoder, d_model=4))
    with pytest.raises(UserError, match=r"states of the encoder, 4 wide"):
        OBJECTIVE(narrow, params, batch, Ctx())
