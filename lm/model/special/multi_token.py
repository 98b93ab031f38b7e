"""The head that predicts some tokens after the next one."""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from lm.core.component import component
from lm.core.ctx import Ctx
from lm.core.errors import UserError
from lm.core.leaf import take
from lm.core.param import Initializer, Normal, Param, Tree
from lm.model.heads.language import LMHead
from lm.model.heads.protocol import AHEAD, HeadLoss, LossTerms, vocabulary_loss
from lm.model.layers import Norm, RMSNorm, linear, linear_spec
from lm.model.stack import Stack

Array = jax.Array


@component
class MultiTokenHead:
    """Multi-token prediction (DeepSeek-V3, arXiv 2412.19437, section 2.2): beside the next token, the `depth` after it.

    From the states h_0 = x, depth k makes h_k = module(W [norm(h_{k-1}) | norm(E t_{i+k})]), t_{i+k} being the k-th
    token after position i; `head` reads token i + k + 1 off it, h_0 included. `module` is usually one of the model's
    blocks and a norm, with parameters of its own at each depth. Head and token table E are for all depths: ties join
    them to the model's (`head/token` and `head/lm/w` to `body/embed/token`)."""

    predicts: ClassVar[str] = AHEAD

    head: LMHead
    module: Stack
    depth: int = 1
    norm: Norm = RMSNorm()
    init: Initializer = Normal()

    def __post_init__(self) -> None:
        if self.depth < 1:
            raise UserError(f"depth={self.depth} of a multi-token head must be at least 1: use its inner head alone")

    @property
    def places(self) -> dict[str, Any]:
        """Of parameters, for `lm.core.ownership`."""
        return {"head": "lm", "module": tuple(f"{k}/module" for k in range(1, self.depth + 1))}

    def spec(self, d: int) -> Tree:
        def one() -> Tree:
            return {
                "state_norm": self.norm.spec(d),
                "token_norm": self.norm.spec(d),
                "project": linear_spec((2 * d, d), (None, "embed"), False, self.init),
                "module": self.module.spec(d),
            }

        token = Param((self.head.vocab, d), ("vocab", "embed"), self.init)
        return {"lm": self.head.spec(d), "token": token} | {str(k): one() for k in range(1, self.depth + 1)}

    def states(self, p: Tree, x: Array, ctx: Ctx) -> tuple[list[Array], Tree]:
        """h_0 to h_depth, each [B, S, D], and what the modules recorded. The last k of h_k lack the tokens behind them;
        no others read those."""
        found, aux, tokens = [x], {}, ctx.rows["tokens"]
        for k in range(1, self.depth + 1):
            own = p[str(k)]
            ahead = jnp.pad(tokens, ((0, 0), (0, k)))[:, k:]
            parts = [self.norm(own["state_norm"], found[-1])]
            parts.append(self.norm(own["token_norm"], take(p["token"], ahead, x.dtype)))
            joined = linear(own["project"], jnp.concatenate(parts, axis=-1))
            h, _, aux[str(k)] = self.module(own["module"], joined, ctx.at(str(k)), None)
            found.append(h)
        return found, aux

    def __call__(self, p: Tree, x: Array, ctx: Ctx) -> dict[str, Array]:
        """Scores by depth ("0": of the next token), each [B, S, vocab]."""
        return {str(k): self.head(p["lm"], h, ctx) for k, h in enumerate(self.states(p, x, ctx)[0])}

    def loss(self, p: Tree, x: Array, targets: Array, weights: Array, ctx: Ctx, terms: LossTerms) -> HeadLoss:
        """Depth k predicts one token further than k - 1, if that and all before it belong to the document. Its losses
        are divided by as many tokens as the first one's, whose figures alone are reported."""
        losses, here, whole = [], weights, weights
        states, aux = self.states(p, x, ctx)
        for k, h in enumerate(states):
            if k:
                targets, here = (jnp.pad(a, ((0, 0), (0, 1)))[:, 1:] for a in (targets, here))
                whole = whole * here
            losses.append(vocabulary_loss(self.head, p["lm"], h, targets, whole, ctx, terms))
        first, *further = losses
        total = first.total + terms.ahead * sum(loss.total for loss in further) / self.depth
        return first._replace(total=total, aux=aux)

    def update(self, p: Tree, aux: Tree) -> Tree:
        """Move the buffers of the modules, given what their layers recorded."""
        return p | {k: p[k] | {"module": self.module.update(p[k]["module"], own)} for k, own in aux.items()}
