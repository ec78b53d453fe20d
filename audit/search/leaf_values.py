"""What an expression is of a decoded leaf: the same question, asked of bytes instead of columns.

Pure.
"""

from __future__ import annotations

from audit.beside import policy_ids
from audit.leaf import Leaf
from audit.search.expression import And, Equal, Expression, Not, Or, Within
from audit.search.fields import TEXT_FIELDS

_EVENT_FIELDS = ("actor", "kind", "role", "subject", "tenant")


def values_of(leaf: Leaf, name: str) -> tuple[str, ...]:
    """Return what a leaf has of a text field; nothing where it has no such fact."""
    assert name in TEXT_FIELDS, name
    if name == "role":
        return (leaf.event.role, *leaf.event.role.split(","))
    if name == "policy":
        return policy_ids(leaf.event)
    if name in _EVENT_FIELDS:
        return (str(getattr(leaf.event, name)),)
    value = leaf.event.facts.get(name)
    return (value,) if isinstance(value, str) else ()


def holds(expression: Expression, leaf: Leaf) -> bool:
    """Tell whether the leaf is meant."""
    match expression:
        case Equal(name, value):
            return value in values_of(leaf, name)
        case Within(name, low, high):
            return low <= (leaf.event.ts_us if name == "time" else leaf.index) < high
        case Not(part):
            return not holds(part, leaf)
        case And(parts):
            return all(holds(part, leaf) for part in parts)
        case Or(parts):
            return any(holds(part, leaf) for part in parts)
