"""Texts and their code, told apart, matched, and written from each other (CodeT5+, Wang et al. 2023, arXiv 2305.07922,
section 3.2: its second stage)."""

from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from lm.core.component import component, in_range
from lm.core.ctx import Ctx, by_row
from lm.core.errors import UserError
from lm.core.metrics import aux_losses, aux_metrics
from lm.core.param import Tree
from lm.core.ranges import POSITIVE
from lm.core.rows import HIDDEN, Batch
from lm.model.heads import ROW_LABELS, TOKENS, Heads
from lm.model.transformer import EncoderDecoder, Model, head_ctx
from lm.objectives.contrastive import cosines, told_apart
from lm.objectives.examples.text_and_code import PairTokens, TextAndCodeExamples
from lm.objectives.joint import added_losses
from lm.objectives.objective import Loss, Needs, Scoring
from lm.objectives.token_loss import TokenLoss
from lm.text.special import FIRSTS, PAIR_TASKS, first_of

if TYPE_CHECKING:
    from lm.text.tokenizers import Tokenizer

Array = jax.Array
LM, MATCHING, CONTRAST = "lm", "matching", "contrast"  # the heads
READ = ("tokens", "segments", "positions")


@component
class TextAndCode:
    """The sum of the mean losses of four tasks, of pairs of a text and its code (`config.data.records.type=Pairs` or
    `Functions`), one in a row (`config.data.packing=one`), of an encoder-decoder whose encoder runs once over either:

    - contrast: of each text which code of the batch is its own, and the other way round, by the cosine of what the
      head "contrast" makes of the encoder's states: `SequenceClassifier(256, at="first", ..)` without activation
    - matching: whether a text, which the encoder read, and a code, which the decoder reads, belong together, by the
      head "matching" at the decoder's last token: `SequenceClassifier(2, at="last")`. Of each pair, beside itself, its
      text with the code of another pair, and its code with the text of another
    - code, text: either from the other, token by token, by the head "lm"

    Those others are drawn from the softmax of the scores of the contrast, without a gradient, by bits of (step, row):
    the more alike, the likelier. They are of the batch, or of the microbatch where that is cut, as are the negatives of
    the contrast; in the paper they come from a queue of past ones too, which a moving average of the encoder made.

    texts, codes: tokens of either, with a special token before and the end-of-text behind; longer ones are cut
    temperature: cosines are divided by it; the paper learns it, from 0.07 on
    loss: of the tokens, and auxiliary losses"""

    texts: int = 128
    codes: int = 420
    temperature: float = 0.07
    loss: TokenLoss = TokenLoss()

    def __post_init__(self) -> None:
        in_range(self.temperature, POSITIVE, "temperature")
        if min(self.texts, self.codes) < 3:
            raise UserError(
                f"texts={self.texts} and codes={self.codes} are lengths that hold two special tokens: give 3 or more"
            )

    def needs(self) -> Needs:
        return Needs(
            heads=((MATCHING, ROW_LABELS), (CONTRAST, ROW_LABELS), (LM, TOKENS)),
            rows=("encoder/tokens",),
            positions=max(self.texts, self.codes),
            classes=2,
            alone=True,
            channels=("part", "target"),
        )

    def examples(self, tokenizer: "Tokenizer | None" = None) -> TextAndCodeExamples:
        return TextAndCodeExamples(self.texts, self.codes, PairTokens() if tokenizer is None else _special(tokenizer))

    def scoring(self, tokenizer: "Tokenizer") -> Scoring:
        return Scoring()

    def __call__(
        self,
        model: Model,
        params: Tree,
        batch: Batch,
        ctx: Ctx,
        dtype: jax.typing.DTypeLike = jnp.float32,
        cache: Tree = None,
    ) -> Loss:
        assert isinstance(model, EncoderDecoder) and isinstance(model.head, Heads)  # `check_needs` has told the user
        _check_sizes(model, batch)
        heads, p, terms = dict(model.head.parts), model.head_params(params), self.loss.terms()
        text, read_text = model.encode(params, _under("encoder/", batch, "encoder/"), ctx.at("text"), dtype)
        code, read_code = model.encode(params, _under("other/encoder/", batch, "encoder/"), ctx.at("code"), dtype)

        def projected(states: dict[str, Array], prefix: str) -> Array:
            return heads[CONTRAST](p[CONTRAST], states["encoder"], head_ctx(ctx, _under(prefix, batch)).at(CONTRAST))

        pairs = batch["contrast/weights"].astype(jnp.float32)
        scores = cosines(projected(text, "encoder/"), projected(code, "other/encoder/")) / self.temperature
        losses = {"contrast": told_apart(scores, pairs)}

        codes, texts, found = hard_negatives(scores, pairs > 0, ctx.at(MATCHING))
        row = batch.get("row", jnp.arange(len(pairs)))
        judged = {k: jnp.concatenate([x, x[codes], x]) for k, x in _under("matching/", batch).items()}
        judged["row"] = jnp.concatenate([3 * row + i for i in range(3)])  # each draws dropout of its own
        memory = {k: jnp.concatenate([x, x, x[texts]]) for k, x in text.items()}
        x, _, judging = model.decode(params, judged, memory, ctx.at("matching"), None, dtype)
        weights = batch["matching/weights"].astype(jnp.float32) * jnp.stack(
            [jnp.ones_like(found), found, found], axis=1
        )
        losses["matching"] = heads[MATCHING].loss(
            p[MATCHING], x, batch["matching/targets"].T.ravel(), weights.T.ravel(), head_ctx(ctx, judged), terms
        )

        written = []
        for name, prefix, memory in (("code", "", text), ("text", "other/", code)):
            rows, here = _under(prefix, batch), ctx.at(f"{name}/written")
            x, _, aux = model.decode(params, rows, memory, here, None, dtype)
            written.append(aux)
            targets, weights = batch[f"{name}/targets"], batch[f"{name}/weights"].astype(jnp.float32)
            losses[name] = self.loss.of_head(heads[LM], p[LM], x, targets, weights, head_ctx(here, rows), terms)

        loss = added_losses(losses, dict.fromkeys(losses, 1.0), batch)
        aux = {"encoder": _joined(read_text, read_code), "decoder": _joined(judging, *written)}
        total = loss.total + aux_losses(aux, self.loss.aux)
        return Loss(total, loss.weight, loss.metrics | aux_metrics(aux), aux)


def hard_negatives(scores: Array, real: Array, ctx: Ctx) -> tuple[Array, Array, Array]:
    """Of each row another's code, and another's text, int32 [B], drawn from the softmax of its row and its column of
    scores [B (texts), B (codes)] over the others that are `real`, bool [B]; and float32 [B]: 1 where there is one."""
    others = real & ~jnp.eye(len(real), dtype=bool)
    ctx = ctx.replace(key=jax.random.key(0)) if ctx.key is None else ctx  # in evaluation always the same are drawn

    def drawn(scores: Array, site: str) -> Array:
        noise = by_row(lambda key: jax.random.gumbel(key, scores.shape[1:]), ctx, site, len(real))
        return jnp.argmax(jnp.where(others, scores + noise, HIDDEN), axis=1).astype(jnp.int32)

    scores = jax.lax.stop_gradient(scores)
    return drawn(scores, "codes"), drawn(scores.T, "texts"), others.any(axis=1).astype(jnp.float32)


def _under(prefix: str, batch: Batch, now: str = "") -> Batch:
    """What a model reads of the sequences under a prefix, under another one, and the number of each row."""
    own = {now + name: batch[prefix + name] for name in READ if prefix + name in batch}
    return own | {name: batch[name] for name in ("row",) if name in batch}


def _joined(*recorded: Any) -> Any:
    """What a tower recorded of several batches: leaves [layers, rows, ...]."""
    return jax.tree.map(lambda *of_each: jnp.concatenate(of_each, axis=1), *recorded)


def _check_sizes(model: EncoderDecoder, batch: Batch) -> None:
    if (rows := len(batch["tokens"])) < 2:
        raise UserError(
            f"TextAndCode tells a pair from others of the batch, but the batch, or a microbatch of it, has {rows} row: "
            "raise config.data.batch_size, or lower config.train.accumulate"
        )
    if model.encoder.width != model.decoder.width:
        raise UserError(
            f"the head 'contrast' of TextAndCode reads states of the encoder, {model.encoder.width} wide, but heads "
            f"have the width of the decoder, {model.decoder.width}: take a model in which both are equal"
        )


def _special(tokenizer: "Tokenizer") -> PairTokens:
    names = {"first": (tokenizer.special.get("cls"), *FIRSTS), **PAIR_TASKS}
    found = {task: first_of(tokenizer, of_task) for task, of_task in names.items()}
    ids = {task: i for task, i in found.items() if i is not None}
    if lacking := [FIRSTS[0] if task == "first" else PAIR_TASKS[task][0] for task in found.keys() - ids.keys()]:
        raise UserError(
            f"the tokenizer has no {' and no '.join(sorted(lacking))}, with which texts and code begin: add them with "
            f"config.data.reserved={sorted(lacking)}"
        )
    return PairTokens(**ids, eos=tokenizer.eos_id)
