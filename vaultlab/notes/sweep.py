"""A sweep: fields and their values → the points of the grid."""

import re
from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

# Far more than a machine's owner allows by default: this only keeps a slip of the pen from filling the memory.
MAX_POINTS = 10_000
_SPAN = re.compile(r"(-?[0-9]{1,18})\.\.(-?[0-9]{1,18})")


def span(text: str) -> tuple[int, ...]:
    """A range, both ends included. ValueError, in words for an author, if it is none.

    >>> span("0..3")
    (0, 1, 2, 3)
    """
    found = _SPAN.fullmatch(text.replace(" ", ""))
    if found is None:
        raise ValueError("there are no values to go through.")
    first, last = int(found[1]), int(found[2])
    if first > last:
        raise ValueError(f"the range {text} runs backwards.")
    if last - first >= MAX_POINTS:
        raise ValueError(f"the range {text} has more than {MAX_POINTS} values.")
    return tuple(range(first, last + 1))


def expand(sweep: Mapping[str, Sequence[Any]]) -> tuple[dict[str, Any], ...]:
    """Every point of the grid, the last field moving fastest; a sweep of nothing has no points.

    >>> expand({"sparsity": (0, 0.9), "seed": (1, 2)})[1]
    {'sparsity': 0, 'seed': 2}
    """
    return tuple(dict(zip(sweep, values, strict=True)) for values in product(*sweep.values())) if sweep else ()
