"""The second signature over a model: what people allow it to do, named by the root of the first.

A model signature says who made the bytes; it has no room for purpose, licence, label or end.  The approval says
these, about exactly one root, by a threshold of distinct approvers who signed identical text, and it expires.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from offline_bundle.dsse import IN_TOTO, sign_envelope
from offline_bundle.errors import DocumentRefused
from offline_bundle.keys import Signer, VerifyingKey
from offline_bundle.manifest import Approval
from offline_bundle.statement import check_not_expired, decode_statement, encode_statement, is_sha256, parse_time
from offline_bundle.strict_json import Fields, Json
from offline_bundle.threshold import open_by_threshold

PREDICATE_TYPE = "https://cloister/approval/v1"
MAX_LABEL = 4
MAX_TEXT_CHARS = 4096
MODEL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", re.ASCII)
"""A model's name is also its folder's name and its name in the API."""
_DOCUMENT = "model approval"
_HINT = "correct the approval and have it signed again"


@dataclass(frozen=True, slots=True)
class ApprovalTerms:
    """What approvers put their names to; `Approval` is the same after their signatures were checked."""

    name: str
    version: str
    seq: int
    root: str
    origin: str
    licence: str
    intended_use: str
    excluded_use: str
    max_label: int
    tenants: tuple[str, ...]
    expires_at: str
    evaluation_sha256: str
    """Empty when no evaluation was presented."""

    def __post_init__(self) -> None:
        fault = _fault(self)
        if fault:
            raise DocumentRefused(_DOCUMENT, fault, hint=_HINT)
        parse_time(self.expires_at, _DOCUMENT)


def sign_approval(terms: ApprovalTerms, approver: Signer) -> bytes:
    """One approver's envelope; every approver signs the same terms and makes a file of their own."""
    return sign_envelope(IN_TOTO, _encode(terms), [approver])


def verify_approvals(
    envelopes: Sequence[bytes],
    *,
    trusted_keys: Iterable[VerifyingKey],
    threshold: int,
    root: str,
    now: datetime,
) -> Approval:
    """Return what at least `threshold` distinct approvers allow, now, for the model with this root.

    Raises:
        EvidenceRefused: malformed, badly signed, by too few, about another model, or expired.
    """
    approval = open_approvals(envelopes, trusted_keys=trusted_keys, threshold=threshold)
    if approval.root != root:
        raise DocumentRefused(
            _DOCUMENT,
            f"it approves the root {approval.root[:16]}, this model has {root[:16]}",
            hint="have this very model approved, or restore the approved one",
        )
    check_not_expired(approval.expires_at, _DOCUMENT, now)
    return approval


def open_approvals(envelopes: Sequence[bytes], *, trusted_keys: Iterable[VerifyingKey], threshold: int) -> Approval:
    """Return what enough approvers signed, whichever model it is about and whether or not it still holds.

    Raises:
        EvidenceRefused: malformed, badly signed, or by too few.
    """
    opened = open_by_threshold(envelopes, _DOCUMENT, IN_TOTO, trusted_keys, threshold)
    terms = _decode(opened.payload)
    return Approval(
        name=terms.name,
        version=terms.version,
        seq=terms.seq,
        root=terms.root,
        licence=terms.licence,
        intended_use=terms.intended_use,
        excluded_use=terms.excluded_use,
        max_label=terms.max_label,
        tenants=terms.tenants,
        expires_at=terms.expires_at,
        evaluation_sha256=terms.evaluation_sha256,
        approvers=tuple(sorted(opened.key_ids)),
        origin=terms.origin,
    )


def _encode(terms: ApprovalTerms) -> bytes:
    predicate: dict[str, Json] = {
        "version": terms.version,
        "seq": terms.seq,
        "origin": terms.origin,
        "licence": terms.licence,
        "intended_use": terms.intended_use,
        "excluded_use": terms.excluded_use,
        "max_label": terms.max_label,
        "tenants": list(terms.tenants),
        "expires_at": terms.expires_at,
        "evaluation_sha256": terms.evaluation_sha256,
    }
    return encode_statement({terms.name: terms.root}, PREDICATE_TYPE, predicate)


def _decode(payload: bytes) -> ApprovalTerms:
    subjects, predicate = decode_statement(payload, _DOCUMENT, PREDICATE_TYPE)
    if len(subjects) != 1:
        raise DocumentRefused(_DOCUMENT, "it names more than one model", hint=_HINT)
    ((name, root),) = subjects.items()
    terms = _read_terms(predicate, name, root)
    predicate.end()
    return terms


def _read_terms(predicate: Fields, name: str, root: str) -> ApprovalTerms:
    return ApprovalTerms(
        name=name,
        root=root,
        version=predicate.text("version"),
        seq=predicate.integer("seq"),
        origin=predicate.text("origin"),
        licence=predicate.text("licence"),
        intended_use=predicate.text("intended_use"),
        excluded_use=predicate.text("excluded_use"),
        max_label=predicate.integer("max_label"),
        tenants=predicate.texts("tenants"),
        expires_at=predicate.text("expires_at"),
        evaluation_sha256=predicate.text("evaluation_sha256"),
    )


def _fault(terms: ApprovalTerms) -> str:
    """The first rule that the terms break; empty when they break none."""
    texts = {
        "version": terms.version,
        "origin": terms.origin,
        "licence": terms.licence,
        "intended_use": terms.intended_use,
        "excluded_use": terms.excluded_use,
        **{f"tenant {tenant!a}": tenant for tenant in terms.tenants},
    }
    unfit = [what for what, text in texts.items() if not text.strip() or len(text) > MAX_TEXT_CHARS]
    rules = (
        (MODEL_NAME.fullmatch(terms.name), f"{terms.name!a} is no name for a model"),
        (is_sha256(terms.root), "its root is not a SHA-256"),
        (not terms.evaluation_sha256 or is_sha256(terms.evaluation_sha256), "its evaluation digest is not a SHA-256"),
        (terms.seq >= 1, f"its seq is {terms.seq}, the first is 1"),
        (0 <= terms.max_label <= MAX_LABEL, f"its highest label is {terms.max_label}, labels are 0 to {MAX_LABEL}"),
        (terms.tenants == tuple(sorted(set(terms.tenants))), "its tenants are not sorted or one stands twice"),
        (not unfit, f"its {', '.join(unfit)} is empty or longer than {MAX_TEXT_CHARS} characters"),
    )
    return next((fault for holds, fault in rules if not holds), "")
