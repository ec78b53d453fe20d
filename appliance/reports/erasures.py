"""R13: whose keys were destroyed, each with the leaf that says so and its proof: the certificate."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from appliance.audit_trail import Kind
from appliance.reports.recreation import Sample
from appliance.reports.scope import Scope, at, cut, int_fact, text_fact
from audit.event import JsonValue

ERASURE_KINDS = (Kind.SUBJECT_ERASED.value, Kind.SUBJECT_ERASING.value)


@dataclass(frozen=True, slots=True)
class ErasureCertificate:
    """One erasure; with the log's public key alone, leaf and proof show that it is in the log."""

    index: int
    erased_at: str
    actor: str
    subject: str
    subject_tenant: str
    key_ids: JsonValue
    reason: str
    """As it was decided; empty where that was before the window."""
    why: str
    """`asked`, `finished_at_start` after a crash, or `older_key_file` where a copy of the keys had come back."""
    leaf: str
    proof: str


@dataclass(frozen=True, slots=True)
class ErasureReport:
    """The result."""

    num_erased: int
    certificates: tuple[ErasureCertificate, ...]
    certificates_left_out: int
    unfinished: tuple[int, ...]
    """Indexes of decisions whose keys are not yet recorded as destroyed."""
    findings: tuple[str, ...]


MAX_CERTIFICATES = 500


def erasure_report(samples: Iterable[Sample], scope: Scope) -> ErasureReport:
    """List the erasures of the window; `samples` are the entries of `ERASURE_KINDS` from its first on."""
    certificates: list[ErasureCertificate] = []
    decided: dict[int, str] = {}
    reasons: dict[int, str] = {}
    num_erased = 0
    for sample in samples:
        entry, event = sample.entry, sample.entry.leaf.event
        if event.kind == Kind.SUBJECT_ERASING.value:
            if scope.contains(entry):
                decided[entry.index] = event.subject
                reasons[entry.index] = text_fact(event.facts, "reason")
            continue
        erasing_index = int_fact(event.facts, "erasing_index")
        decided.pop(erasing_index, None)
        if not scope.contains(entry):
            continue
        num_erased += 1
        if len(certificates) < MAX_CERTIFICATES:
            certificates.append(
                ErasureCertificate(
                    index=entry.index,
                    erased_at=at(entry),
                    actor=event.actor,
                    subject=event.subject,
                    subject_tenant=text_fact(event.facts, "subject_tenant"),
                    key_ids=event.facts.get("key_ids"),
                    reason=reasons.get(erasing_index, ""),
                    why=text_fact(event.facts, "why"),
                    leaf=entry.leaf_bytes.decode(),
                    proof=sample.proof.to_text(),
                )
            )
    return ErasureReport(
        num_erased=num_erased,
        certificates=tuple(certificates),
        certificates_left_out=num_erased - len(certificates),
        unfinished=tuple(decided),
        findings=cut(
            [f"entry {index}: the erasure of {who} was decided and is not done" for index, who in decided.items()]
        ),
    )
