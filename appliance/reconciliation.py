"""Hold the log's account of each run against itself and against the engine's own counters.

Pure: leaves in, a value out.  Laws that are checked, run by run: every `request:admitted` has exactly one terminal
record, every `replay:started` its one end; the tokens that these ends say the engine gave, plus what it gave after an
account was closed (`late`), are the tokens that the engine counted.  While requests run their tokens are counted and
not recorded yet, so the log may say less than the engine, never more.

A run is one opening of the log (its epoch).  A run that was killed has no closing counters: its requests are accounted
for, its tokens cannot be, and that is said rather than guessed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from appliance.audit_trail import PAIRING, REPLAY_PAIRING, Kind
from audit.event import JsonValue
from audit.leaf import Leaf

TOKENS = ("prompt_tokens", "cached_tokens", "output_tokens")
_OPENINGS = frozenset({PAIRING.opening, REPLAY_PAIRING.opening})
_ENDS = {
    **dict.fromkeys(PAIRING.terminals, "admitted_index"),
    **dict.fromkeys(REPLAY_PAIRING.terminals, "started_index"),
}
"""Kind of an end -> the fact that names its beginning."""
MAX_NAMED = 100
"""Findings and open requests that are named per run; all are counted."""


class Verdict(StrEnum):
    """Of one run, or of all; from the best to the worst."""

    BALANCED = "balanced"
    """Every request has its end, and the tokens are the engine's."""
    OPEN = "open"
    """Requests still run; nothing contradicts so far."""
    UNCOUNTED = "uncounted"
    """Every request has its end; the run left no counters to hold its tokens against."""
    UNBALANCED = "unbalanced"
    """Something is missing or counted twice; the findings say what."""


@dataclass(frozen=True, slots=True)
class Discrepancy:
    """One contradiction."""

    what: str
    index: int | None = None
    """Of the entry it is about."""
    subject: str = ""


@dataclass(frozen=True, slots=True)
class RunAccount:
    """One run."""

    epoch: int
    boot_id: str
    first_index: int
    last_index: int
    num_admitted: int
    num_replays: int
    ends: Mapping[str, int]
    """Kind of end -> requests and replays of this run that ended so, also those whose end a later run wrote."""
    num_open: int
    open_requests: tuple[tuple[str, int], ...]
    """(request id, index of its beginning) of the first requests and replays that have no end yet."""
    recorded: Mapping[str, int]
    """Tokens that the terminal records account for."""
    counted: Mapping[str, int] | None
    """Tokens that the engine counted, less the late ones; None where it told nobody."""
    late: Mapping[str, int] | None
    counted_by: str
    """`appliance:stopped`, `now`, or empty."""
    discrepancies: tuple[Discrepancy, ...]
    num_discrepancies: int

    @property
    def verdict(self) -> Verdict:
        """What to think of it."""
        if self.num_discrepancies:
            return Verdict.UNBALANCED
        if self.num_open:
            return Verdict.OPEN
        return Verdict.UNCOUNTED if self.counted is None else Verdict.BALANCED


@dataclass(frozen=True, slots=True)
class Reconciliation:
    """Every run that was looked at, oldest first."""

    runs: tuple[RunAccount, ...]

    @property
    def verdict(self) -> Verdict:
        """The worst of them; balanced where there is none."""
        return max((run.verdict for run in self.runs), key=list(Verdict).index, default=Verdict.BALANCED)


def reconcile(leaves: Iterable[Leaf], live: tuple[int, JsonValue] | None = None) -> Reconciliation:
    """Account for every run among the leaves; of one that is there in part, for its requests alone.

    Args:
        leaves: in order and without gaps, from the first that is looked at to the last.
        live: the epoch of the run that still goes on, and its counters in the form of the fact `engine`.  Taken before
            the end of the leaves was, so that they hold nothing that these leaves cannot.
    """
    accounting = _Accounting(None if live is None else live[0])
    for leaf in leaves:
        accounting.take(leaf)
    if live is not None and live[0] in accounting.runs:
        accounting.runs[live[0]].count(live[1], "now")
    return Reconciliation(tuple(run.close() for run in accounting.runs.values()))


@dataclass(slots=True)
class _Run:
    epoch: int
    boot_id: str
    first_index: int
    goes_on: bool
    is_whole: bool
    """Its first entry is among the leaves; of a part of a run no sum can be compared."""
    last_index: int = 0
    num_begun: Counter[str] = field(default_factory=Counter)
    ends: Counter[str] = field(default_factory=Counter)
    open: dict[str, int] = field(default_factory=dict)
    """Request id -> index of its beginning."""
    recorded: Counter[str] = field(default_factory=Counter)
    num_without_usage: int = 0
    """Terminal records that say nothing of the engine's tokens: of an older release."""
    counters: Mapping[str, int] | None = None
    late: Mapping[str, int] | None = None
    counted_by: str = ""
    discrepancies: list[Discrepancy] = field(default_factory=list)
    num_discrepancies: int = 0

    def find(self, what: str, index: int | None = None, subject: str = "") -> None:
        self.num_discrepancies += 1
        if len(self.discrepancies) < MAX_NAMED:
            self.discrepancies.append(Discrepancy(what, index, subject))

    def count(self, engine: JsonValue, by: str, index: int | None = None) -> None:
        """Take the engine's counters; they only grow."""
        total, late = _tokens(engine), _tokens(engine.get("late") if isinstance(engine, Mapping) else None)
        if total is None or late is None:
            return
        for name in TOKENS:
            if self.counters is not None and total[name] < self.counters[name]:
                self.find(f"the engine's {name} went back from {self.counters[name]} to {total[name]}", index)
        self.counters, self.late, self.counted_by = total, late, by

    def end(self, leaf: Leaf) -> None:
        """Take the end of what is open."""
        del self.open[leaf.event.subject]
        self.ends[leaf.event.kind] += 1
        usage = _tokens(leaf.event.facts.get("engine"))
        if usage is not None:
            self.recorded.update(usage)
        elif leaf.event.facts.get("outcome") != "abandoned":
            self.num_without_usage += 1

    def close(self) -> RunAccount:
        """Judge."""
        if not self.goes_on:
            for subject, index in self.open.items():
                self.find("this request began and has no end", index, subject)
        counted = self._counted()
        if counted is not None:
            self._compare(counted)
        return RunAccount(
            epoch=self.epoch,
            boot_id=self.boot_id,
            first_index=self.first_index,
            last_index=self.last_index,
            num_admitted=self.num_begun[PAIRING.opening],
            num_replays=self.num_begun[REPLAY_PAIRING.opening],
            ends=dict(sorted(self.ends.items())),
            num_open=len(self.open),
            open_requests=tuple(self.open.items())[:MAX_NAMED],
            recorded={name: self.recorded[name] for name in TOKENS},
            counted=counted,
            late=self.late if counted is not None else None,
            counted_by=self.counted_by if counted is not None else "",
            discrepancies=tuple(self.discrepancies),
            num_discrepancies=self.num_discrepancies,
        )

    def _counted(self) -> dict[str, int] | None:
        """Give what the terminal records must account for, where the run's end or the present moment tells."""
        is_final = self.counted_by in (Kind.APPLIANCE_STOPPED, "now")
        if not is_final or not self.is_whole or self.num_without_usage or self.counters is None or self.late is None:
            return None
        return {name: self.counters[name] - self.late[name] for name in TOKENS}

    def _compare(self, counted: Mapping[str, int]) -> None:
        for name in TOKENS:
            recorded = self.recorded[name]
            if recorded > counted[name]:
                self.find(f"the log accounts for {recorded} {name}, the engine counted {counted[name]}: counted twice")
            elif recorded < counted[name] and not self.open:
                self.find(f"the log accounts for {recorded} {name}, the engine counted {counted[name]}: not recorded")


class _Accounting:
    def __init__(self, live_epoch: int | None) -> None:
        self._live_epoch = live_epoch
        self._first_index: int | None = None
        self._newest: _Run | None = None
        self.runs: dict[int, _Run] = {}

    def take(self, leaf: Leaf) -> None:
        run = self._run_of(leaf)
        run.last_index = leaf.index
        kind, subject = leaf.event.kind, leaf.event.subject
        if kind in _OPENINGS:
            if subject in run.open:
                run.find("this request began twice", leaf.index, subject)
            run.num_begun[kind] += 1
            run.open[subject] = leaf.index
        elif kind in _ENDS:
            self._end(run, leaf)
        elif kind in (Kind.ENGINE_DIED, Kind.APPLIANCE_STOPPED):
            run.count(leaf.event.facts.get("engine"), kind, leaf.index)

    def _run_of(self, leaf: Leaf) -> _Run:
        place = leaf.place
        if self._first_index is None:
            self._first_index = leaf.index
        if place.epoch not in self.runs:
            if self._newest is not None:
                self._newest.goes_on = False
            is_whole = leaf.event.kind == Kind.APPLIANCE_STARTED
            self._newest = _Run(place.epoch, place.boot_id, leaf.index, goes_on=True, is_whole=is_whole)
            self.runs[place.epoch] = self._newest
        run = self.runs[place.epoch]
        if leaf.event.kind == Kind.APPLIANCE_STOPPED:
            run.goes_on = False
        return run

    def _end(self, writing: _Run, leaf: Leaf) -> None:
        """Find the run whose request it is: an abandoned one is ended by the run after it."""
        subject = leaf.event.subject
        owner = next((run for run in self.runs.values() if subject in run.open), None)
        named = leaf.event.facts.get(_ENDS[leaf.event.kind])
        if owner is not None:
            if named != owner.open[subject]:
                owner.find(f"this end names entry {named}, it began at {owner.open[subject]}", leaf.index, subject)
            owner.end(leaf)
        elif isinstance(named, int) and named < (self._first_index or 0):
            return  # of a run before the first that is looked at
        else:
            writing.find("nothing is open that this ends: it ended twice, or never began", leaf.index, subject)
            usage = _tokens(leaf.event.facts.get("engine"))
            if usage is not None:
                writing.recorded.update(usage)


def _tokens(value: JsonValue) -> dict[str, int] | None:
    """Read token counts from a fact; None where it holds none."""
    if not isinstance(value, Mapping):
        return None
    found = {name: value.get(name) for name in TOKENS}
    counts = {name: count for name, count in found.items() if type(count) is int and count >= 0}
    return counts if len(counts) == len(TOKENS) else None
