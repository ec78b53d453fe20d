"""The law that keeps evaluation apart from training.

Promise: every combination (first name and surname, machine and number, quantity and value, fault,
action, order of clauses, order of machines) belongs to exactly one side, decided by a hash of its
parts alone: not by a seed, not by when it is drawn. About one in five is held out.
Never: looks at random numbers, files or the clock.
"""

from __future__ import annotations

import hashlib
from enum import StrEnum

_HELD_OUT_BYTES = 51  # of 256 values of the first digest byte: 19.9 %


class Side(StrEnum):
    """Which of the two worlds a combination may appear in."""

    TRAIN = "train"
    EVAL = "eval"


def side_of(kind: str, *parts: str) -> Side:
    """Return the only side on which this combination may appear."""
    digest = hashlib.sha256("\x1f".join((kind, *parts)).encode()).digest()
    return Side.EVAL if digest[0] < _HELD_OUT_BYTES else Side.TRAIN
