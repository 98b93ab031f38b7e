"""Other rows beside a row: what an example may need of other documents, such as a text that does not follow."""

from collections.abc import Sequence

import numpy as np

from lm.core.errors import UserError
from lm.data.cache import TokenCache
from lm.data.packing import PackedRows, Row

TRIES = 64  # draws of a row that shares no document with another


def beside(rows: PackedRows, i: int, count: int, rng: np.random.Generator) -> Row:
    """Row i with `count` others of the same source, as `with_partners`; each is drawn from all rows that share no
    document with it, and one that is not found is padding."""
    if not count:
        return rows[i]
    own, found = rows.documents(i), [i] * count
    for k in range(count):
        for j in rng.integers(len(rows), size=TRIES).tolist():
            if not np.isin(rows.documents(j), own).any():
                found[k] = j
                break
    return with_partners(rows[i], [None if j == i else rows[j] for j in found])


def with_partners(row: Row, partners: Sequence[Row | None]) -> Row:
    """A row and all that is known of others, as `partner0/tokens` and so on. None: padding."""
    blank = {name: np.zeros_like(value) for name, value in row.items()}
    of = [(f"partner{k}/", blank if partner is None else partner) for k, partner in enumerate(partners)]
    return row | {prefix + name: value for prefix, partner in of for name, value in partner.items()}


def check_partners(caches: Sequence[TokenCache], packing: str) -> None:
    """Raise `UserError` for sources in which no row has partners."""
    if packing == "stream":
        raise UserError(
            "this objective reads rows of other documents beside each, but config.data.packing='stream' goes on row by "
            "row: set it to concat, best-fit or one"
        )
    for cache in caches:
        if cache.documents < 2:
            raise UserError(
                "this objective reads texts of other documents beside each, but there is only one document here: give "
                "more, or a source with a record for each"
            )
