"""The closed list of what a filter can ask for.

Pure.  A name that is not here does not exist; a value never becomes part of a statement.
"""

from __future__ import annotations

TEXT_FIELDS = (
    "actor",
    "decision",
    "kind",
    "label",
    "model_root",
    "outcome",
    "policy",
    "role",
    "route",
    "subject",
    "tenant",
)
"""Compared with = and !=, as they are written, case and all."""
RANGE_FIELDS = ("index", "time")
"""Compared with = != < <= > >=."""
MANY_VALUED = frozenset({"policy", "role"})
"""A leaf can hold several values of these: `=` asks whether one of them is it."""
RANGE_END = 2**53
"""Beyond every index and every microsecond that a leaf can hold."""
