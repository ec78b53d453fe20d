"""R10: who examined what and when, and which days nobody has examined."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from appliance.reports.scope import Rows, Scope, at, int_fact, text_fact
from audit.entry import Entry
from audit.event import JsonValue
from audit.search.expression import shown_time


@dataclass(frozen=True, slots=True)
class Review:
    """One sign-off."""

    index: int
    signed_at: str
    reviewer: str
    covers_from: str
    covers_until: str
    """Nobody examines what is still to come: the signature's own time at most."""
    outcome: str
    examined: JsonValue
    """Indexes of the report runs that were examined."""
    notes: str
    """Empty where the reviewer kept them out of the log."""
    notes_sha256: str


@dataclass(frozen=True, slots=True)
class Stretch:
    """A stretch of time."""

    covers_from: str
    covers_until: str


@dataclass(frozen=True, slots=True)
class ReviewReport:
    """The result."""

    num_reviews: int
    reviews: tuple[Review, ...]
    reviews_left_out: int
    not_reviewed: tuple[Stretch, ...]
    """Of the window, up to the run."""
    findings: tuple[str, ...]


def review_report(entries: Iterable[Entry], scope: Scope, run_at_us: int) -> ReviewReport:
    """List the reviews that cover part of the window; `entries` are all reviews.

    What came after `run_at_us`, the time of the run, is nobody's to have examined yet, and is not asked for.
    """
    rows = Rows[Review]([])
    covered: list[tuple[int, int]] = []
    num_reviews = 0
    for entry in entries:
        facts = entry.leaf.event.facts
        low, until_us = int_fact(facts, "from_us"), int_fact(facts, "until_us")
        high = max(low, min(until_us, entry.leaf.event.ts_us))
        if low >= scope.until_us or high <= scope.from_us:
            continue
        num_reviews += 1
        covered = _with(covered, low, high) if low < high else covered
        rows.add(
            Review(
                index=entry.index,
                signed_at=at(entry),
                reviewer=entry.leaf.event.actor,
                covers_from=shown_time(low),
                covers_until=shown_time(high),
                outcome=text_fact(facts, "outcome"),
                examined=facts.get("examined"),
                notes=text_fact(facts, "notes"),
                notes_sha256=text_fact(facts, "notes_sha256"),
            )
        )
    open_ = tuple(_uncovered(covered, scope.from_us, min(scope.until_us, run_at_us)))
    return ReviewReport(
        num_reviews=num_reviews,
        reviews=tuple(rows.kept),
        reviews_left_out=rows.left_out,
        not_reviewed=open_,
        findings=tuple(f"nobody has reviewed {one.covers_from} to {one.covers_until}" for one in open_),
    )


def _with(covered: list[tuple[int, int]], low: int, high: int) -> list[tuple[int, int]]:
    """Add a stretch; what touches becomes one, so that daily reviews of years stay one stretch."""
    apart = [one for one in covered if one[1] < low or one[0] > high]
    touching = [one for one in covered if not (one[1] < low or one[0] > high)]
    return sorted([*apart, (min([low, *(one[0] for one in touching)]), max([high, *(one[1] for one in touching)]))])


def _uncovered(covered: Iterable[tuple[int, int]], low: int, high: int) -> Iterable[Stretch]:
    for start, end in covered:
        if start > low:
            yield Stretch(shown_time(low), shown_time(min(start, high)))
        low = max(low, end)
    if low < high:
        yield Stretch(shown_time(low), shown_time(high))
