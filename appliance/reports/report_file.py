"""A report as a file that stands by itself: the document, and the two leaves that the log has of its run.

The signature under a report is the log's own: `report:made` holds the digest of the document, and the leaf's C2SP
tlog-proof leads to a signed head.  Whoever has the log's public key needs nothing else.  What the file does not show is
whether the log, whose head it cites, is the one you kept a head of; hold it against that.

Pure.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from appliance.audit_trail import Kind
from appliance.reports.document import FORMAT, FORMAT_VERSION
from audit.canonical import digest_of
from audit.checkpoint import Checkpoint, LogVerifier
from audit.entry import Entry
from audit.errors import AuditRefused, ProofRefused
from audit.leaf import Leaf, decode_leaf
from audit.proof import EntryProof


@dataclass(frozen=True, slots=True)
class CheckedReport:
    """A report whose evidence holds."""

    document: Mapping[str, Any]
    run: Leaf
    made: Leaf
    head: Checkpoint
    """The newest signed head in the file."""


def report_file(document: Mapping[str, Any], run: tuple[Entry, EntryProof], made: tuple[Entry, EntryProof]) -> bytes:
    """Give the file's bytes."""
    content = {"document": document, "made": _evidence(*made), "run": _evidence(*run)}
    return json.dumps(content, ensure_ascii=False, indent=1, sort_keys=True).encode() + b"\n"


def check_report(content: bytes, verifiers: Sequence[LogVerifier]) -> CheckedReport:
    """Check everything that a report's file claims.

    1. both leaves are in trees that the key signed; 2. `report:made` holds the digest of this very document and names
    `report:run`; 3. that one holds the digest of the query; 4. the document is of the log as it was at that record.

    Raises:
        ProofRefused: it is no such file, or any of it does not hold.
    """
    file = _object(_parse(content), "a report's file", {"document", "made", "run"})
    document = _object(file["document"], "the document", _DOCUMENT_MEMBERS)
    made, made_head = _proven(file["made"], Kind.REPORT_MADE, verifiers)
    run, run_head = _proven(file["run"], Kind.REPORT_RUN, verifiers)
    try:
        document_digest, query_digest = digest_of(dict(document)), digest_of(document["query"])
    except AuditRefused as error:
        raise ProofRefused(error.what) from error
    log, query = document["log"], document["query"]
    if (document["format"], document["format_version"]) != (FORMAT, FORMAT_VERSION):
        raise ProofRefused("the document is of another format")
    if made.event.facts.get("document_sha256") != document_digest:
        raise ProofRefused("the document is not the one that the log has the digest of")
    if made.event.facts.get("run_index") != run.index:
        raise ProofRefused("the result's record names another run")
    if run.event.facts.get("query_sha256") != query_digest:
        raise ProofRefused("the query is not the one that was recorded before the run")
    if not isinstance(query, dict) or run.event.facts.get("report") != query.get("report"):
        raise ProofRefused("the query is of another report than the record of the run")
    if log != {"origin": run_head.origin, "size": run.index + 1}:
        raise ProofRefused("the document is of another log, or of another size of it")
    return CheckedReport(document, run, made, max(made_head, run_head, key=lambda head: head.size))


_DOCUMENT_MEMBERS = {"format", "format_version", "log", "query", "result", "title"}


def _evidence(entry: Entry, proof: EntryProof) -> dict[str, str]:
    return {"leaf": entry.leaf_bytes.decode(), "proof": proof.to_text()}


def _proven(evidence: object, kind: Kind, verifiers: Sequence[LogVerifier]) -> tuple[Leaf, Checkpoint]:
    parts = _object(evidence, f"the evidence of {kind.value}", {"leaf", "proof"})
    leaf_text, proof_text = parts["leaf"], parts["proof"]
    if not isinstance(leaf_text, str) or not isinstance(proof_text, str):
        raise ProofRefused(f"the evidence of {kind.value} is not text")
    leaf_bytes = leaf_text.encode()
    proof = EntryProof.from_text(proof_text)
    head = proof.verify(leaf_bytes, verifiers)
    leaf = decode_leaf(leaf_bytes)
    if leaf.index != proof.index or leaf.event.kind != kind.value:
        raise ProofRefused(f"the leaf is not {kind.value} at the place that is proven")
    return leaf, head


def _parse(content: bytes) -> object:
    try:
        parsed: object = json.loads(content.decode(), object_pairs_hook=_unique, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise ProofRefused("the file is not one JSON value in UTF-8") from error
    return parsed


def _object(value: object, what: str, members: set[str]) -> dict[str, Any]:
    if not isinstance(value, dict) or value.keys() != members:
        raise ProofRefused(f"{what} has not exactly the members {', '.join(sorted(members))}")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a member name appears twice")
    return members


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
