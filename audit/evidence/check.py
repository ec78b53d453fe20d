"""Check an evidence pack beside its log: the seal, every file, every view of every entry, every single proof.

`audit.verification.pack` has judged the log by then; here everything else is held against it.  An entry that cannot be
decoded was named there, and its views are passed over.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from hashlib import file_digest, sha256
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import parquet

from audit.checkpoint import Checkpoint, LogVerifier
from audit.errors import AuditError, ProofRefused
from audit.evidence.growth import grown_root, growth_from_text
from audit.evidence.index import (
    CSV_NAME,
    GROWTH_NAME,
    INDEX_NAME,
    JSONL_NAME,
    LEAF_NAME,
    PARQUET_NAME,
    PROOF_FOLDER,
    PROOF_NAME,
    SEAL_NAMES,
    Drawing,
    FileSeal,
    PackIndex,
)
from audit.evidence.proofs import leaf_name, proof_name
from audit.evidence.table import csv_header, csv_row, facts_text
from audit.evidence.tile_log import TileLog
from audit.evidence.typed import ROWS_PER_GROUP, SCHEMA, table_of, typed_row
from audit.leaf import Leaf, decode_leaf
from audit.merkle import leaf_hash
from audit.proof import EntryProof
from audit.report import MAX_FINDINGS, FindingList, Place, Report
from audit.tiles import LOG_FOLDER

SEALED_KIND = "evidence:made"
"""Kind of the entry that holds an index's digest."""
POLICY_KIND = "policy:loaded"


def check_evidence(folder: Path, verifiers: Sequence[LogVerifier], report: Report) -> Report:
    """Return the log's report with everything in the pack that the log does not bear out."""
    findings = FindingList()
    index = check_seal(folder, verifiers, findings)
    if index is not None:
        check_files(folder, index.files, findings)
        try:
            check_views(folder, TileLog(folder / LOG_FOLDER, verifiers), index, findings)
        except (OSError, UnicodeDecodeError, AuditError) as error:
            findings.add(Place.FILE, None, f"the pack cannot be compared to its end: {error}")
    room = max(MAX_FINDINGS - len(report.findings), 0)
    return replace(
        report,
        findings=(*report.findings, *findings.findings[:room]),
        findings_left_out=report.findings_left_out + findings.left_out + len(findings.findings[room:]),
    )


def check_seal(folder: Path, verifiers: Sequence[LogVerifier], findings: FindingList) -> PackIndex | None:
    """Hold the index against the entry with its digest, and that entry's tree against the log beside it."""
    try:
        index, later, growth = _open_seal(folder, verifiers)
    except OSError as error:
        findings.add(Place.SEAL, None, f"cannot be read: {error.strerror}", where=Path(str(error.filename)).name)
        return None
    except (ProofRefused, UnicodeDecodeError) as error:
        findings.add(Place.SEAL, None, str(error), where=INDEX_NAME)
        return None
    if index.origin != later.origin:
        findings.add(Place.SEAL, None, f"it is the index of another log, {index.origin!r}", where=INDEX_NAME)
    try:
        log = TileLog(folder / LOG_FOLDER, verifiers)
        if (log.head.size, log.head.root.hex(), log.minimum_index) != (
            index.head_size,
            index.head_root,
            index.minimum_index,
        ):
            findings.add(Place.SEAL, None, "the sealed head is not that of the log beside it", where=INDEX_NAME)
        elif grown_root(log.node, log.head.size, later.size, growth) != later.root:
            findings.add(Place.SEAL, None, "the head that proves the seal does not extend the log", where=GROWTH_NAME)
    except (OSError, UnicodeDecodeError, AuditError) as error:
        findings.add(Place.SEAL, None, f"the log beside it cannot be compared: {error}", where=GROWTH_NAME)
    return index


def _open_seal(folder: Path, verifiers: Sequence[LogVerifier]) -> tuple[PackIndex, Checkpoint, list[bytes]]:
    """Return the index, the later head that proves its entry, and the growth up to that head."""
    content = (folder / INDEX_NAME).read_bytes()
    leaf_bytes = (folder / LEAF_NAME).read_bytes()
    proof = EntryProof.from_text((folder / PROOF_NAME).read_bytes().decode())
    growth = growth_from_text((folder / GROWTH_NAME).read_bytes().decode())
    later = proof.verify(leaf_bytes, verifiers)
    made = decode_leaf(leaf_bytes)
    if (made.event.kind, made.index) != (SEALED_KIND, proof.index):
        raise ProofRefused(f"the proven entry is no {SEALED_KIND} of its place")
    if made.event.facts.get("index_sha256") != sha256(content).hexdigest():
        raise ProofRefused(f"{INDEX_NAME} is not the one that was recorded")
    return PackIndex.from_bytes(content), later, growth


def check_files(folder: Path, sealed: Mapping[str, FileSeal], findings: FindingList) -> None:
    """Hold every file of a folder, but the seal's own, against what was sealed."""
    found = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if not path.is_dir()}
    for name in sorted((found.keys() | sealed.keys()) - set(SEAL_NAMES)):
        path = found.get(name)
        if path is None or path.is_symlink() or not path.is_file():
            findings.add(Place.FILE, None, "this file was sealed and is not here", where=name)
        elif name not in sealed:
            findings.add(Place.FILE, None, "this file was not sealed", where=name)
        else:
            with path.open("rb") as file:
                digest = file_digest(file, "sha256").hexdigest()
            if FileSeal(path.stat().st_size, digest) != sealed[name]:
                findings.add(Place.FILE, None, "this file is not the one that was sealed", where=name)


def check_views(folder: Path, log: TileLog, index: PackIndex, findings: FindingList) -> None:
    """Hold the records in each form, the single proofs and the policies against the entries."""
    drawing = Drawing(index.sample)
    policies: set[str] = set()
    with ExitStack() as closing:
        views = _Views(folder, findings, closing)
        for position, leaf_bytes in log.leaves():
            try:
                leaf = decode_leaf(leaf_bytes)
            except ProofRefused:
                continue
            if leaf.event.kind == POLICY_KIND:
                policies.add(leaf.event.subject)
            if index.selection.holds(position, leaf.event.ts_us):
                views.compare(position, leaf, leaf_bytes)
                drawing.offer(position, leaf.event.kind)
        views.finish(index.num_records)
    _check_proofs(folder, log, drawing.drawn(), findings)
    _check_policies(index, policies, findings)


class _Views:
    """The three forms of the records, read along with the entries."""

    def __init__(self, folder: Path, findings: FindingList, closing: ExitStack) -> None:
        self._findings = findings
        self._lines = closing.enter_context((folder / JSONL_NAME).open("rb"))
        self._rows = closing.enter_context((folder / CSV_NAME).open("rb"))
        self._typed = _typed_rows(folder / PARQUET_NAME)
        self._waiting: list[tuple[int, dict[str, Any]]] = []
        self._num_compared = 0
        header = csv_header()
        self._hold(None, CSV_NAME, header, self._rows.read(len(header)))

    def compare(self, position: int, leaf: Leaf, leaf_bytes: bytes) -> None:
        """Hold the next line, row and typed row against the next entry in range."""
        digest = leaf_hash(leaf_bytes)
        facts = facts_text(leaf_bytes)
        line, row = leaf_bytes + b"\n", csv_row(leaf, facts, digest)
        self._hold(position, JSONL_NAME, line, self._lines.read(len(line)))
        self._hold(position, CSV_NAME, row, self._rows.read(len(row)))
        self._waiting.append((position, typed_row(leaf, facts, digest)))
        if len(self._waiting) == ROWS_PER_GROUP:
            self._compare_typed()
        self._num_compared += 1

    def finish(self, num_records: int) -> None:
        """Let nothing follow the last entry in range."""
        self._compare_typed()
        rest = next(self._typed, None) if self._typed is not None else None
        for name, more in ((JSONL_NAME, self._lines.read(1)), (CSV_NAME, self._rows.read(1)), (PARQUET_NAME, rest)):
            if more:
                self._findings.add(Place.RECORDS, None, "more follows the last entry in range", where=name)
        if num_records != self._num_compared:
            what = f"it counts {num_records} records, the log has {self._num_compared} in range"
            self._findings.add(Place.RECORDS, None, what, where=INDEX_NAME)

    def _compare_typed(self) -> None:
        expected = table_of([row for _, row in self._waiting]).to_pylist()
        try:
            found = list(islice(self._typed, len(expected))) if self._typed is not None else []
        except (pa.ArrowException, OSError, ValueError):
            found = []
        for (position, _), row, other in zip(self._waiting, expected, [*found, *[None] * len(expected)], strict=False):
            self._hold(position, PARQUET_NAME, row, other)
        self._waiting.clear()

    def _hold(self, position: int | None, name: str, expected: object, found: object) -> None:
        if found != expected:
            self._findings.add(Place.RECORDS, position, "it does not say what the entry says", where=name)


def _typed_rows(path: Path) -> Iterator[dict[str, Any]] | None:
    """Read typed rows in groups; None for a file that is not of our schema."""
    try:
        file = parquet.ParquetFile(path)
        if file.schema_arrow != SCHEMA:
            return None
    except (pa.ArrowException, OSError, ValueError):
        return None
    return (row for batch in file.iter_batches(ROWS_PER_GROUP) for row in batch.to_pylist())


def _check_proofs(folder: Path, log: TileLog, drawn: Sequence[int], findings: FindingList) -> None:
    """Hold each drawn entry's files against the log: its bytes, and the one proof of it under the pack's head."""
    for index in drawn:
        expected = ((proof_name(index), log.proof(index).to_text().encode()), (leaf_name(index), log.leaf(index)))
        for name, content in expected:
            try:
                found = (folder / name).read_bytes()
            except OSError as error:
                findings.add(Place.ENTRY_PROOF, index, f"cannot be read: {error.strerror}", where=name)
                continue
            if found != content:
                findings.add(Place.ENTRY_PROOF, index, "it is not of this entry under the pack's head", where=name)
    names = {*map(proof_name, drawn), *map(leaf_name, drawn)}
    for path in sorted((folder / PROOF_FOLDER).rglob("*")):
        name = path.relative_to(folder).as_posix()
        if name not in names:
            findings.add(Place.ENTRY_PROOF, None, "the seed does not draw this entry", where=name)


def _check_policies(index: PackIndex, loaded: set[str], findings: FindingList) -> None:
    """Recompute the digest of each policy bundle from its sealed files; the log must have loaded that very bundle."""
    bundles: dict[str, dict[str, str]] = {}
    for name, seal in index.files.items():
        parts = name.split("/", 3)
        if parts[0] == "policy" and parts[2:3] == ["files"]:
            bundles.setdefault(parts[1], {})[parts[3]] = seal.sha256
    for seq, seals in bundles.items():
        digest = sha256("".join(f"{seals[name]}  {name}\n" for name in sorted(seals)).encode()).hexdigest()
        if digest not in loaded:
            findings.add(Place.FILE, None, f"the log never loaded this bundle, {digest}", where=f"policy/{seq}")
