"""R7: what the clocks said: wall time against monotonic time, run by run, and every place where they parted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from appliance.audit_trail import Kind
from appliance.reports.scope import Rows, Scope, at, cut, text_fact
from audit.entry import Entry
from audit.slew import slew_allowance_us

STEP_LIMIT_US = 1_000_000
"""What the two clocks may part by between two entries, beyond what a time daemon stretches."""


@dataclass(frozen=True, slots=True)
class ClockStep:
    """Between this entry and the one before."""

    index: int
    at: str
    step_ms: int
    """Positive: the wall clock went forward more than time passed."""
    between_runs: bool
    """Across a boot, whose monotonic clock begins anew, only a step back can be seen."""


@dataclass(frozen=True, slots=True)
class ClockReport:
    """The result."""

    num_entries: int
    num_runs: int
    precision: str
    source: str
    largest_drift_ms: int
    """Largest distance of wall and monotonic time within one run, against that run's first entry."""
    times_out_of_order: int
    """Entries whose time is before that of the entry before them."""
    states: dict[str, int]
    """What the kernel said of the wall clock's time source -> entries; see `appliance.clock_state`."""
    steps: tuple[ClockStep, ...]
    steps_left_out: int
    findings: tuple[str, ...]


def clock_report(entries: Iterable[Entry], _scope: Scope) -> ClockReport:
    """Walk every entry of the window's stretch."""
    rows = Rows[ClockStep]([])
    before: Entry | None = None
    first: Entry | None = None
    states: Counter[str] = Counter()
    sources: list[str] = []
    num_entries = num_runs = out_of_order = drift_us = 0
    for entry in entries:
        num_entries += 1
        if before is None or first is None or entry.leaf.place.epoch != before.leaf.place.epoch:
            num_runs += 1
            if before is not None and (step_us := _step_between(before, entry)):
                rows.add(ClockStep(entry.index, at(entry), step_us // 1_000, between_runs=True))
            first = entry
        else:
            if step_us := _step_within(before, entry):
                rows.add(ClockStep(entry.index, at(entry), step_us // 1_000, between_runs=False))
            drift_us = max(drift_us, abs(_parted(first, entry)[0]))
        out_of_order += before is not None and entry.leaf.event.ts_us < before.leaf.event.ts_us
        states[text_fact(entry.leaf.event.facts, "clock_state") or "not stated"] += 1
        sources += _lost_source(entry)
        before = entry
    findings = [
        f"entry {row.index}: the clock was set by {row.step_ms / 1_000:+.3f} s"
        + (" across a restart" if row.between_runs else "")
        for row in rows.kept
    ] + sources
    return ClockReport(
        num_entries=num_entries,
        num_runs=num_runs,
        precision="microseconds, UTC",
        source="the machine's wall clock, held against its monotonic clock",
        largest_drift_ms=drift_us // 1_000,
        times_out_of_order=out_of_order,
        states=dict(states),
        steps=tuple(rows.kept),
        steps_left_out=rows.left_out,
        findings=cut(findings),
    )


def _lost_source(entry: Entry) -> Iterable[str]:
    event = entry.leaf.event
    if event.kind == Kind.CLOCK_CHANGED.value and event.facts.get("now") != "synchronised":
        yield f"entry {entry.index}: the clock became {text_fact(event.facts, 'now')}"


def _step_within(one: Entry, other: Entry) -> int:
    """Return by how much the wall clock was set between two entries of one boot, in microseconds; 0: it was not."""
    step_us, elapsed_ns = _parted(one, other)
    return step_us if abs(step_us) > STEP_LIMIT_US + slew_allowance_us(elapsed_ns) else 0


def _step_between(one: Entry, other: Entry) -> int:
    """Likewise of two runs: their boot's monotonic clock goes on, or nothing is known but which time came first."""
    if one.leaf.place.boot_id == other.leaf.place.boot_id:
        return _step_within(one, other)
    return min(0, other.leaf.event.ts_us - one.leaf.event.ts_us)


def _parted(one: Entry, other: Entry) -> tuple[int, int]:
    """Return by how much wall time went on more than monotonic time did, and how much that was."""
    elapsed_ns = other.leaf.event.monotonic_ns - one.leaf.event.monotonic_ns
    return other.leaf.event.ts_us - one.leaf.event.ts_us - elapsed_ns // 1_000, elapsed_ns
