"""Replaced-token detection (ELECTRA, Clark et al. 2020, arXiv 2003.10555): a generator fills in hidden tokens, and a
discriminator tells of every token whether it is the text's own. Both learn at once; the discriminator is kept."""

import zlib
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from lm.core.component import component, in_range
from lm.core.ctx import Ctx
from lm.core.errors import UserError
from lm.core.metrics import Mean, aux_losses, aux_metrics
from lm.core.param import Tree
from lm.core.ranges import NOT_NEGATIVE, POSITIVE
from lm.core.rows import Batch
from lm.model.heads import TOKEN_LABELS, Head
from lm.model.transformer import Group, Model, head_ctx
from lm.objectives.examples.replaced import ReplacedExamples
from lm.objectives.joint import added_losses
from lm.objectives.masked import MaskedTokens
from lm.objectives.objective import Loss, Needs, Scoring

if TYPE_CHECKING:
    from lm.text.tokenizers import Tokenizer

Array = jax.Array
GENERATOR, DISCRIMINATOR = "generator", "discriminator"


@component
class ReplacedTokens:
    """The mean loss of a generator's hidden tokens, plus `weight` times that of a discriminator over all tokens of the
    text, some of which the generator replaced. The model is a `Group` of parts with these names, which may share
    tensors (`lm.zoo.electra.electra_pair`).

    Every hidden token is replaced by one drawn from the generator's softmax; one that happens to be the original counts
    as original. No gradient flows through the drawing, nor from the discriminator to what the generator predicts.
    Random bits are of (step, row, position), without a step (in evaluation) always the same.

    hidden: what the generator predicts, and how; its examples must have all of the text's tokens as targets. Of the
        hidden tokens 85 % are masked and the others left as they are, as in the published code
    weight: of the discriminator
    temperature: of the drawing"""

    hidden: MaskedTokens = MaskedTokens(masked=0.85, random=0.0)
    weight: float = 50.0
    temperature: float = 1.0

    def __post_init__(self) -> None:
        in_range(self.weight, NOT_NEGATIVE, "weight")
        in_range(self.temperature, POSITIVE, "temperature")
        if self.hidden.predictions:
            raise UserError("ReplacedTokens judges all positions: set config.objective.hidden.predictions=0")

    def needs(self) -> Needs:
        own = self.hidden.needs()
        return Needs(
            parts=((GENERATOR, own), (DISCRIMINATOR, Needs(head=TOKEN_LABELS, both_sides=True))),
            channels=own.channels,
            copies=own.copies,
        )

    def examples(self, tokenizer: "Tokenizer | None" = None) -> ReplacedExamples:
        return ReplacedExamples(self.hidden.examples(tokenizer))

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
        assert isinstance(model, Group)  # `check_needs` has told the user
        parts, own, terms = dict(model.parts), model.resolve(params), self.hidden.loss.terms()
        generator, discriminator = parts[GENERATOR], parts[DISCRIMINATOR]
        rows = {name: value for name, value in batch.items() if "/" not in name}
        original, weights = batch[f"{GENERATOR}/targets"], batch[f"{GENERATOR}/weights"].astype(jnp.float32)

        here = ctx.at(GENERATOR)
        x, _, written = generator.hidden(own[GENERATOR], rows, here, None, dtype)
        p, here = generator.head_params(own[GENERATOR]), head_ctx(here, rows)
        filled = generator.head.loss(p, x, original, weights, here, terms)

        drawn = drawn_tokens(generator.head, p, x, here, self.temperature, terms.chunk)
        tokens = jnp.where(weights > 0, drawn, original)
        replaced = (tokens != original).astype(jnp.int32)

        here, rows = ctx.at(DISCRIMINATOR), rows | {"tokens": tokens}
        y, _, read = discriminator.hidden(own[DISCRIMINATOR], rows, here, None, dtype)
        p, real = discriminator.head_params(own[DISCRIMINATOR]), batch[f"{DISCRIMINATOR}/weights"].astype(jnp.float32)
        detected = discriminator.head.loss(p, y, replaced, real, head_ctx(here, rows), terms)

        losses = {GENERATOR: filled, DISCRIMINATOR: detected}
        loss = added_losses(losses, {GENERATOR: 1.0, DISCRIMINATOR: self.weight}, batch)
        aux = {GENERATOR: written, DISCRIMINATOR: read}
        metrics = loss.metrics | aux_metrics(aux) | {"replaced": Mean((replaced * real).sum(), real.sum())}
        return Loss(loss.total + aux_losses(aux, self.hidden.loss.aux), loss.weight, metrics, aux)


def drawn_tokens(head: Head, p: Tree, x: Array, ctx: Ctx, temperature: float, chunk: int) -> Array:
    """int32 [B, S]: a token for each state [B, S, D], drawn from the head's softmax (by its largest logit behind Gumbel
    noise), for `chunk` positions at a time. Bits are keyed as those of `lm.core.ctx.dropout`, and by position."""
    p, x = jax.lax.stop_gradient((p, x))
    key = jax.random.key(0) if ctx.key is None else ctx.key
    key = jax.random.fold_in(key, zlib.crc32(f"{ctx.path}/drawn".encode()))
    of_row = jax.vmap(lambda r: jax.random.fold_in(key, r))(ctx.rows.get("row", jnp.arange(x.shape[0])))
    length, chunk = x.shape[1], min(chunk, x.shape[1])
    starts = jnp.arange(0, length, chunk)
    padded = jnp.pad(x, ((0, 0), (0, -length % chunk), (0, 0)))

    def one(start: Array) -> Array:
        logits = head(p, jax.lax.dynamic_slice_in_dim(padded, start, chunk, axis=1), ctx) / temperature

        def noise(row: Any, position: Array) -> Array:
            return jax.random.gumbel(jax.random.fold_in(row, position), logits.shape[-1:])

        of_positions = jax.vmap(jax.vmap(noise, (None, 0)), (0, None))(of_row, start + jnp.arange(chunk))
        return jnp.argmax(logits + of_positions, axis=-1).astype(jnp.int32)

    found = jnp.swapaxes(jax.lax.map(one, starts), 0, 1)  # [B, S / chunk, chunk]
    return found.reshape(x.shape[0], -1)[:, :length]
