"""R5: the log was kept without a break: no index missing, every run with its beginning, its end and its boot."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from appliance.audit_trail import Kind
from appliance.reports.gaps import IndexGaps
from appliance.reports.scope import Rows, Scope, at, cut
from audit.entry import Entry
from audit.search.expression import shown_time


@dataclass(frozen=True, slots=True)
class Run:
    """One opening of the log for writing."""

    epoch: int
    boot_id: str
    node_id: str
    first_index: int
    last_index: int
    first_at: str
    last_at: str
    ended: str
    """`in order` by `appliance:stopped`; `without a word` by a crash or a cut; `goes on` at the window's end."""


@dataclass(frozen=True, slots=True)
class LoggingContinuity:
    """The result."""

    first_index: int
    last_index: int
    num_entries: int
    missing_entries: int
    num_boots: int
    runs: tuple[Run, ...]
    runs_left_out: int
    downtime_s: int
    """Between the last entry of a run and the first of the next, by the wall clock, all together."""
    findings: tuple[str, ...]


@dataclass(slots=True)
class _Open:
    first: Entry
    last: Entry


def logging_continuity(entries: Iterable[Entry], scope: Scope) -> LoggingContinuity:
    """Walk every entry of the window's stretch."""
    rows = Rows[Run]([])
    findings: list[str] = []
    boots: set[str] = set()
    run: _Open | None = None
    num_entries = downtime_us = 0
    gaps = IndexGaps(scope.first_index)
    for entry in entries:
        num_entries += 1
        gaps.accept(entry.index)
        if run is None or entry.leaf.place.epoch != run.last.leaf.place.epoch:
            if run is not None:
                rows.add(_run(run, is_last=False))
                downtime_us += max(0, entry.leaf.event.ts_us - run.last.leaf.event.ts_us)
            findings += _faults_of_beginning(run, entry)
            run = _Open(entry, entry)
            boots.add(entry.leaf.place.boot_id)
        elif entry.leaf.place != run.last.leaf.place:
            findings.append(f"entry {entry.index}: another boot or node within run {entry.leaf.place.epoch}")
        if run.last is not entry and run.last.leaf.event.kind == Kind.APPLIANCE_STOPPED.value:
            findings.append(f"entry {entry.index}: after the end of run {entry.leaf.place.epoch}")
        run.last = entry
    if run is not None:
        rows.add(_run(run, is_last=True))
    gaps.end(scope.last_index)
    return LoggingContinuity(
        first_index=scope.first_index,
        last_index=scope.last_index,
        num_entries=num_entries,
        missing_entries=gaps.num_missing,
        num_boots=len(boots),
        runs=tuple(rows.kept),
        runs_left_out=rows.left_out,
        downtime_s=downtime_us // 1_000_000,
        findings=cut([*gaps.findings, *findings]),
    )


def _faults_of_beginning(before: _Open | None, entry: Entry) -> Iterable[str]:
    epoch = entry.leaf.place.epoch
    if before is not None and epoch != before.last.leaf.place.epoch + 1:
        yield f"entry {entry.index}: run {epoch} follows run {before.last.leaf.place.epoch}"
    if before is not None and entry.leaf.event.kind != Kind.APPLIANCE_STARTED.value:
        yield f"entry {entry.index}: run {epoch} begins without {Kind.APPLIANCE_STARTED.value}"


def _run(run: _Open, *, is_last: bool) -> Run:
    place, last = run.first.leaf.place, run.last.leaf.event
    in_order = last.kind == Kind.APPLIANCE_STOPPED.value
    return Run(
        epoch=place.epoch,
        boot_id=place.boot_id,
        node_id=place.node_id,
        first_index=run.first.index,
        last_index=run.last.index,
        first_at=at(run.first),
        last_at=shown_time(last.ts_us),
        ended="in order" if in_order else "goes on" if is_last else "without a word",
    )
