"""What a replay can come to, and the comparison that decides.  Pure: counts and places, never a text.

Law: reproduced means that every choice has the committed text and ended as recorded; not reproduced means that it did
not and that nothing known explains it; everything else is not reproducible here, with a reason of a closed list.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias


class Why(StrEnum):
    """Reasons why a replay says nothing of the answer, in alphabetical order; documented in docs/replay.md."""

    ANOTHER_MODEL = "another_model"
    CANCELLED = "cancelled"
    CIRCUMSTANCES_DIFFER = "circumstances_differ"
    CONTENT_MISSING = "content_missing"
    DOES_NOT_FIT = "does_not_fit"
    ENGINE_GAVE_UP = "engine_gave_up"
    KEY_UNKNOWN = "key_unknown"
    NOTHING_GENERATED = "nothing_generated"
    NOT_COMMITTED = "not_committed"
    NOT_ENDED = "not_ended"
    ORDER_OF_ARITHMETIC = "order_of_arithmetic"
    OUTPUT_MISMATCH = "output_mismatch"
    PROMPT_MISMATCH = "prompt_mismatch"
    RECORD_INCOMPLETE = "record_incomplete"
    STOP_MISMATCH = "stop_mismatch"
    SUBJECT_ERASED = "subject_erased"
    TENANT_NOT_NAMED = "tenant_not_named"
    TOKENIZED_DIFFERENTLY = "tokenized_differently"
    UNSTABLE_HERE = "unstable_here"


@dataclass(frozen=True, slots=True)
class Reproduced:
    """The same answer came again."""

    differences: tuple[str, ...] = ()
    """What computed it differently all the same."""


@dataclass(frozen=True, slots=True)
class Difference:
    """Where the first choice that differs begins to.  None: cannot be told."""

    choice: int | None = None
    tokens: tuple[int, int] | None = None
    """The first token that differs is one of [first, last], counted from 0."""
    character: int | None = None
    """First character that differs; told where the recorded text was at hand."""
    finish: bool = False
    """The texts agree; how the choice ended does not."""


@dataclass(frozen=True, slots=True)
class NotReproduced:
    """Another answer came, and nothing that is known explains it."""

    difference: Difference


@dataclass(frozen=True, slots=True)
class NotReproducibleHere:
    """Nothing is said of the answer."""

    why: Why
    explanation: str
    """For the auditor: names facts of the log, never content."""
    difference: Difference | None = None
    """Of an answer that came out differently, where that accuses nobody."""


Verdict: TypeAlias = Reproduced | NotReproduced | NotReproducibleHere
NAMES: dict[type[Verdict], str] = {
    Reproduced: "reproduced",
    NotReproduced: "not_reproduced",
    NotReproducibleHere: "not_reproducible_here",
}


def first_difference(
    *,
    marks: tuple[Sequence[str], Sequence[str]] | None,
    every: int,
    texts: tuple[Sequence[str], Sequence[str]] | None,
    finishes: tuple[Sequence[str | None], Sequence[str | None]],
) -> Difference:
    """Say where two answers part; each pair is (recorded, regenerated), an element per choice.

    Args:
        marks: four characters for every `every` tokens of a choice.
        every: tokens per mark.
        texts: where the recorded text is at hand.
        finishes: how the choices ended.
    """
    for choice, (then, now) in enumerate(zip(*finishes, strict=True)):
        mark = None if marks is None else first_unequal(_fours(marks[0][choice]), _fours(marks[1][choice]))
        character = None if texts is None else first_unequal(texts[0][choice], texts[1][choice])
        if mark is not None or character is not None:
            tokens = None if mark is None else (mark * every, mark * every + every - 1)
            return Difference(choice, tokens, character)
        if then != now:
            return Difference(choice, finish=True)
    return Difference()


def first_unequal(left: Sequence[str], right: Sequence[str]) -> int | None:
    """Give the first place at which two sequences differ, in length too; None where they are equal."""
    for place, (one, other) in enumerate(zip(left, right, strict=False)):
        if one != other:
            return place
    return None if len(left) == len(right) else min(len(left), len(right))


def _fours(marks: str) -> list[str]:
    return [marks[place : place + 4] for place in range(0, len(marks), 4)]
