"""Another copy of a log beside the one that is verified: its head, and the first entry at which the two differ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from audit.anchoring.evidence import Anchor
from audit.checkpoint import LogVerifier, open_checkpoint
from audit.errors import ProofRefused
from audit.location import LogLocation
from audit.report import Finding, Place, Report
from audit.verification.divergence import compare_copies, head_note_of


def head_of_copy(other: LogLocation | None, verifiers: Sequence[LogVerifier]) -> list[Anchor]:
    """Give the signed head of another copy, which the log must have as well."""
    if other is None:
        return []
    try:
        note = head_note_of(other)
        open_checkpoint(note, verifiers)
    except (ProofRefused, UnicodeDecodeError) as error:
        raise ProofRefused(f"{other}: {error}") from error
    return [Anchor(note, str(other))]


def held_against(report: Report, source: LogLocation, other: LogLocation) -> Report:
    """Add to a verdict where another copy is not the same."""
    found = compare_copies(source, other)
    notes = report.notes
    if found.compared_from:
        pruned = f"entries below {found.compared_from} are pruned in one of the two copies and were not compared"
        notes = (*notes, pruned)
    if found.first_difference is None:
        return replace(report, notes=(*notes, f"{other} holds the same entries"))
    if found.one_is_longer:
        same = f"{other} holds the same entries up to {found.first_difference}, where one of the two copies ends"
        return replace(report, notes=(*notes, same))
    what = f"entry {found.first_difference} is the first that is not the same in {other}"
    differs = Finding(Place.FORK, found.first_difference, str(other), what)
    return replace(report, findings=(*report.findings, differs), notes=notes)
