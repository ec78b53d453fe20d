"""Verify a log from its bytes: a database, or an exported folder.

Nothing stored is believed: every leaf hash, column, node, tile and root is computed again and compared; only a
signature by a given key is evidence.  What a log alone cannot show - that its tail was cut, or that all of it was
replaced by someone with the key - shows against checkpoints kept elsewhere: pass every one you have, as `known_notes`
or as `anchors`.  A quorum of witnesses is asked about the newest of those.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from audit.anchoring.evidence import Anchor
from audit.checkpoint import LogVerifier
from audit.errors import LogMissing
from audit.evidence.index import is_evidence
from audit.location import LogLocation
from audit.pairing import Pairing
from audit.report import Finding, Place, Report
from audit.verification.database import verify_database
from audit.verification.pack import special_files, verify_pack
from audit.verification.witnessed import Quorum, newest_witnessed

DEFAULT_CLOCK_LIMIT_US = 5_000_000
CUT_TAIL_NOTE = "a cut tail shows only against a checkpoint kept elsewhere; none was given"


def verify_log(
    source: LogLocation,
    verifiers: Sequence[LogVerifier],
    pairing: Pairing | None,
    *,
    known_notes: Sequence[str] = (),
    anchors: Sequence[Anchor] = (),
    quorum: Quorum | None = None,
    clock_limit_us: int = DEFAULT_CLOCK_LIMIT_US,
) -> Report:
    """Return every contradiction in the log at `source`.

    Args:
        source: the log's place, or the folder that `export_log` made.
        verifiers: the log's public keys, old ones included.
        pairing: which kinds open and end a subject; None checks no states.
        known_notes: signed checkpoints from elsewhere; the log must extend each of them.
        anchors: the same, each with the place where it was found.
        quorum: how many of which witnesses must have cosigned one of those checkpoints.
        clock_limit_us: the writer's limit for clock steps.

    Raises:
        ProofRefused: a known note is not signed by any of the keys.
        LogMissing: there is nothing there.
        LogUnusable: the machine refuses the database, so nothing can be said of it.
    """
    known = [*(Anchor(note, "") for note in known_notes), *anchors]
    if isinstance(source, Path) and source.is_dir():
        report = verify_pack(source, verifiers, pairing, anchors=known, clock_limit_us=clock_limit_us)
        if is_evidence(source) and not special_files(source):
            from audit.evidence.check import check_evidence  # noqa: PLC0415 - typed columns need a large library

            report = check_evidence(source, verifiers, report)
    elif not isinstance(source, Path) or source.is_file():
        report = verify_database(source, verifiers, pairing, anchors=known, clock_limit_us=clock_limit_us)
    else:
        raise LogMissing(source)
    if quorum is not None:
        report = _with_witnesses(report, known, verifiers, quorum)
    return report if known else replace(report, notes=(*report.notes, CUT_TAIL_NOTE))


def _with_witnesses(
    report: Report, known: Sequence[Anchor], verifiers: Sequence[LogVerifier], quorum: Quorum
) -> Report:
    witnessed = newest_witnessed(known, verifiers, quorum)
    if witnessed is not None:
        return replace(report, notes=(*report.notes, str(witnessed)))
    asked = f"{quorum.num_required} of {len(quorum.witnesses)} witnesses"
    lacking = Finding(Place.WITNESS, None, "", f"no known checkpoint is cosigned by {asked}")
    return replace(report, findings=(*report.findings, lacking))
