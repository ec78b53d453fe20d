"""Names of people and tenants, compared so that a hold cannot be slipped by: case, width, blanks and invisible marks.

Folding finds more than equality: it is right where a name must keep something from happening, and wrong where a name
chooses whom something happens to.  So holds and the law of two people fold; an erasure names exactly one person.
"""

from __future__ import annotations

import unicodedata

_INVISIBLE = frozenset({"Cc", "Cf", "Co", "Cs", "Cn"})


def folded(name: str) -> str:
    """Return the form under which names count as one."""
    flat = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
    shown = (" " if letter.isspace() else letter for letter in flat if _is_shown(letter))
    return " ".join("".join(shown).split())


def same_name(one: str, other: str) -> bool:
    """Whether two names may mean one person or tenant."""
    return folded(one) == folded(other)


def _is_shown(letter: str) -> bool:
    return letter.isspace() or unicodedata.category(letter) not in _INVISIBLE
