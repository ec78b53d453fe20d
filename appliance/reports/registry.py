"""The thirteen reports: what each answers, what it needs to be told, and how it is made.

A report's version grows with any change of what its result says or means.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import dropwhile
from typing import TYPE_CHECKING

from appliance.audit_trail import Kind
from appliance.reconciliation import Reconciliation, reconcile
from appliance.reports.access import ACCESS_KINDS, log_access
from appliance.reports.catalogue import event_catalogue
from appliance.reports.changes import change_history, changes_filter
from appliance.reports.clock import clock_report
from appliance.reports.completeness import completeness
from appliance.reports.continuity import logging_continuity
from appliance.reports.erasures import ERASURE_KINDS, erasure_report
from appliance.reports.health import audit_health, health_filter
from appliance.reports.incident import incident_extract, incident_filter
from appliance.reports.integrity import integrity_report
from appliance.reports.recreation import drawn_indexes, recreation_test
from appliance.reports.retention import KEEPING_KINDS, retention_and_holds
from appliance.reports.reviews import review_report
from appliance.reports.scope import Scope, both, kinds
from appliance.reports.source import ReportSource
from audit.entry import Entry
from audit.search.expression import And, Expression, Not

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


DEFAULT_SAMPLE = 100


@dataclass(frozen=True, slots=True)
class Parameters:
    """What a run is told beside its window."""

    seed: int = 0
    sample: int = DEFAULT_SAMPLE
    subject: str | None = None


@dataclass(frozen=True, slots=True)
class ReportSpec:
    """One report."""

    id: str
    version: int
    title: str
    answers: str
    make: Callable[[ReportSource, Scope, Parameters], DataclassInstance]
    """Gives the report's own frozen result."""
    takes: tuple[str, ...] = ()
    """Names of the parameters that it reads."""


def _completeness(source: ReportSource, scope: Scope, _parameters: Parameters) -> DataclassInstance:
    leaves = (entry.leaf for entry in dropwhile(_is_within_a_run, source.walk(scope.stretch_on)))
    runs = tuple(run for run in reconcile(leaves).runs if run.first_index <= scope.last_index)
    return completeness(source.walk(scope.stretch_on), scope, Reconciliation(runs))


def _is_within_a_run(entry: Entry) -> bool:
    """An account of half a run would be none."""
    return entry.index > 0 and entry.leaf.event.kind != Kind.APPLIANCE_STARTED.value


def _changes(source: ReportSource, scope: Scope, _parameters: Parameters) -> DataclassInstance:
    return change_history(source.walk(changes_filter(scope)), scope)


def _catalogue(source: ReportSource, scope: Scope, _parameters: Parameters) -> DataclassInstance:
    return event_catalogue(source.walk(scope.window), scope)


def _retention(source: ReportSource, scope: Scope, _parameters: Parameters) -> DataclassInstance:
    oldest = next(iter(source.reader.entries(limit=1, size=source.size).entries), None)
    return retention_and_holds(source.walk(kinds(KEEPING_KINDS)), scope, oldest)


def _continuity(source: ReportSource, scope: Scope, _parameters: Parameters) -> DataclassInstance:
    return logging_continuity(source.walk(scope.stretch), scope)


def _health(source: ReportSource, scope: Scope, _parameters: Parameters) -> DataclassInstance:
    def ended_in_order(start: int) -> bool:
        if start <= source.reader.floors().leaf:
            return True  # nothing was before it, or what was is pruned
        return source.reader.entry(start - 1).leaf.event.kind == Kind.APPLIANCE_STOPPED.value

    return audit_health(source.walk(health_filter(scope)), scope, ended_in_order)


def _clock(source: ReportSource, scope: Scope, _parameters: Parameters) -> DataclassInstance:
    return clock_report(source.walk(scope.stretch), scope)


def _integrity(source: ReportSource, scope: Scope, _parameters: Parameters) -> DataclassInstance:
    return integrity_report(source.verify(), source.reader.head().note, source.walk(_not_of_requests(scope)), scope)


def _incident(source: ReportSource, scope: Scope, _parameters: Parameters) -> DataclassInstance:
    return incident_extract(source.walk(incident_filter(scope)), scope)


def _reviews(source: ReportSource, scope: Scope, _parameters: Parameters) -> DataclassInstance:
    run_at_us = source.reader.entry(source.size - 1).leaf.event.ts_us
    return review_report(source.walk(kinds([Kind.REVIEW_SIGNED_OFF.value])), scope, run_at_us)


def _access(source: ReportSource, scope: Scope, _parameters: Parameters) -> DataclassInstance:
    return log_access(source.walk(both(scope.stretch_on, kinds(ACCESS_KINDS))), scope)


def _recreation(source: ReportSource, scope: Scope, parameters: Parameters) -> DataclassInstance:
    drawn = drawn_indexes(parameters.seed, parameters.sample, scope)
    samples = source.samples(source.reader.entry(index) for index in drawn)
    return recreation_test(samples, source.verifiers, parameters.seed)


def _erasures(source: ReportSource, scope: Scope, _parameters: Parameters) -> DataclassInstance:
    return erasure_report(source.samples(source.walk(both(scope.stretch_on, kinds(ERASURE_KINDS)))), scope)


def _not_of_requests(scope: Scope) -> Expression:
    return And((scope.window, *(Not(kinds([kind.value])) for kind in Kind if kind.value.startswith("request:"))))


_SPECS = (
    ReportSpec("R1", 1, "Completeness", "Did all that was admitted end, and is every entry there?", _completeness),
    ReportSpec("R2", 1, "Change history", "What was changed, by whom and when?", _changes),
    ReportSpec("R3", 1, "Event catalogue", "Which events are recorded, and are their six facts there?", _catalogue),
    ReportSpec("R4", 3, "Retention and holds", "What must be kept, what is held, what was given up?", _retention),
    ReportSpec("R5", 1, "Logging continuity", "Was the log kept without a break?", _continuity),
    ReportSpec("R6", 2, "Audit health", "What went wrong, and who was turned away?", _health),
    ReportSpec("R7", 2, "Clock", "Can the times be relied on?", _clock),
    ReportSpec("R8", 1, "Integrity", "Does the log verify, and which signed heads say so?", _integrity),
    ReportSpec("R9", 1, "Incident extract", "What is recorded of a request, or of a time?", _incident, ("subject",)),
    ReportSpec("R10", 2, "Reviews", "Who examined what, and what did nobody examine?", _reviews),
    ReportSpec("R11", 1, "Log access", "Who looked at the log, and at what?", _access),
    ReportSpec(
        "R12", 1, "Re-creation test", "Can records be made again, bit for bit?", _recreation, ("sample", "seed")
    ),
    ReportSpec("R13", 2, "Erasure certificates", "Whose keys were destroyed?", _erasures),
)
REPORTS: Mapping[str, ReportSpec] = {spec.id: spec for spec in _SPECS}
"""In the order of their numbers."""
