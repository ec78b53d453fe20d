"""Tiny signed and approved model folders under a root of their own, for tests that need trust but no running state."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from signed_folders import sign_model

from offline_bundle.approval import ApprovalTerms, sign_approval
from offline_bundle.keys import SigningKey
from offline_bundle.model_signature import SIGNATURE_NAME, verify_signature
from offline_bundle.trust_root import (
    Role,
    RoleKeys,
    TrustRoot,
    open_root_chain,
    sign_trust_root,
    unsafe_fingerprint,
)

NOW = datetime(2030, 1, 31, 12, 0, 0, tzinfo=UTC)
HOLDERS = {
    Role.MODEL_APPROVER: (("alice", "bob", "carol"), 2),
    Role.MODEL_SIGNER: (("maker",), 1),
    Role.POLICY_SIGNER: (("officer",), 1),
    Role.RELEASE: ((), 2),
    Role.ROOT: (("root",), 1),
}


def key_of(holder: str) -> SigningKey:
    """A key that depends on nothing but its holder's name."""
    return SigningKey.generate(random.Random(holder).randbytes)


def trust_root() -> TrustRoot:
    """A root with three approvers, two of whom must agree."""
    roles = {
        role: RoleKeys(
            tuple(sorted((key_of(name).verifying_key for name in names), key=lambda key: key.key_id)), threshold
        )
        for role, (names, threshold) in HOLDERS.items()
    }
    raw = sign_trust_root(
        version=1, trust="production", expires_at="2040-01-01T00:00:00Z", roles=roles, signers=[key_of("root")]
    )
    return open_root_chain([raw], unsafe_fingerprint(raw), NOW)


@dataclass(frozen=True, slots=True)
class TrustedModel:
    """A folder with its signature, and the envelopes that approve it."""

    folder: Path
    approvals: tuple[bytes, ...]
    terms: ApprovalTerms

    def approved_by(self, *holders: str, **changes: object) -> tuple[bytes, ...]:
        """Other approvals of the same model."""
        return tuple(sign_approval(replace(self.terms, **changes), key_of(holder)) for holder in holders)


def sign_and_approve(folder: Path, signer: str = "maker") -> TrustedModel:
    """Write `model.sig` and have two people approve the result under the folder's name."""
    raw = sign_model(folder, key_of(signer))
    (folder / SIGNATURE_NAME).write_bytes(raw)
    manifest = verify_signature(raw, [key_of(signer).verifying_key])
    terms = ApprovalTerms(
        name=folder.name,
        version="1",
        seq=1,
        root=manifest.root,
        origin="a test",
        licence="Apache-2.0",
        intended_use="tests",
        excluded_use="all else",
        max_label=1,
        tenants=("plant",),
        expires_at="2031-01-01T00:00:00Z",
        evaluation_sha256="",
    )
    return TrustedModel(folder, tuple(sign_approval(terms, key_of(holder)) for holder in ("alice", "bob")), terms)
