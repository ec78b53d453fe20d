"""The certificate of an erasure: one JSON file that proves, with the log's public key alone, which keys were destroyed.

It carries the `subject:erased` leaf and its C2SP tlog-proof.  Everything else in the file is a copy of what the leaf
says, for people, and is refused where it says anything else.  What it proves: the log's owner signed that these keys
are destroyed, under this index, never to be denied.  What it cannot: that no copy of the key file was made earlier.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from appliance.audit_trail import Kind
from audit.checkpoint import Checkpoint, LogVerifier
from audit.errors import ProofRefused
from audit.leaf import Leaf, decode_leaf
from audit.proof import EntryProof

FORMAT = "cloister.erasure-certificate.v1"
MAX_CERTIFICATE_BYTES = 2**19
_MEMBERS = frozenset({"format", "leaf", "proof", "says"})


@dataclass(frozen=True, slots=True)
class CheckedCertificate:
    """What a certificate proves."""

    subject: str
    tenant: str
    key_ids: tuple[str, ...]
    erased_at_us: int
    index: int
    checkpoint: Checkpoint


def make_certificate(leaf_bytes: bytes, proof: EntryProof) -> bytes:
    """Write the file for a `subject:erased` leaf and its proof."""
    leaf = decode_leaf(leaf_bytes)
    body = {"format": FORMAT, "leaf": leaf_bytes.decode(), "proof": proof.to_text(), "says": _said_by(leaf)}
    return json.dumps(body, indent=1, sort_keys=True).encode() + b"\n"


def check_certificate(content: bytes, verifier: LogVerifier) -> CheckedCertificate:
    """Check a file; trust nothing but the key.

    Raises:
        ProofRefused: malformed, of another log, not in the tree, or saying what its leaf does not.
    """
    body = _parse(content)
    leaf_bytes = body["leaf"].encode()
    leaf = decode_leaf(leaf_bytes)
    proof = EntryProof.from_text(body["proof"])
    checkpoint = proof.verify(leaf_bytes, [verifier])
    if leaf.event.kind != Kind.SUBJECT_ERASED.value or leaf.index != proof.index:
        raise ProofRefused(f"the certificate's leaf is no {Kind.SUBJECT_ERASED.value}, or not the one that is proven")
    if body["says"] != _said_by(leaf):
        raise ProofRefused("the certificate says something that its proven leaf does not")
    said = _said_by(leaf)
    return CheckedCertificate(
        subject=said["subject"],
        tenant=said["tenant"],
        key_ids=tuple(said["key_ids"]),
        erased_at_us=leaf.event.ts_us,
        index=leaf.index,
        checkpoint=checkpoint,
    )


def _said_by(leaf: Leaf) -> dict[str, Any]:
    facts = leaf.event.facts
    return {
        "checked": facts.get("checked"),
        "erased_at_us": leaf.event.ts_us,
        "erasing_index": facts.get("erasing_index"),
        "index": leaf.index,
        "key_ids": facts.get("key_ids"),
        "subject": leaf.event.subject,
        "tenant": facts.get("subject_tenant"),
    }


def _parse(content: bytes) -> Mapping[str, Any]:
    try:
        body = json.loads(content.decode())
    except (ValueError, RecursionError) as error:
        raise ProofRefused("a certificate is JSON in UTF-8") from error
    if not isinstance(body, dict) or body.keys() != _MEMBERS or body["format"] != FORMAT:
        raise ProofRefused(f"this is no {FORMAT}")
    if not isinstance(body["leaf"], str) or not isinstance(body["proof"], str):
        raise ProofRefused("a certificate holds its leaf and its proof as text")
    return body
