"""What is done to a model before another run goes on from it: what is kept, what is new, and that runs resume."""

import io
import shutil
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections.config_dict import ConfigDict
from rich.console import Console

from lm.adapt.surgery.copies import CopyExperts, CopyLayers
from lm.adapt.surgery.experts import DenseExperts, KeepExperts, busiest
from lm.adapt.surgery.inherit import Inherit
from lm.adapt.surgery.new_head import NewHead
from lm.adapt.surgery.non_causal import NonCausal
from lm.adapt.surgery.surgery import Surgery, operate, report, result
from lm.adapt.surgery.two_towers import ToEncoderDecoder
from lm.adapt.surgery.vocabulary import GrowVocabulary
from lm.core.component import from_dict, to_dict, with_knobs
from lm.core.errors import UserError
from lm.core.param import flatten, initialize
from lm.model.heads import NoHead, SequenceClassifier
from lm.model.masks import Prefix
from lm.model.moe.dispatch import Dropless
from lm.model.transformer import Model, with_head
from lm.runs.checkpoint import open_model
from lm.train.loop import train
from lm.zoo.bert import bert
from lm.zoo.bert2bert import bert2bert
from lm.zoo.gpt2 import gpt2
from lm.zoo.registry import build
from lm.zoo.t5 import t5
from tests import toys
from tests.train import tiny

KEY = jax.random.key(0)
GPT = gpt2(layers=3, d_model=8, heads=2, vocab=20, context=16)
BERT = bert(layers=2, d_model=8, heads=2, vocab=20, context=16)
VALUES = toys.values(GPT.spec())


def done(surgery: Surgery, model: Model = GPT, params: Any = None) -> tuple[Model, dict[str, Any]]:
    """The new model and its parameters by path."""
    params = toys.values(model.spec()) if params is None else params
    new = surgery.model(model)
    made = operate((surgery,), model, params, KEY)
    shapes = {path: p.shape for path, p in flatten(new.spec())}
    assert {path: x.shape for path, x in flatten(made)} == shapes
    assert from_dict(to_dict(surgery)) == surgery and isinstance(surgery, Surgery)
    return new, made


def logits(model: Model, params: Any, **rows: Any) -> np.ndarray:
    tokens = jnp.arange(12).reshape(2, 6)
    return np.asarray(model(params, {"tokens": tokens, **rows}))


def test_a_new_head_begins_as_in_a_run_from_scratch():
    surgery = NewHead(SequenceClassifier(3))
    new, made = done(surgery)
    assert new == with_head(GPT, SequenceClassifier(3)) and new.ties == ()
    fresh = initialize(new.spec(), KEY)
    np.testing.assert_array_equal(made["head"]["out"]["w"], fresh["head"]["out"]["w"])
    assert tiny.bits(made["body"]) == tiny.bits(VALUES["body"])
    assert report((surgery,), GPT) == (("head/out/b", "head/out/w"), ())
    assert "head/dense/w" in report((surgery,), BERT).unused
    tied, _ = done(NewHead(GPT.head, (("head/w", "body/embed/token"),)), with_head(GPT, NoHead()))
    assert tied == GPT


@pytest.mark.parametrize("model", [GPT, BERT, t5(layers=1, d_model=8, heads=2, d_ff=8, vocab=20, tied=False)], ids=str)
def test_a_grown_vocabulary_keeps_the_old_tokens(model):
    new, made = done(GrowVocabulary(21, multiple=4), model)
    assert new.vocab == 24
    before = dict(flatten(toys.values(model.spec())))
    grown = 0
    for path, p in flatten(new.spec()):
        x, old = made, before[path]
        for name in path.split("/"):
            x = x[name]
        if x.shape != old.shape:
            grown += 1
            assert p.axes[0] == "vocab"
            np.testing.assert_array_equal(x[:20], old)
            np.testing.assert_allclose(x[20:], np.broadcast_to(old.mean(0), x[20:].shape), atol=1e-6)
    assert grown >= 1


def test_a_vocabulary_shrinks_only_when_asked():
    with pytest.raises(UserError, match="GrowVocabulary to 10 would cut 10 rows off the vocabulary of 20"):
        GrowVocabulary(10).model(GPT)
    _, made = done(GrowVocabulary(10, shrink=True))
    np.testing.assert_array_equal(made["body"]["embed"]["token"], VALUES["body"]["embed"]["token"][:10])
    _, made = done(GrowVocabulary(22, rows="fresh"))
    fresh = initialize(GrowVocabulary(22).model(GPT).spec(), KEY)["body"]["embed"]["token"]
    np.testing.assert_array_equal(made["body"]["embed"]["token"][20:], fresh[20:])
    sizes = {tokens: GrowVocabulary().for_tokenizer(tokens).model(GPT).vocab for tokens in (7, 25)}
    assert sizes == {7: 20, 25: 25} and GrowVocabulary(22).for_tokenizer(7).model(GPT).vocab == 22


def test_a_causal_decoder_reads_a_prefix():
    new, made = done(NonCausal())
    assert all(block.parts[0][1].mask == Prefix() for block in new.body.stack.blocks())
    np.testing.assert_allclose(logits(new, made), logits(GPT, VALUES), atol=1e-5)
    prefix = jnp.broadcast_to(jnp.arange(6) < 3, (2, 6))
    seen = logits(new, made, prefix=prefix)
    assert np.abs(seen[:, 0] - logits(GPT, VALUES)[:, 0]).max() > 1e-3
    with pytest.raises(UserError, match="finds no Causal mask in this model, whose masks are Bidirectional"):
        NonCausal().model(BERT)


@pytest.mark.parametrize("order", [(0, 1, 2, 0, 1, 2), (0, 0, 1, 1, 2), (2,)])
def test_layers_are_copies(order):
    new, made = done(CopyLayers(order))
    before = VALUES["body"]["stack"]["0"]["0"]["mlp"]["up"]["w"]
    for i, old in enumerate(order):
        segment, repeat, position = new.body.stack.locate(i)
        got = made["body"]["stack"][str(segment)][str(position)]["mlp"]["up"]["w"][repeat]
        np.testing.assert_array_equal(got, before[old])
    np.testing.assert_array_equal(made["body"]["stack"]["norm"]["w"], VALUES["body"]["stack"]["norm"]["w"])
    if order == (2,):
        with pytest.raises(UserError, match=r"CopyLayers.order=\[3\] must name layers from 0 to 2"):
            CopyLayers((3,)).model(GPT)


def test_experts_that_are_copies_compute_what_the_layer_did():
    surgery = CopyExperts(4, dispatch=Dropless())
    new, made = done(surgery)
    assert [dict(b.parts)["mlp"].__class__.__name__ for b in new.body.stack.blocks()] == ["MLP", "MoE", "MLP"]
    np.testing.assert_allclose(logits(new, made), logits(GPT, VALUES), atol=1e-5)
    assert [path.rpartition("/")[2] for path in report((surgery,), GPT).fresh] == ["w"]
    with pytest.raises(UserError, match="part='ffn' is no feed-forward part of layer 1, which has attention, mlp"):
        CopyExperts(4, part="ffn").model(GPT)


@pytest.mark.slow
def test_experts_that_are_never_chosen_are_pruned():
    """In a model whose router's bias forbids them; of one of which all experts are copies any may go."""
    model = toys.dense_first(Dropless())
    params = toys.values(model.spec())
    balance = params["body"]["stack"]["1"]["0"]["mlp"]["router"]["balance"]
    params["body"]["stack"]["1"]["0"]["mlp"]["router"]["balance"] = balance.at[0, 1].set(-9.0).at[1, 3].set(-9.0)
    load = toys.forward(model, params, {"tokens": toys.tokens(2)})[2]["1"]["0"]["mlp"]["router"].load.sum(1)
    assert busiest(load, 3) == ((0, 2, 3), (0, 1, 2))
    new, made = done(KeepExperts(busiest(load, 3)), model, params)
    np.testing.assert_allclose(logits(new, made), logits(model, params), atol=1e-5)
    assert [dict(b.parts)["mlp"].experts for b in new.body.stack.blocks()[1:]] == [3, 3]
    for wrong, message in (
        (((0, 4),), r"experts=\[0, 4\] must name experts from 0 to 3, each once"),
        (((0, 1),) * 3, "has 3 layers, but the model has experts in 2"),
        (((0, 1), (1,)), "as many experts in one layer as in another"),
        (((0,),), "router.k=2 exceeds experts=1"),
    ):
        with pytest.raises(UserError, match=message):
            KeepExperts(wrong).model(model)
    with pytest.raises(UserError, match="which this model has none of"):
        KeepExperts(((0,),)).model(GPT)


def test_a_dense_model_comes_back_from_copies_of_its_layers():
    """From one expert, and from several beside each other; a shared expert goes on as a part of it."""
    model = toys.language_model([toys.block(toys.attention(), toys.gated)] * 2)
    params = toys.values(model.spec())
    upcycled = CopyExperts(4, layers=(0, 1), dispatch=Dropless())
    sparse = upcycled.model(model)
    copies = operate((upcycled,), model, params, KEY)
    again, made = done(DenseExperts(((3,),)), sparse, copies)
    assert again == model and tiny.bits(made) == tiny.bits(params)
    wide, made = done(DenseExperts(((0, 2), (1, 3))), sparse, copies)
    np.testing.assert_allclose(logits(wide, made), logits(model, params), atol=1e-5)
    shared = with_knobs(sparse, lambda name, value: toys.gated if name == "shared" else value)
    params = toys.values(shared.spec())
    layer = params["body"]["stack"]["0"]["0"]["mlp"]  # experts of no effect: what is left is the shared one
    layer["experts"] = jax.tree.map(jnp.zeros_like, layer["experts"])
    new, made = done(DenseExperts(((0,),)), shared, params)
    np.testing.assert_allclose(logits(new, made), logits(shared, params), atol=1e-5)


def test_an_encoder_becomes_two_towers():
    params = toys.values(BERT.spec())
    new, made = done(ToEncoderDecoder(), BERT, params)
    assert new == bert2bert(layers=2, d_model=8, heads=2, vocab=20, context=16)
    assert tiny.bits(made["encoder"]) == tiny.bits(params["body"])
    kept = {path: x for path, x in flatten(made["decoder"]) if "cross" not in path}
    assert tiny.bits(kept) == tiny.bits(dict(flatten(params["body"])))
    assert all("/cross" in path for path in report((ToEncoderDecoder(),), BERT).fresh)
    shared, made = done(ToEncoderDecoder(shared=True), BERT, params)
    assert "encoder" not in made or not made["encoder"].get("embed")
    with pytest.raises(UserError, match="needs a head that predicts tokens, which NoHead does not: set `head`"):
        ToEncoderDecoder().model(with_head(BERT, NoHead()))


def test_what_agrees_is_inherited():
    other = gpt2(layers=3, d_model=8, heads=2, vocab=20, context=4)
    surgery = Inherit(other)
    _, made = done(surgery)
    assert report((surgery,), GPT) == (("body/embed/position/w",), ("body/embed/position/w",))
    assert tiny.bits(made["body"]["stack"]) == tiny.bits(VALUES["body"]["stack"])
    with pytest.raises(UserError, match="nothing would be taken"):
        Inherit(gpt2(layers=5, d_model=12, heads=2, vocab=30)).model(GPT)


# Runs


def run(folder: Path, workdir: Path, steps: int, init_from: str, *surgery: Any) -> str:
    config = tiny.config(folder)
    with config.unlocked():
        config.model = ConfigDict()
    config.train.update(init_from=init_from, steps=steps, surgery=tuple(map(to_dict, surgery)))
    said = Console(file=io.StringIO(), width=1000)
    train(config, workdir, said)
    return said.file.getvalue()


@pytest.mark.slow
def test_a_run_begins_with_the_result_and_goes_on_without_its_origin(tmp_path):
    base = tiny.config(tmp_path)
    base.train.steps = 1
    train(base, tmp_path / "base", Console(file=io.StringIO()))
    surgery = GrowVocabulary(multiple=256), CopyLayers((0, 1, 1))
    said = run(tmp_path, tmp_path / "run", 2, str(tmp_path / "base"), *surgery)
    assert "surgery (GrowVocabulary, CopyLayers): every parameter goes on" in said
    opened = open_model(tmp_path / "run")
    assert opened.model == result((GrowVocabulary(512), CopyLayers((0, 1, 1))), open_model(tmp_path / "base").model)
    assert build(opened.config.model) == opened.model
    shutil.rmtree(tmp_path / "base")
    assert "resumed at step 2" in run(tmp_path, tmp_path / "run", 3, str(tmp_path / "base"), *surgery)
    with pytest.raises(UserError, match=r"holds a run with train\.surgery"):
        run(tmp_path, tmp_path / "run", 4, str(tmp_path / "base"), GrowVocabulary(512))


def test_surgery_without_an_origin_is_refused(tmp_path):
    config = tiny.config(tmp_path)
    config.train.surgery = (to_dict(NonCausal()),)
    with pytest.raises(UserError, match="works on the model that a run starts from: set config"):
        train(config, tmp_path / "run", Console(file=io.StringIO()))
