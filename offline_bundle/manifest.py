"""The values that verified trust files turn into.

Only a verifier makes them, so holding one means: a signature over these very facts was checked.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ModelManifest:
    """What a verified OpenSSF model signature says about a folder."""

    name: str
    files: Mapping[str, str]
    """POSIX path relative to the folder -> SHA-256, 64 lower-case hexadecimal digits; in signed order; never empty."""
    root: str
    """SHA-256 over the raw file digests in order, hexadecimal: the model's identity."""
    signer: str
    """Key id: SHA-256 of the signer's SubjectPublicKeyInfo PEM."""


@dataclass(frozen=True, slots=True)
class Approval:
    """What a threshold of approvers said about one model root."""

    name: str
    version: str
    seq: int
    root: str
    licence: str
    intended_use: str
    excluded_use: str
    max_label: int
    """Highest label the model may see, 0-4."""
    tenants: tuple[str, ...]
    """Tenants that may use it; empty means nobody."""
    expires_at: str
    """RFC 3339 UTC."""
    evaluation_sha256: str
    """Of the evaluation's result; empty when none was presented."""
    approvers: tuple[str, ...]
    """Key ids of the distinct approvers whose signatures were checked."""
    origin: str = ""
    """Where the model came from: repository and revision, or the program and seed that made it."""


@dataclass(frozen=True, slots=True)
class PolicyManifest:
    """What a threshold of policy signers said about one policy bundle."""

    files: Mapping[str, str]
    """Name inside the bundle -> SHA-256, 64 lower-case hexadecimal digits; sorted; never empty."""
    digest: str
    """SHA-256 over one line `<sha256>  <name>` per file: the bundle's identity in every decision."""
    seq: int
    """1 for the first bundle of an appliance; one more for each later one."""
    previous: str
    """Digest of the bundle before; empty for the first."""
    engine: str
    """The policy engine and version that the signer judged it with."""
    signers: tuple[str, ...]
    """Key ids of the distinct policy signers whose signatures were checked; sorted."""
