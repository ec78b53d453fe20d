"""R8: the log verified from its bytes, and the signed heads that say so."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from appliance.reports.scope import Rows, Scope, at, cut
from audit.checkpoint import split_note
from audit.entry import Entry
from audit.event import JsonValue
from audit.report import Report


@dataclass(frozen=True, slots=True)
class AnchorAct:
    """What the log says of its heads' way out of the machine."""

    index: int
    at: str
    kind: str
    subject: str
    facts: dict[str, JsonValue]


@dataclass(frozen=True, slots=True)
class KeptHead:
    """The newest head of this log that one place outside of it holds; the log was held against all of them."""

    place: str
    size: int
    root: str
    signed_by: tuple[str, ...]
    """Names on it: the log's key, and the witness that cosigned."""


@dataclass(frozen=True, slots=True)
class Verification:
    """What verifying the log found, and against what."""

    verdict: Report
    kept: tuple[KeptHead, ...]
    notes: tuple[str, ...]
    """Places that were named and hold no head of this log, or cannot be read now."""


@dataclass(frozen=True, slots=True)
class IntegrityReport:
    """The result."""

    verified: bool
    num_leaves: int
    num_checkpoints: int
    head_size: int
    head_root: str
    head_note: str
    """The newest head as signed, with every signature on it: hold it against the one you kept."""
    signed_by: tuple[str, ...]
    """Names on the head: the log's own key, and witnesses."""
    kept_heads: tuple[KeptHead, ...]
    unfinished: int
    """Requests without an end when the log was read."""
    anchors: tuple[AnchorAct, ...]
    anchors_left_out: int
    notes: tuple[str, ...]
    findings: tuple[str, ...]


ANCHOR_SUBJECTS = ("anchor", "checkpoint", "head", "witness")
"""First words of the kinds that are about a head's way out."""


def integrity_report(
    verification: Verification, head_note: str, entries: Iterable[Entry], _scope: Scope
) -> IntegrityReport:
    """Cite a verification's verdict; `entries` are those that may be about anchors."""
    verdict = verification.verdict
    rows = Rows[AnchorAct]([])
    for entry in entries:
        event = entry.leaf.event
        if event.kind.partition(":")[0] in ANCHOR_SUBJECTS:
            rows.add(AnchorAct(entry.index, at(entry), event.kind, event.subject, dict(event.facts)))
    _, signatures = split_note(head_note)
    return IntegrityReport(
        verified=verdict.ok,
        num_leaves=verdict.num_leaves,
        num_checkpoints=verdict.num_checkpoints,
        head_size=verdict.head_size or 0,
        head_root=verdict.head_root or "",
        head_note=head_note,
        signed_by=tuple(name for name, _, _ in signatures),
        kept_heads=verification.kept,
        unfinished=len(verdict.unfinished),
        anchors=tuple(rows.kept),
        anchors_left_out=rows.left_out,
        notes=(*verdict.notes, *verification.notes),
        findings=cut([str(finding) for finding in verdict.findings]),
    )
