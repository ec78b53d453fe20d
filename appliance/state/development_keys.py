"""The private keys of development trust: one holder per duty, all on this one disk, which is why they protect nothing.

They exist so that the walk is the real one: the same signatures, thresholds and refusals as in production.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from appliance.state.errors import StateCorrupt
from appliance.state.files import read_private, write_private
from appliance.state.layout import StateLayout
from offline_bundle.errors import KeyRefused
from offline_bundle.keys import SigningKey, VerifyingKey
from offline_bundle.statement import format_time
from offline_bundle.trust_root import Role, RoleKeys, TrustRoot, sign_trust_root, unsafe_fingerprint

LIFETIME = timedelta(days=3650)
HOLDERS: Mapping[str, Role] = {
    "model-approver-1": Role.MODEL_APPROVER,
    "model-approver-2": Role.MODEL_APPROVER,
    "model-signer": Role.MODEL_SIGNER,
    "policy-signer": Role.POLICY_SIGNER,
    "root": Role.ROOT,
}
"""Nobody holds `release`: a development state installs no releases."""


@dataclass(frozen=True, slots=True)
class DevelopmentKeys:
    """The keys by holder."""

    by_holder: Mapping[str, SigningKey]

    @property
    def model_signer(self) -> SigningKey:
        """Signs what the repository made."""
        return self.by_holder["model-signer"]

    @property
    def policy_signer(self) -> SigningKey:
        """Signs policy bundles."""
        return self.by_holder["policy-signer"]

    @property
    def approvers(self) -> tuple[SigningKey, ...]:
        """Both must sign."""
        return tuple(self.by_holder[holder] for holder, role in HOLDERS.items() if role is Role.MODEL_APPROVER)


def make_keys(layout: StateLayout, random_bytes: Callable[[int], bytes]) -> DevelopmentKeys:
    """Make a key for every holder and keep each in its own file."""
    keys = {holder: SigningKey.generate(random_bytes) for holder in HOLDERS}
    for holder, key in keys.items():
        write_private(layout.dev_signing_key(holder), key.unsafe_private_pem())
    return DevelopmentKeys(keys)


def make_trust_root(keys: DevelopmentKeys, now: datetime) -> tuple[bytes, str]:
    """The first and only root of a development state, and its fingerprint."""
    roles = {
        role: RoleKeys(_public(keys, role), threshold=2 if role in (Role.MODEL_APPROVER, Role.RELEASE) else 1)
        for role in Role
    }
    raw = sign_trust_root(
        version=1,
        trust="development",
        expires_at=format_time(now + LIFETIME),
        roles=roles,
        signers=[keys.by_holder["root"]],
    )
    return raw, unsafe_fingerprint(raw)


def read_keys(layout: StateLayout, trust_root: TrustRoot) -> DevelopmentKeys:
    """Read every holder's key; each must be the one that the trust root lists for its duty.

    Raises:
        StateError: a key file is missing, exposed, damaged or of another state.
    """
    return DevelopmentKeys(
        {holder: _read(layout.dev_signing_key(holder), trust_root.keys_for(role)) for holder, role in HOLDERS.items()}
    )


def _read(path: Path, listed: tuple[VerifyingKey, ...]) -> SigningKey:
    hint = "restore it from a backup, or remove the state folder and start again"
    try:
        key = SigningKey.from_pem(read_private(path))
    except KeyRefused as refusal:
        raise StateCorrupt(path, refusal.message, hint=hint) from refusal
    if key.verifying_key not in listed:
        raise StateCorrupt(path, "it is not the key that the trust root lists for its duty", hint=hint)
    return key


def _public(keys: DevelopmentKeys, role: Role) -> tuple[VerifyingKey, ...]:
    held = [keys.by_holder[holder].verifying_key for holder, of_holder in HOLDERS.items() if of_holder is role]
    return tuple(sorted(held, key=lambda key: key.key_id))
