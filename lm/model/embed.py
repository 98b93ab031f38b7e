"""From token ids to the stack's input."""

from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp

from lm.core.component import component
from lm.core.ctx import Ctx, constrain, dropout
from lm.core.errors import UserError, nearest
from lm.core.fsdp import FullySharded
from lm.core.leaf import take
from lm.core.param import Initializer, Normal, Param, Tree
from lm.model.layers import Norm, linear, linear_spec
from lm.model.positions import Learned, Sinusoidal

Array = jax.Array
PROJECT = ("tokens", "sum", "end", "pad")


@runtime_checkable
class Embedder(Protocol):
    """What makes a tower's input of ids, and of other rows in ctx."""

    @property
    def vocab(self) -> int:
        """Number of ids."""

    @property
    def max_length(self) -> int | None:
        """Number of positions there are rows for; None without a limit."""

    def spec(self, d: int) -> Tree: ...

    def __call__(self, p: Tree, ids: Array, ctx: Ctx, d: int, dtype: jax.typing.DTypeLike) -> Array:
        """ids [B, S], of the tokens that `ctx.rows` describe -> [B, S, D] in that dtype, D being `d`."""


@component(was=("Rows",))
class RowTable:
    """A table looked up by another row of the batch, `name` int [B, S]: token types (BERT), tasks (ERNIE), positions
    within a span (GLM). Where a batch has no such row, all its tokens are of row 0."""

    name: str
    rows: int
    init: Initializer = Normal()


@component
class Embed:
    """Token table, plus positions, other tables, norm and dropout where a family has them. ids [B, S] -> [B, S, D].

    vocab: rows of the token table;
    position: added by each token's position in the text;
    extra: tables looked up by other rows of the batch, added too;
    norm: of the sum;
    token_norm: of the tokens' rows, before anything is added (Blenderbot's decoder: Roller et al. 2020, 2004.13637);
    scale: multiplies the tokens' rows (sqrt(D): Vaswani et al. 2017, Gemma);
    width: of all tables, where they are narrower than D;
    project: what is projected to D then: the "tokens" alone, before positions are added (OPT 350M); the "sum", before
        the norm (DeBERTa); the result at the "end" (ALBERT: Lan et al. 2020, 1909.11942; ELECTRA); or nothing, and
        zeros "pad" the rows at last (YaLM-100B);
    project_bias: whether that projection has a bias;
    blank: a token whose `order` is negative, a query of `lm.model.masks.Permuted`, is one learned vector whatever its
        id (XLNet);
    dropout: of the result; init: of the tables."""

    vocab: int
    position: Learned | Sinusoidal | None = None
    extra: tuple[RowTable, ...] = ()
    norm: Norm | None = None
    token_norm: Norm | None = None
    scale: float = 1.0
    width: int | None = None
    project: str = "end"
    project_bias: bool = False
    blank: bool = False
    dropout: float = 0.0
    init: Initializer = Normal()

    def __post_init__(self) -> None:
        if self.project not in PROJECT:
            raise UserError(f"project={self.project!r} of an embedding is unknown{nearest(self.project, PROJECT)}")
        if (self.width is None and self.project != "end") or (self.project_bias and not self._projects):
            raise UserError("an embedding without `width` has no projection: set width, or neither project knob")

    @property
    def _projects(self) -> bool:
        return self.width is not None and self.project != "pad"

    def spec(self, d: int) -> Tree:
        width = self.width or d
        inner = d if self.project == "tokens" else width
        spec: Tree = {"token": Param((self.vocab, width), ("vocab", "embed"), self.init)}
        spec |= {"position": self.position.spec(inner)} if self.position else {}
        spec |= {t.name: {"w": Param((t.rows, inner), ("position", None), t.init)} for t in self.extra}
        spec |= {"norm": self.norm.spec(width if self.project in ("end", "pad") else d)} if self.norm else {}
        spec |= {"token_norm": self.token_norm.spec(inner)} if self.token_norm else {}
        spec |= {"blank": Param((1, width), (None, "embed"), self.init)} if self.blank else {}
        if self._projects:
            spec |= {"project": linear_spec((width, d), (None, "embed"), self.project_bias, self.init)}
        return spec

    @property
    def reads(self) -> tuple[str, ...]:
        """Rows of a batch (`lm.core.rows`): those of the other tables."""
        return tuple(table.name for table in self.extra)

    @property
    def max_length(self) -> int | None:
        """Number of positions there are rows for; None without a limit."""
        return self.position.max_length if self.position else None

    @property
    def any_order(self) -> bool:
        return not self.dropout

    def __call__(self, p: Tree, ids: Array, ctx: Ctx, d: int, dtype: jax.typing.DTypeLike) -> Array:
        def whole_rows(w: Array) -> Array:
            """Before the lookup: that of split ones is partitioned badly, or not at all within a pipeline's stage."""
            return constrain(w, ctx, "vocab", None) if w.ndim == 2 and len(w) == self.vocab else w

        table = p["token"]  # which sees to it by itself where it is known to be in shards
        table = table if isinstance(table, FullySharded) else jax.tree.map(whole_rows, table)
        x = take(table, ids, dtype)
        if self.blank and "order" in ctx.rows:
            x = jnp.where((ctx.rows["order"] < 0)[..., None], take(p["blank"], 0, dtype), x)
        if (share := ctx.embed_gradient) != 1:
            x = share * x + (1 - share) * jax.lax.stop_gradient(x)
        if self.scale != 1:
            x = x * self.scale
        x = self._projected(p, x, "tokens")
        x = self.token_norm(p["token_norm"], x) if self.token_norm else x
        if self.position:
            at = ctx.rows.get("text_position", ctx.rows["positions"])
            x = x + self.position(p["position"], at, x.shape[-1], dtype)
        for extra in self.extra:
            x = x + take(p[extra.name]["w"], ctx.rows.get(extra.name, jnp.zeros_like(ids)), dtype)
        x = self._projected(p, x, "sum")
        if self.norm:
            x = self.norm(p["norm"], x)
        x = self._projected(p, dropout(x, self.dropout, ctx, "embed"), "end")
        x = jnp.pad(x, ((0, 0), (0, 0), (0, d - x.shape[-1]))) if self.project == "pad" else x
        return constrain(x, ctx, "batch", "seq", "embed")

    def _projected(self, p: Tree, x: Array, at: str) -> Array:
        return linear(p["project"], x) if self.width and self.project == at else x
