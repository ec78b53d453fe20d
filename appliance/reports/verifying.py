"""Verify the log for a report, against every head of it that was carried out of the box and can be read from here."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from appliance.audit_trail import PAIRING
from appliance.reports.integrity import KeptHead, Verification
from audit.anchoring.evidence import Anchor, heads_of, read_anchors
from audit.checkpoint import LogVerifier, split_note
from audit.errors import ProofRefused
from audit.location import LogLocation
from audit.verify import verify_log


def verify_for_report(location: LogLocation, verifiers: Sequence[LogVerifier], places: Iterable[Path]) -> Verification:
    """Read every leaf, and hold the log against what the places keep.

    A place that holds nothing of this log, or cannot be read, is a note: an absent medium is no fault of the log.
    """
    anchors: list[Anchor] = []
    kept: list[KeptHead] = []
    notes: list[str] = []
    for place in places:
        try:
            found = read_anchors(place, verifiers)
        except (OSError, ProofRefused) as failure:
            notes.append(f"{place} holds no head that counts now: {failure}")
            continue
        anchors += found.anchors
        notes += found.notes
        head, newest = heads_of(found.anchors, verifiers)[-1]
        names = tuple(name for name, _, _ in split_note(newest.note)[1])
        kept.append(KeptHead(newest.source, head.size, head.root.hex(), names))
    verdict = verify_log(location, verifiers, PAIRING, anchors=anchors)
    return Verification(verdict, tuple(kept), tuple(notes))
