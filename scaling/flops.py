"""Training FLOPs of a token as the papers count them. A fit is only as good as the C it is given, and published
exponents differ more by what C leaves out than by data (Porian et al. 2024; Pearce & Song 2024).

    python -m scaling.flops gpt2 xl                     every convention for a size of the zoo, beside the exact count
    python -m scaling.flops llama 3.2-1b --length=8192

Forward and backward pass: the backward one costs twice the forward one. None of these halves causal attention, and none
counts what is computed again. Multiply by the training tokens D for C.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from absl import flags
from rich.console import Console
from rich.table import Table

from lm.commands import cli
from lm.commands.zoo import chosen
from lm.core.component import components
from lm.core.errors import UserError, nearest
from lm.core.param import count
from lm.inspect.cost import active_parameters, training_flops
from lm.inspect.tables import short
from lm.model.attention import Attention
from lm.model.mlp import MLP, GatedMLP
from lm.model.transformer import EncoderDecoder, LanguageModel, Model
from lm.zoo.elsewhere import ELSEWHERE
from lm.zoo.registry import FAMILIES, build

USAGE = "FAMILY SIZE [--length=TOKENS]"
EMBEDDING_SHARE = (
    47_491.0  # Pearce & Song's omega, of Chinchilla's models: vocabulary rows and their width against N^(1/3)
)


@dataclass(frozen=True)
class Shape:
    """A decoder whose layers are all alike, of matrices only.

    d_model: width D
    d_attn: heads x their width
    d_kv: the same of keys and values; fewer than d_attn where queries share them
    d_ff: hidden units F, of `mlp_matrices` matrices D x F: 2, or 3 where they are gated
    vocab: rows V of the embedding; a head of its own is `untied`
    length: tokens S of a training sequence"""

    layers: int
    d_model: int
    heads: int
    d_attn: int
    d_ff: int
    vocab: int
    length: int
    d_kv: int | None = None
    mlp_matrices: int = 2
    untied: bool = False

    @property
    def block_params(self) -> int:
        """Weights of all layers, without embedding and head: Kaplan's N, 2 D L (2 d_attn + F) where nothing is shared
        or gated."""
        kv = self.d_attn if self.d_kv is None else self.d_kv
        return self.layers * self.d_model * (2 * self.d_attn + 2 * kv + self.mlp_matrices * self.d_ff)

    @property
    def params(self) -> int:
        """With embedding and head; one table that serves as both counts once."""
        return self.block_params + (1 + self.untied) * self.vocab * self.d_model


def six_nd(shape: Shape) -> float:
    """6 N of all parameters."""
    return 6.0 * shape.params


def kaplan(shape: Shape, *, attention: bool = False) -> float:
    """6 N without embedding and head, and without what attention does between tokens unless `attention` (2001.08361,
    table 1: 2 N + 2 L S d_attn forward)."""
    return 3.0 * (2 * shape.block_params + attention * 2 * shape.layers * shape.length * shape.d_attn)


def hoffmann(shape: Shape, *, vocabulary: bool = False) -> float:
    """Appendix F of 2203.15556. It lists an embedding's lookup as a matmul, and a head; its table A4, as printed, has
    neither, which is the default here."""
    kv = shape.d_attn if shape.d_kv is None else shape.d_kv
    projections = 2 * shape.d_model * (2 * shape.d_attn + 2 * kv)
    scores = 2 * shape.length * shape.d_attn + 3 * shape.heads * shape.length + 2 * shape.length * shape.d_attn
    dense = 2 * shape.mlp_matrices * shape.d_model * shape.d_ff
    tables = 2 * 2 * shape.vocab * shape.d_model if vocabulary else 0
    return 3.0 * (shape.layers * (projections + scores + dense) + tables)


def deepseek(shape: Shape) -> float:
    """M = 72 L D^2 + 12 L D S (2401.02954, equation 2), with attention, without vocabulary; layers of 12 D^2 weights
    are taken for granted. C = M x tokens is theirs, and M, not N, what they fit."""
    return 72.0 * shape.layers * shape.d_model**2 + 12.0 * shape.layers * shape.d_model * shape.length


def porian(shape: Shape, *, attention: bool = False) -> float:
    """6 (N without embedding, and the head's V D) (2406.19146); with `attention` 6 S D L more."""
    counted = shape.block_params + shape.vocab * shape.d_model
    return 6.0 * (counted + attention * shape.length * shape.d_model * shape.layers)


def with_embeddings(params: float, share: float = EMBEDDING_SHARE) -> float:
    """All parameters of a model with so many outside its embeddings, N + omega N^(1/3) (Pearce & Song 2024, 2406.12907,
    equation 7): a width grows with the cube root of N where depth grows with width."""
    return params + share * params ** (1 / 3)


def shape_of(model: Model, length: int) -> Shape:
    """The shape of a decoder in texts of `length` tokens. Raises `UserError` for a model whose layers are not one
    attention and one MLP each, all alike: conventions made for those say nothing of it."""
    found: set[tuple] = set()
    if isinstance(model, LanguageModel):
        blocks = model.body.stack.blocks()
        found = {(*_attention(block), *_mlp(block)) for block in blocks}
    if not isinstance(model, LanguageModel) or len(found) != 1 or None in (shape := next(iter(found))):
        raise UserError(
            "its layers are not one attention and one MLP each, all alike, as the papers' formulas take for granted; "
            "use 'jaxpr', which counts what is computed, or 6ND"
        )
    heads, d_attn, d_kv, d_ff, matrices = shape
    width, vocab = model.body.d_model, model.body.embed.vocab
    untied = count(model.spec().get("head", {})) >= width * vocab
    return Shape(len(blocks), width, heads, d_attn, d_ff, vocab, length, d_kv, matrices, untied)


def _attention(block: object) -> tuple:
    match [part for part in components(block) if isinstance(part, Attention)]:
        case [a]:
            return a.heads, a.heads * a.head_dim, (a.kv_heads or a.heads) * a.head_dim
    return (None, None, None)


def _mlp(block: object) -> tuple:
    match [part for part in components(block) if isinstance(part, MLP | GatedMLP)]:
        case [mlp]:
            return mlp.d_ff, 3 if isinstance(mlp, GatedMLP) else 2
    return (None, None)


class Convention(NamedTuple):
    """`per_token(model, length)`: training FLOPs of a token in texts of that length; `counts`: what is in them."""

    counts: str
    per_token: Callable[[Model, int], float]


def _of_shape(function: Callable[..., float], **how: bool) -> Callable[[Model, int], float]:
    return lambda model, length: function(shape_of(model, length), **how)


def _exact(model: Model, length: int) -> float:
    """Of an encoder-decoder with texts of that length on both sides, per token of either."""
    if isinstance(model, EncoderDecoder):
        return training_flops(model, length, length) / (2 * length)
    return training_flops(model, length) / length


CONVENTIONS = {
    "jaxpr": Convention("every matmul, attention and head", _exact),
    "6ND": Convention("6 N of the parameters that a token meets", lambda model, _: 6.0 * active_parameters(model)),
    "6ND-total": Convention("6 N with idle experts: memory, not compute", lambda model, _: 6.0 * count(model.spec())),
    "kaplan": Convention("6 N without embedding and head", _of_shape(kaplan)),
    "kaplan+attention": Convention("the same, with attention", _of_shape(kaplan, attention=True)),
    "hoffmann": Convention("layers and attention, as table A4", _of_shape(hoffmann)),
    "hoffmann+vocabulary": Convention("appendix F: embedding and head too", _of_shape(hoffmann, vocabulary=True)),
    "deepseek": Convention("M: 12 D^2 a layer and attention", _of_shape(deepseek)),
    "porian": Convention("6 N with the head, without the embedding", _of_shape(porian)),
    "porian+attention": Convention("the same, with attention", _of_shape(porian, attention=True)),
}
"""By the name that a record's `flops_convention` may have."""


def per_token(convention: str, model: Model, length: int) -> float:
    """Training FLOPs of a token of `model` in texts of `length` tokens, under a convention of that name."""
    if convention not in CONVENTIONS:
        raise UserError(f"no FLOP convention {convention!r}{nearest(convention, CONVENTIONS)}")
    return CONVENTIONS[convention].per_token(model, length)


def table(model: Model, length: int) -> Table:
    """Every convention beside the exact count; "-" where a paper's formula does not describe the model."""
    shown = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for name, justify in (("convention", "left"), ("FLOPs/token", "right"), ("of exact", "right"), ("counts", "left")):
        shown.add_column(name, justify=justify)  # type: ignore[arg-type]
    exact = per_token("jaxpr", model, length)
    try:
        shape_of(model, length)
        described = True
    except UserError:
        described = False
    for name, (counts, function) in CONVENTIONS.items():
        if described or name in ("jaxpr", "6ND", "6ND-total"):
            flops = function(model, length)
            shown.add_row(name, short(flops), f"{flops / exact:.3f}", counts)
        else:
            shown.add_row(name, "-", "-", counts)
    return shown


def define_flags() -> flags.FlagValues:
    f = flags.FlagValues()
    flags.DEFINE_integer("length", 2048, "Tokens of a training sequence.", 1, flag_values=f)
    return f


def main(argv: Sequence[str] | None = None) -> None:
    args = define_flags()

    def show(rest: list[str]) -> None:
        if len(rest) != 3:
            raise UserError(f"give a family and one of its sizes: python -m scaling.flops {USAGE}")
        _, family, size = rest
        if family not in FAMILIES:
            raise UserError(f"family {family!r} is unknown{nearest(family, FAMILIES, ELSEWHERE)}")
        model = build(chosen(family, size))
        limit = model.max_length
        if limit is not None and args.length > limit:
            raise UserError(f"--length={args.length}: {family} {size} has positions for {limit} tokens")
        Console(highlight=False, markup=False, width=110).print(table(model, args.length))

    cli.run(show, arguments=3, usage=USAGE, flag_values=args, argv=argv, own_code=False)


if __name__ == "__main__":
    main()
