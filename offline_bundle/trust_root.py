"""Who may sign what: `root.<n>.json`, a chain of roots whose first is pinned by a fingerprint delivered apart.

Laws, as in TUF: root n+1 is signed by the threshold of root n's own root role and by its own; versions leave no gap;
only the newest must not be expired, so that an old chain can still be walked; a fingerprint is the SHA-256 of the
signed bytes, which have one canonical text.  Ours on top: no key has two roles; models are approved and releases
signed by at least two; a chain never turns from development to production trust or back.  A role without keys means
that nobody may.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from hashlib import sha256
from types import MappingProxyType
from typing import Literal, TypeAlias

from offline_bundle.dsse import Envelope, parse_envelope, sign_envelope, trusted_signers
from offline_bundle.errors import DocumentRefused, ThresholdNotMet, TrustError, TrustRootRefused
from offline_bundle.keys import Signer, VerifyingKey
from offline_bundle.statement import check_not_expired, is_sha256, parse_canonical, parse_time
from offline_bundle.strict_json import Fields, Json, canonical

PAYLOAD_TYPE = "application/vnd.cloister.trust-root.v1+json"
_DOCUMENT = "trust root"
_HINT = "make the root again and have it signed"

Trust: TypeAlias = 'Literal["development", "production"]'


class Role(StrEnum):
    """What a key may be trusted for."""

    MODEL_APPROVER = "model-approver"
    MODEL_SIGNER = "model-signer"
    POLICY_SIGNER = "policy-signer"
    RELEASE = "release"
    ROOT = "root"


_LEAST_THRESHOLD = {Role.MODEL_APPROVER: 2, Role.RELEASE: 2}


@dataclass(frozen=True, slots=True)
class RoleKeys:
    """The keys of one role and how many of them must agree."""

    keys: tuple[VerifyingKey, ...]
    """Ordered by key id; empty means nobody."""
    threshold: int


@dataclass(frozen=True, slots=True)
class TrustRoot:
    """A root that was verified back to the pinned one."""

    version: int
    trust: Trust
    expires_at: str
    """RFC 3339 UTC."""
    roles: Mapping[Role, RoleKeys]
    """Every role, with or without keys."""
    fingerprint: str
    """SHA-256 of the signed bytes, 64 hexadecimal digits."""

    def keys_for(self, role: Role) -> tuple[VerifyingKey, ...]:
        """The keys trusted for a role."""
        return self.roles[role].keys

    def threshold(self, role: Role) -> int:
        """How many distinct keys of the role must sign."""
        return self.roles[role].threshold


def sign_trust_root(
    *, version: int, trust: Trust, expires_at: str, roles: Mapping[Role, RoleKeys], signers: Sequence[Signer]
) -> bytes:
    """The content of `root.<version>.json`, signed by every signer; a root that breaks a law is never made."""
    keys = {key.key_id: key.pem for role in roles.values() for key in role.keys}
    role_entries: dict[str, Json] = {
        role.value: {"key_ids": _key_ids(role_keys), "threshold": role_keys.threshold}
        for role, role_keys in roles.items()
    }
    body: dict[str, Json] = {
        "version": version,
        "trust": trust,
        "expires_at": expires_at,
        "keys": dict(keys),
        "roles": role_entries,
    }
    payload = canonical(body)
    _parse(payload)
    return sign_envelope(PAYLOAD_TYPE, payload, signers)


def unsafe_fingerprint(raw: bytes) -> str:
    """The fingerprint that a root file has if its signatures hold; for its maker, and for eyes to compare."""
    return sha256(parse_envelope(raw, _DOCUMENT).payload).hexdigest()


def open_root_chain(raws: Sequence[bytes], pinned_fingerprint: str, now: datetime) -> TrustRoot:
    """Walk from the pinned root to the newest.

    Args:
        raws: root 1 (or the pinned one), then each next root in order.
        pinned_fingerprint: of the first; spaces, colons and case do not matter, it may come from paper.
        now: the newest root must not be expired.

    Raises:
        TrustRootRefused: the first is not the pinned root, or one does not follow from its predecessor.
        EvidenceRefused: a root is malformed, badly signed, by too few, or the newest is expired.
    """
    if not raws:
        raise TrustRootRefused("there is none", hint="install the first root and its fingerprint")
    root = _open_pinned(raws[0], pinned_fingerprint)
    for raw in raws[1:]:
        root = open_next_root(root, raw)
    check_not_expired(root.expires_at, f"{_DOCUMENT} {root.version}", now)
    return root


def open_next_root(trusted: TrustRoot, raw: bytes) -> TrustRoot:
    """Return the root that follows from a trusted one; its expiry is left to the caller, more may follow."""
    root, envelope = _open(raw)
    if root.version != trusted.version + 1:
        raise TrustRootRefused(
            f"it cannot follow root {trusted.version}",
            hint=f"bring root {trusted.version + 1} first; an older root never comes back",
            version=root.version,
        )
    if root.trust != trusted.trust:
        raise TrustRootRefused(
            f"{trusted.trust} trust cannot become {root.trust} trust",
            hint="make a new state for the other kind of trust",
            version=root.version,
        )
    _check_agreed(envelope, by=trusted)
    _check_agreed(envelope, by=root)
    return root


def _open_pinned(raw: bytes, pinned_fingerprint: str) -> TrustRoot:
    pinned = "".join(pinned_fingerprint.replace(":", "").split()).lower()
    if not is_sha256(pinned):
        raise TrustRootRefused("the pinned fingerprint is not a SHA-256", hint="copy all 64 digits of it")
    root, envelope = _open(raw)
    if root.fingerprint != pinned:
        raise TrustRootRefused(
            f"its fingerprint is {root.fingerprint}, pinned is {pinned}",
            hint="compare with the fingerprint that was delivered apart from the medium; do not trust this root",
            version=root.version,
        )
    _check_agreed(envelope, by=root)
    return root


def _open(raw: bytes) -> tuple[TrustRoot, Envelope]:
    envelope = parse_envelope(raw, _DOCUMENT)
    if envelope.payload_type != PAYLOAD_TYPE:
        raise DocumentRefused(_DOCUMENT, f"not of type {PAYLOAD_TYPE}", hint="is it the right file?")
    return _parse(envelope.payload), envelope


def _check_agreed(envelope: Envelope, by: TrustRoot) -> None:
    """Refuse an envelope to which the root role of some root has not agreed."""
    signers = trusted_signers(envelope, _DOCUMENT, by.keys_for(Role.ROOT))
    if len(signers) < by.threshold(Role.ROOT):
        raise ThresholdNotMet(
            f"{_DOCUMENT}, as root {by.version} demands",
            num_signers=len(signers),
            threshold=by.threshold(Role.ROOT),
        )


def _parse(payload: bytes) -> TrustRoot:
    body = Fields(parse_canonical(payload, _DOCUMENT), _DOCUMENT)
    version, trust, expires_at = body.integer("version"), body.text("trust"), body.text("expires_at")
    keys = _read_keys(body.mapping("keys"))
    role_fields = body.fields("roles")
    roles = {role: _read_role(role, role_fields.fields(role.value), keys) for role in Role}
    role_fields.end()
    body.end()
    parse_time(expires_at, _DOCUMENT)
    if version < 1:
        raise _refused(f"its version is {version}, the first is 1")
    if trust not in ("development", "production"):
        raise _refused(f"its trust is {trust!a}")
    _check_separation(roles, keys)
    return TrustRoot(
        version=version,
        trust="production" if trust == "production" else "development",
        expires_at=expires_at,
        roles=MappingProxyType(roles),
        fingerprint=sha256(payload).hexdigest(),
    )


def _key_ids(role_keys: RoleKeys) -> list[Json]:
    return [*sorted(key.key_id for key in role_keys.keys)]


def _read_keys(entries: Mapping[str, Json]) -> dict[str, VerifyingKey]:
    keys: dict[str, VerifyingKey] = {}
    for key_id, pem in entries.items():
        if not isinstance(pem, str):
            raise _refused(f"the key {key_id[:16]!a} is not a text")
        try:
            key = VerifyingKey.from_pem(pem.encode())
        except TrustError as error:
            raise _refused(f"the key {key_id[:16]!a}: {error.message}") from error
        if key.key_id != key_id or key.pem != pem:
            raise _refused(f"the key {key_id[:16]!a} has the id {key.key_id[:16]}")
        keys[key_id] = key
    return keys


def _read_role(role: Role, fields: Fields, keys: Mapping[str, VerifyingKey]) -> RoleKeys:
    key_ids, threshold = fields.texts("key_ids"), fields.integer("threshold")
    fields.end()
    if key_ids != tuple(sorted(set(key_ids))) or any(key_id not in keys for key_id in key_ids):
        raise _refused(f"the keys of role {role} are not sorted, stand twice or are not listed")
    least = _LEAST_THRESHOLD.get(role, 1)
    if threshold < least or (key_ids and threshold > len(key_ids)):
        raise _refused(f"role {role} has {len(key_ids)} keys and threshold {threshold}; at least {least} must agree")
    if role is Role.MODEL_SIGNER and threshold != 1:
        raise _refused(f"role {role} has threshold {threshold}, but a model signature holds one signature")
    if role is Role.ROOT and not key_ids:
        raise _refused("nobody has the role root, so nothing could ever follow it")
    return RoleKeys(tuple(keys[key_id] for key_id in key_ids), threshold)


def _check_separation(roles: Mapping[Role, RoleKeys], keys: Mapping[str, VerifyingKey]) -> None:
    used = [key.key_id for role in roles.values() for key in role.keys]
    if len(set(used)) != len(used):
        raise _refused("a key has two roles; whoever makes a thing must not be the one who approves it")
    if set(used) != set(keys):
        raise _refused("it lists a key without a role")


def _refused(reason: str) -> DocumentRefused:
    return DocumentRefused(_DOCUMENT, reason, hint=_HINT)
