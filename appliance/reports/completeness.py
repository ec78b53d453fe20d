"""R1: everything that was admitted ended, exactly once, and no entry is missing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from appliance.audit_trail import PAIRING, Kind
from appliance.reconciliation import Reconciliation, RunAccount
from appliance.reports.gaps import IndexGaps
from appliance.reports.scope import Rows, Scope, at, cut, int_fact
from audit.entry import Entry

_TOKENS = ("prompt_tokens", "completion_tokens", "cached_tokens")
_SINGLE = (Kind.REQUEST_DENIED.value, Kind.REQUEST_REFUSED.value)


@dataclass(frozen=True, slots=True)
class OpenRequest:
    """Admitted in the window, and without an end when the report was run."""

    subject: str
    index: int
    admitted_at: str


@dataclass(frozen=True, slots=True)
class EngineAccount:
    """One run, as `appliance.reconciliation` judges it."""

    epoch: int
    verdict: str
    """`balanced`, `open`, `uncounted` (the run left no counters) or `unbalanced`."""
    recorded: dict[str, int]
    counted: dict[str, int]
    """Empty where the engine told nobody."""
    discrepancies: int


@dataclass(frozen=True, slots=True)
class Completeness:
    """The result."""

    admitted: int
    ended: int
    """Of those, by a terminal record: the sum of `outcomes`."""
    outcomes: dict[str, int]
    """Terminal kind -> requests admitted in the window that ended so."""
    never_admitted: dict[str, int]
    """`request:denied` and `request:refused` of the window: one record each."""
    open: tuple[OpenRequest, ...]
    open_left_out: int
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    """Of the requests that ended."""
    missing_entries: int
    """Indexes of the window's stretch that no entry has."""
    engine: tuple[EngineAccount, ...]
    """Runs that began in the window: the tokens of the log against the engine's own counters."""
    findings: tuple[str, ...]


def completeness(entries: Iterable[Entry], scope: Scope, engine: Reconciliation) -> Completeness:
    """Hold admissions against ends; `entries` are all from the window's first on."""
    book, gaps = _Book(scope), IndexGaps(scope.first_index)
    for entry in entries:
        if entry.index <= scope.last_index:
            gaps.accept(entry.index)
        elif not book.opened:
            break
        book.enter(entry)
    gaps.end(scope.last_index)
    rows = Rows[OpenRequest]([])
    for subject, entry in book.opened.items():
        rows.add(OpenRequest(subject, entry.index, at(entry)))
        book.findings.append(f"entry {entry.index}: {subject} was admitted and has no end in the log")
    return Completeness(
        admitted=book.num_admitted,
        ended=sum(book.outcomes.values()),
        outcomes=dict(book.outcomes),
        never_admitted=dict(book.never_admitted),
        open=tuple(rows.kept),
        open_left_out=rows.left_out,
        prompt_tokens=book.tokens["prompt_tokens"],
        completion_tokens=book.tokens["completion_tokens"],
        cached_tokens=book.tokens["cached_tokens"],
        missing_entries=gaps.num_missing,
        engine=tuple(map(_account, engine.runs)),
        findings=cut([*gaps.findings, *book.findings, *_disagreements(engine)]),
    )


def _account(run: RunAccount) -> EngineAccount:
    counted = {} if run.counted is None else dict(run.counted)
    return EngineAccount(run.epoch, run.verdict.value, dict(run.recorded), counted, run.num_discrepancies)


def _disagreements(engine: Reconciliation) -> Iterable[str]:
    for run in engine.runs:
        for one in run.discrepancies:
            if one.index is None:  # what is about one request is found here anyway
                yield f"run {run.epoch}: {one.what}"


@dataclass(slots=True)
class _Book:
    """What is open; grows with the requests that run at once, not with the log."""

    scope: Scope
    opened: dict[str, Entry] = field(default_factory=dict)
    num_admitted: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    never_admitted: Counter[str] = field(default_factory=Counter)
    tokens: Counter[str] = field(default_factory=Counter)
    findings: list[str] = field(default_factory=list)

    def enter(self, entry: Entry) -> None:
        kind = entry.leaf.event.kind
        if kind == PAIRING.opening and self.scope.contains(entry):
            self._admit(entry)
        elif kind in PAIRING.terminals:
            self._end(entry)
        elif kind in _SINGLE and self.scope.contains(entry):
            self.never_admitted[kind] += 1

    def _admit(self, entry: Entry) -> None:
        subject = entry.leaf.event.subject
        self.num_admitted += 1
        if subject in self.opened:
            self.findings.append(f"entry {entry.index}: {subject} was admitted a second time")
        self.opened[subject] = entry

    def _end(self, entry: Entry) -> None:
        event = entry.leaf.event
        if event.subject in self.opened:
            del self.opened[event.subject]
            self.outcomes[event.kind] += 1
            self.tokens.update({name: int_fact(event.facts, name) for name in _TOKENS})
            return
        admitted_index = int_fact(event.facts, "admitted_index")
        if admitted_index >= self.scope.first_index and self.scope.contains(entry):
            self.findings.append(f"entry {entry.index}: {event.kind} ends {event.subject}, which is not open")
