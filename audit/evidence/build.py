"""Build a pack: export, verify, records, proofs, attachments, summary, index; then the seal, and it appears.

1. `drafting` gives a draft beside the folder; 2. `write_pack` fills it and returns what is to be recorded; 3. the
caller has the appliance record it; 4. `seal_pack` adds the entry and its proof, and checks them; 5. when the block ends
well the draft becomes the folder in one step.  Whatever ends it before leaves no folder.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import file_digest, sha256
from importlib.resources import files
from pathlib import Path

from audit.checkpoint import LogVerifier
from audit.errors import AuditCorrupt, AuditRefused, LogExists
from audit.evidence.check import check_seal
from audit.evidence.growth import growth_text
from audit.evidence.index import (
    GROWTH_NAME,
    INDEX_NAME,
    LEAF_NAME,
    PROOF_NAME,
    FileSeal,
    PackIndex,
    SampleRule,
    Selection,
)
from audit.evidence.proofs import write_proofs
from audit.evidence.readme import readme_text
from audit.evidence.records import write_records
from audit.evidence.summary import SummaryFacts, write_summary
from audit.evidence.tile_log import TileLog
from audit.export import export_log
from audit.location import LogLocation
from audit.pairing import Pairing
from audit.report import FindingList
from audit.tiles import LOG_FOLDER
from audit.verification.pack import verify_pack

README_NAME, SUMMARY_NAME, VERIFIER_NAME = "README.txt", "summary.pdf", "verify.py"


@dataclass(frozen=True, slots=True)
class PackOrder:
    """What is asked for, and by whose leave."""

    selection: Selection
    seed: str | None
    """None: the root of the tree, which nobody knows before the last entry is in."""
    sample_size: int
    always: tuple[str, ...]
    """Kinds of which every entry in range is proven singly."""
    pairing: Pairing
    started_index: int
    """Of the entry that allowed it; the pack must show it."""
    maker: str
    """Who asked, as the log names them."""
    trust: str
    """`development` or `production`."""
    clock_limit_us: int
    attachments: Mapping[str, Path]
    """Name in the pack -> file whose bytes travel as they are."""
    absent: tuple[str, ...]
    """What the log names and no file is left of."""


@dataclass(frozen=True, slots=True)
class DraftFacts:
    """What the log is to record about a pack that is complete but for its seal."""

    index_sha256: str
    head_size: int
    head_root: str
    num_records: int
    num_files: int


@dataclass(frozen=True, slots=True)
class Seal:
    """What the appliance gave back: the entry that it recorded, its proof, and the growth of the tree up to it."""

    leaf_bytes: bytes
    proof_text: str
    growth: tuple[bytes, ...]
    """Complete subtrees from the pack's head to the proof's."""


@contextmanager
def drafting(folder: Path) -> Iterator[Path]:
    """Give the draft to fill; it becomes `folder` when the block ends well, and is gone when it does not."""
    if folder.exists():
        raise LogExists(folder)
    draft = folder.with_name(f".{folder.name}.{os.getpid()}.new")
    try:
        yield draft
        for path in (*draft.rglob("*"), draft):
            if path.is_dir() or path.relative_to(draft).parts[0] != LOG_FOLDER:  # whose files the export has flushed
                _flush(path)
        draft.rename(folder)
        _flush(folder.parent)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def write_pack(location: LogLocation, draft: Path, verifier: LogVerifier, order: PackOrder) -> DraftFacts:
    """Fill a draft with everything but its seal.

    Args:
        location: the log.
        draft: from `drafting`.
        verifier: the log's public key.
        order: what is asked for.

    Raises:
        AuditCorrupt: the log does not verify; a pack of it would be no evidence.
        AuditRefused: the log does not hold the entry that allowed the pack.
    """
    export_log(location, draft, verifier)
    log = TileLog(draft / LOG_FOLDER, [verifier])
    if order.started_index >= log.head.size:
        raise AuditRefused(f"the log ends before entry {order.started_index}, which allowed this pack")
    report = verify_pack(draft, [verifier], order.pairing, anchors=(), clock_limit_us=order.clock_limit_us)
    if report.findings:
        first = report.findings[0]
        raise AuditCorrupt(first.index, f"the log does not verify, so no pack was made: {first.what}")
    rule = SampleRule(order.seed or log.head.root.hex(), order.sample_size, tuple(sorted(order.always)))
    written = write_records(log, draft, order.selection, rule, order.pairing)
    write_proofs(log, draft, written.drawn)
    for name, source in order.attachments.items():
        target = draft / name
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        shutil.copyfile(source, target)
    (draft / VERIFIER_NAME).write_bytes(files("audit.standalone").joinpath(VERIFIER_NAME).read_bytes())
    (draft / README_NAME).write_text(readme_text(verifier.name, log.head, rule, written.drawn), newline="")
    facts = SummaryFacts(
        order.maker, order.trust, log.head, order.selection, rule, len(written.drawn), len(report.unfinished)
    )
    write_summary(draft / SUMMARY_NAME, facts, written.tally)
    index = PackIndex(
        origin=verifier.name,
        head_size=log.head.size,
        head_root=log.head.root.hex(),
        started_index=order.started_index,
        minimum_index=log.minimum_index,
        selection=order.selection,
        sample=rule,
        num_records=written.tally.num_entries,
        absent=order.absent,
        files=dict(_seals(draft)),
    )
    content = index.to_bytes()
    (draft / INDEX_NAME).write_bytes(content)
    digest = sha256(content).hexdigest()
    return DraftFacts(digest, index.head_size, index.head_root, index.num_records, len(index.files))


def seal_pack(draft: Path, seal: Seal, verifiers: Sequence[LogVerifier]) -> None:
    """Add the entry that holds the index's digest, with its proof, and hold all of it against the pack.

    Raises:
        AuditCorrupt: what the appliance gave back does not prove this index.
    """
    (draft / LEAF_NAME).write_bytes(seal.leaf_bytes)
    (draft / PROOF_NAME).write_text(seal.proof_text, newline="")
    (draft / GROWTH_NAME).write_text(growth_text(seal.growth), newline="")
    findings = FindingList()
    check_seal(draft, verifiers, findings)
    for finding in findings.findings:
        raise AuditCorrupt(finding.index, f"the seal does not hold: {finding.what}")


def _seals(draft: Path) -> Iterator[tuple[str, FileSeal]]:
    for path in sorted(draft.rglob("*")):
        if path.is_file():
            with path.open("rb") as file:
                digest = file_digest(file, "sha256").hexdigest()
            yield path.relative_to(draft).as_posix(), FileSeal(path.stat().st_size, digest)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
