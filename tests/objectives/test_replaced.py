"""Replaced-token detection: two models that learn as one."""

import dataclasses
import subprocess
import sys
import time
from functools import cache
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lm.core.component import from_dict, to_dict
from lm.core.ctx import Ctx
from lm.core.errors import UserError
from lm.core.mesh import Sharding, make_mesh
from lm.core.metrics import values
from lm.core.param import flatten, without_aliases
from lm.core.rows import with_totals
from lm.hub.binding import Binding
from lm.hub.config import spelling
from lm.model.transformer import head_ctx
from lm.objectives.causal import NextToken
from lm.objectives.masked import MaskedTokens
from lm.objectives.objective import check_needs
from lm.objectives.replaced import ReplacedTokens, drawn_tokens
from lm.objectives.token_loss import TokenLoss
from lm.open import part_run
from lm.runs.checkpoint import open_model
from lm.text.tokenizers import ByteTokenizer
from lm.train.config import as_config, default
from lm.train.optim.schedule import ConstantRate
from lm.train.prefetch import put
from lm.train.setup import assemble
from lm.zoo.electra import electra_pair
from tests import toys
from tests.golden.joint import CLASSES, owner
from tests.golden.weights import tensor
from tests.train import tiny

SHAPE = {"layers": 1, "vocab": 384, "context": 12, "embed_width": 6, "dropout": 0.1}
PAIR = electra_pair(
    discriminator={**SHAPE, "d_model": 8, "heads": 2},
    generator={**SHAPE, "d_model": 4, "heads": 2, "pretraining": ("mlm",)},
)
OBJECTIVE = ReplacedTokens(MaskedTokens(0.4, 0.85, 0.0, TokenLoss(chunk=5)), weight=50.0)
KEY = jax.random.key(3)
GOLDEN = Path(__file__).parents[1] / "golden/electra_joint.npz"


@cache
def batch(rows: int = 8) -> dict:
    build, made = OBJECTIVE.examples(ByteTokenizer()), []
    for i in range(rows):
        rng = np.random.default_rng(i)
        segments = np.where(np.arange(13) < 13 - i % 4, 1, 0).astype(np.int32)
        made.append(build({"tokens": rng.integers(3, 259, 13).astype(np.int32), "segments": segments}, rng))
    return {name: np.stack([one[name] for one in made]) for name in made[0]}


@cache
def params() -> dict:
    return toys.values(PAIR.spec())


def pieces(ctx: Ctx) -> tuple:
    """The tokens that the discriminator reads, and both losses by hand, without dropout."""
    given, own, parts = batch(), PAIR.resolve(params()), dict(PAIR.parts)
    rows = {name: given[name] for name in ("tokens", "segments", "positions")}
    asked, original = given["generator/weights"] > 0, given["generator/targets"]
    model, here = parts["generator"], ctx.at("generator")
    x, _, _ = model.hidden(own["generator"], rows, Ctx())
    p = model.head_params(own["generator"])
    drawn = drawn_tokens(model.head, p, x, head_ctx(here, rows), 1.0, 5)
    nll = -jnp.take_along_axis(jax.nn.log_softmax(model(own["generator"], rows)), original[..., None], -1)[..., 0]
    tokens = np.where(asked, drawn, original)
    scores = parts["discriminator"](own["discriminator"], rows | {"tokens": tokens})[..., 0]
    signs = np.where(tokens != original, 1, -1)
    real = given["segments"] > 0
    return tokens, float(nll[asked].mean()), float(-jax.nn.log_sigmoid(signs * scores)[real].mean())


def test_the_loss_is_that_of_its_pieces():
    tokens, filled, detected = pieces(Ctx())
    total, weight, metrics, _, _, _ = OBJECTIVE(PAIR, params(), batch(), Ctx())
    np.testing.assert_allclose(total / weight, filled + 50 * detected, rtol=1e-5)
    shown = values(metrics)
    np.testing.assert_allclose([shown["generator/loss"], shown["discriminator/loss"]], [filled, detected], rtol=1e-5)
    real, original = batch()["segments"] > 0, batch()["generator/targets"]
    assert shown["discriminator/tokens"] == real.sum() and shown["tokens"] == weight
    np.testing.assert_allclose(shown["replaced"], (tokens != original)[real].mean(), rtol=1e-6)


def test_no_gradient_flows_through_what_is_drawn():
    given, spec = batch(), dict(flatten(PAIR.spec()))
    alone = dataclasses.replace(OBJECTIVE, weight=0.0)

    def mean(p: dict, objective: ReplacedTokens) -> jax.Array:
        loss = objective(PAIR, p, given, Ctx(key=KEY))
        return loss.total / loss.weight

    both, generator = (jax.jit(jax.grad(mean), static_argnums=1)(params(), o) for o in (OBJECTIVE, alone))
    own = [path for path in spec if path.startswith("generator/")]
    for path, leaf in flatten(both):
        other = dict(flatten(generator))[path]
        if path in own:  # the generator learns from its own loss alone
            np.testing.assert_allclose(leaf, other, rtol=1e-5, atol=1e-7, err_msg=path)
        elif path.endswith("embed/token"):
            assert toys.differ(leaf, other) and np.abs(other).max() > 0


def test_tokens_are_drawn_by_step_row_and_position():
    head, states = dict(PAIR.parts)["generator"].head, jnp.zeros((2, 12, 4))
    p = dict(PAIR.parts)["generator"].head_params(PAIR.resolve(params())["generator"])
    rows = {"row": jnp.array([5, 6])}

    def draw(x=states, key=KEY, rows=rows, chunk=5):
        return np.asarray(drawn_tokens(head, p, x, Ctx(key=key, rows=rows), 1.0, chunk))

    found = draw()
    np.testing.assert_array_equal(found, draw(chunk=12))
    np.testing.assert_array_equal(found[1:], draw(states[1:], rows={"row": jnp.array([6])}))
    assert toys.differ(found, draw(key=jax.random.key(4))) and toys.differ(found[0], found[1])
    many = drawn_tokens(head, p, jnp.zeros((1, 4000, 4)), Ctx(key=KEY), 0.25, 500)
    shares = np.bincount(np.asarray(many)[0], minlength=384) / 4000
    np.testing.assert_allclose(shares, jax.nn.softmax(head(p, jnp.zeros((1, 4)), Ctx())[0] / 0.25), atol=0.03)


def test_microbatches_add_up_to_the_whole():
    whole_batch = with_totals(batch()) | {"row": np.arange(8)}
    loss = jax.jit(lambda given: OBJECTIVE(PAIR, params(), given, Ctx(key=KEY)))
    whole, parts = loss(whole_batch), [loss({k: v[i::2] for k, v in whole_batch.items()}) for i in range(2)]
    np.testing.assert_allclose(sum(part.total for part in parts), whole.total, rtol=1e-5)
    np.testing.assert_allclose(sum(part.weight for part in parts), whole.weight)


def test_the_joint_loss_equals_that_of_transformers(monkeypatch):
    """`tests/golden/electra_joint.py` made the numbers, for given draws."""
    known = dict(np.load(GOLDEN))
    shape = {"layers": 2, "vocab": 23, "context": 12, "embed_width": 6}
    pair = electra_pair(
        discriminator={**shape, "d_model": 8, "heads": 2},
        generator={**shape, "d_model": 4, "heads": 1, "pretraining": ("mlm",)},
    )
    given: dict = {}
    for name, part in pair.parts:
        binding = Binding(part, spelling({"model_type": "electra", "architectures": [CLASSES[name]]}).names)
        stored = {n: tensor(owner(name, n), link.shape) for n, link in binding.links.items()}
        given[name] = binding.to_params(stored)
    params = without_aliases(jax.device_put(given), pair.ties)
    monkeypatch.setattr("lm.objectives.replaced.drawn_tokens", lambda *_: known["drawn"])
    rows = {
        "tokens": known["shown"],
        "segments": known["real"],
        "generator/targets": known["original"],
        "generator/weights": known["asked"].astype(np.float32),
        "discriminator/weights": known["real"].astype(np.float32),
    }

    def mean(p: dict) -> tuple:
        loss = ReplacedTokens()(pair, p, rows, Ctx())
        return loss.total / loss.weight, loss.metrics

    (total, metrics), gradient = jax.jit(jax.value_and_grad(mean, has_aux=True))(params)
    found = [metrics["generator/loss"].value, metrics["discriminator/loss"].value, total]
    np.testing.assert_allclose(found, known["loss"], rtol=2e-5)
    table = gradient["discriminator"]["body"]["embed"]["token"]
    np.testing.assert_allclose(table, known["gradient"], rtol=1e-4, atol=2e-5 * np.abs(known["gradient"]).max())


def steps(sharding: Sharding | None) -> tuple:
    c = default()
    with c.unlocked():
        c.model, c.objective = to_dict(PAIR), as_config(OBJECTIVE)
        c.schedule = as_config(ConstantRate(warmup=0))
    c.optimizer.update(eps=1e-3, learning_rate=1e-2)
    parts = assemble(c, sharding=sharding)
    state, losses = parts.trainer.init(parts.hyper), []
    step = parts.trainer.jitted(state)
    for _ in range(2):
        state, metrics = step(state, put(batch(), np.arange(8), 8, sharding))
        losses.append(values(metrics)["objective"])
    return state.params, losses


@pytest.mark.slow
def test_eight_devices_compute_what_one_does():
    one, several = steps(None), steps(Sharding(make_mesh({"data": 2, "fsdp": 2, "tensor": 2})))
    np.testing.assert_allclose(several[1], one[1], rtol=2e-5)
    for (path, leaf), (_, right) in zip(flatten(several[0]), flatten(one[0]), strict=True):
        np.testing.assert_allclose(leaf, right, atol=1e-4, err_msg=path)


def test_models_and_objectives_that_do_not_go_together():
    check_needs(OBJECTIVE, PAIR)
    with pytest.raises(UserError, match="NextToken trains one model, but this has the parts generator, discriminator"):
        check_needs(NextToken(), PAIR)
    with pytest.raises(UserError, match="trains the models generator, discriminator, but this is one"):
        check_needs(OBJECTIVE, dict(PAIR.parts)["generator"])
    swapped = dataclasses.replace(PAIR, parts=(("generator", PAIR.main), ("discriminator", PAIR.main)), ties=())
    with pytest.raises(UserError, match=r"\(model 'generator'\) asks for tokens"):
        check_needs(OBJECTIVE, swapped)
    assert from_dict(to_dict(OBJECTIVE)) == OBJECTIVE


EXPERIMENT = """
from pathlib import Path
from ml_collections.config_dict import ConfigDict
from lm.core.component import to_dict
from lm.train.config import as_config
from tests.objectives.test_replaced import OBJECTIVE, PAIR
from tests.train import tiny

def get_config():
    config = tiny.config(Path(__file__).parent)
    with config.unlocked():
        config.model, config.objective = ConfigDict(to_dict(PAIR)), as_config(OBJECTIVE)
    config.data.length, config.train.steps = 12, 48
    config.log.update(checkpoint_every=4, eval_every=0)
    return config
"""


def start(folder, workdir: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "lm.train", f"--config={folder}/experiment.py", f"--workdir={folder / workdir}"]
    return subprocess.Popen(command, env=tiny.one_device(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


@pytest.mark.slow
def test_a_killed_run_goes_on_to_the_bit_and_its_parts_are_taken_out(tmp_path):
    (tmp_path / "experiment.py").write_text(EXPERIMENT)
    calm, killed = start(tmp_path, "calm"), start(tmp_path, "killed")
    assert calm.wait(300) == 0, calm.stderr.read()
    while not list((tmp_path / "killed/checkpoints").glob("4")) and killed.poll() is None:
        time.sleep(0.05)
    killed.kill()
    killed.wait()
    again = start(tmp_path, "killed")
    assert again.wait(300) == 0, again.stderr.read()
    want, got = (open_model(tmp_path / name) for name in ("calm", "killed"))
    assert got.step == want.step == 48
    for (path, leaf), (_, right) in zip(flatten(got.params), flatten(want.params), strict=True):
        np.testing.assert_array_equal(leaf, right, err_msg=path)
    tokens = toys.tokens(2)
    for name, model in PAIR.parts:
        part_run(tmp_path / "calm", name, tmp_path / name)
        opened = open_model(tmp_path / name)
        assert opened.model == model
        own = PAIR.resolve(want.params)[name]
        np.testing.assert_array_equal(model(opened.params, {"tokens": tokens}), model(own, {"tokens": tokens}))
    with pytest.raises(UserError, match="has no model 'discriminater'; did you mean 'discriminator'"):
        part_run(tmp_path / "calm", "discriminater", tmp_path / "none")
    with pytest.raises(UserError, match="has one model, no group"):
        part_run(tmp_path / "generator", "generator", tmp_path / "none")
