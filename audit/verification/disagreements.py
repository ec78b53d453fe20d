"""Where a leaf's bytes and its stored hash disagree, one of the two was altered; a signed root tells which.

Pure.  It only lists what could have happened: the caller tries each way against a hash that it believes, and takes the
first that leads there.  It never believes either side for a reason of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

MAX_SETTLED_ONE_BY_ONE = 10
"""Disagreements in one batch or block: up to 1,024 ways are tried."""


def ways_to_settle(num_disagreements: int) -> Iterator[tuple[bool, ...]]:
    """Yield each possible answer, one truth value per disagreement: were the bytes altered (True) or the hash?

    All bytes altered comes first.  With more disagreements than can be tried one by one, one side is believed as a
    whole.
    """
    if num_disagreements > MAX_SETTLED_ONE_BY_ONE:
        yield (True,) * num_disagreements
        yield (False,) * num_disagreements
    else:
        yield from product((True, False), repeat=num_disagreements)
