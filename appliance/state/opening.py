"""Open a state: modes, trust root, secrets, log key and policy, each verified back to the pinned root.

Never: repair, create or sign anything.  The same function opens a development and a production state; which of the
two it is says the trust root, whose first version is pinned.
"""

from __future__ import annotations

import fcntl
import hmac
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from types import MappingProxyType

from appliance.state.errors import StateCorrupt, StateInUse, StateMissing
from appliance.state.files import FILE_MODE, check_tree, read_private, refusing
from appliance.state.layout import StateLayout, parse_seq_name
from appliance.state.log_keys import LogKeys, open_log_keys
from audit.checkpoint import LogSigner
from offline_bundle.errors import FolderRefused, TrustError
from offline_bundle.folder import list_folder
from offline_bundle.manifest import PolicyManifest
from offline_bundle.policy_signature import check_succession, verify_policy
from offline_bundle.trust_root import Role, TrustRoot, open_root_chain

SECRET_BYTES = 32
MAX_SMALL_BYTES = 2**20
_RESTORE = "restore it from a backup, or make a new state in another folder"


@dataclass(frozen=True, slots=True)
class OpenState:
    """What was verified; databases and models are opened by their own rooms."""

    layout: StateLayout
    trust_root: TrustRoot
    pepper: bytes = field(repr=False)
    kek: bytes = field(repr=False)
    log_keys: LogKeys
    policy: PolicyManifest
    policy_files: Mapping[str, bytes] = field(repr=False)
    """The signed bytes of the policy in force; `policy.digest` is their identity."""

    @property
    def log_signer(self) -> LogSigner:
        """The key that names the log."""
        return self.log_keys.signer


def open_state(layout: StateLayout, now: datetime) -> OpenState:
    """Verify a state and hand out what the appliance starts from.

    Raises:
        StateError: names the file at fault and the remedy; nothing was changed.
    """
    if not layout.root.exists():
        raise StateMissing(layout.root, "there is no state here", hint="set CLOISTER_STATE_DIR, or provision it")
    check_tree(layout.root)
    trust_root = _open_trust_root(layout, now)
    pepper, kek = _open_secrets(layout)
    policy, policy_files = open_policy(layout, trust_root)
    return OpenState(layout, trust_root, pepper, kek, open_log_keys(layout), policy, policy_files)


@contextmanager
def hold_state(layout: StateLayout) -> Iterator[None]:
    """Hold the state for this process alone, for as long as it provisions or serves.

    Raises:
        StateInUse: another process holds it.
    """
    with refusing(layout.lock):
        descriptor = os.open(layout.lock, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW, FILE_MODE)
    try:
        lock_descriptor(descriptor, layout.lock)
        yield
    finally:
        os.close(descriptor)


def lock_descriptor(descriptor: int, path: Path) -> None:
    """Take the lock, which ends with the descriptor, or refuse at once."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise StateInUse(
            path, "another process holds this state", hint="stop it first, or set CLOISTER_STATE_DIR to another folder"
        ) from error


def open_policy(layout: StateLayout, trust_root: TrustRoot) -> tuple[PolicyManifest, Mapping[str, bytes]]:
    """The policy bundle in force, after every bundle before it was verified to lead to it."""
    earlier: PolicyManifest | None = None
    files: Mapping[str, bytes] = {}
    for seq in _sequence(layout.policy):
        files = read_files(layout.policy_files(seq))
        envelopes = tuple(read_files(layout.policy_signatures(seq)).values())
        with _as_corrupt(layout.policy_files(seq).parent):
            manifest = verify_policy(
                envelopes,
                files,
                trusted_keys=trust_root.keys_for(Role.POLICY_SIGNER),
                threshold=trust_root.threshold(Role.POLICY_SIGNER),
            )
            check_succession(earlier, manifest)
        if manifest.seq != seq:
            raise StateCorrupt(layout.policy_files(seq).parent, f"it holds bundle {manifest.seq}", hint=_RESTORE)
        earlier = manifest
    if earlier is None:
        raise StateMissing(layout.policy, "there is no policy bundle", hint=_RESTORE)
    return earlier, MappingProxyType(files)


def read_approvals(layout: StateLayout, name: str) -> tuple[bytes, ...]:
    """The envelopes of a model's newest approval; empty when nobody ever approved it."""
    seq = newest_approval(layout, name)
    return tuple(read_files(layout.approval(name, seq)).values()) if seq else ()


def newest_approval(layout: StateLayout, name: str) -> int:
    """The highest sequence number among a model's approvals; 0 when there is none."""
    return max(_sequence(layout.approvals(name)), default=0)


def read_files(folder: Path) -> dict[str, bytes]:
    """All files below a folder by name."""
    with refusing(folder):
        folder.stat()
    try:
        names = list_folder(folder)
    except FolderRefused as refusal:
        raise StateCorrupt(folder / refusal.file, refusal.reason, hint=refusal.hint) from refusal
    return {name: read_private(folder / name) for name in names}


def secret_id(secret: bytes, purpose: str) -> str:
    """Tells one secret from another and reveals neither."""
    return hmac.digest(secret, f"cloister {purpose} id".encode(), "sha256").hex()[:32]


def read_object(path: Path) -> dict[str, object]:
    """One of our own small JSON objects."""
    try:
        value = json.loads(read_private(path, max_bytes=MAX_SMALL_BYTES))
    except (ValueError, RecursionError) as error:
        raise StateCorrupt(path, "it is not JSON", hint=_RESTORE) from error
    if not isinstance(value, dict):
        raise StateCorrupt(path, "it is not a JSON object", hint=_RESTORE)
    return value


def _open_trust_root(layout: StateLayout, now: datetime) -> TrustRoot:
    pin = read_private(layout.trust_pin, max_bytes=MAX_SMALL_BYTES).decode("ascii", "replace")
    versions = sorted(version for version in map(_root_version, _names(layout.trust)) if version)
    raws = [read_private(layout.trust_root(version), max_bytes=MAX_SMALL_BYTES) for version in versions]
    with _as_corrupt(layout.trust_root(versions[-1] if versions else 1)):
        return open_root_chain(raws, pin, now)


def _root_version(name: str) -> int:
    version = name.removeprefix("root.").removesuffix(".json")
    return int(version) if name == f"root.{version}.json" and version.isascii() and version.isdigit() else 0


def _open_secrets(layout: StateLayout) -> tuple[bytes, bytes]:
    ids = read_object(layout.secret_ids)
    secrets = []
    for path in (layout.pepper, layout.kek):
        secret = read_private(path, max_bytes=MAX_SMALL_BYTES)
        if len(secret) != SECRET_BYTES or secret_id(secret, path.name) != ids.get(path.name):
            raise StateCorrupt(path, f"it is not the secret that {layout.secret_ids.name} names", hint=_RESTORE)
        secrets.append(secret)
    return secrets[0], secrets[1]


def _sequence(folder: Path) -> list[int]:
    return sorted(seq for seq in map(parse_seq_name, _names(folder)) if seq)


def _names(folder: Path) -> list[str]:
    try:
        return [path.name for path in folder.iterdir()]
    except FileNotFoundError:
        return []


@contextmanager
def _as_corrupt(path: Path) -> Iterator[None]:
    """Turn another room's refusal of a file into ours, which names the path."""
    try:
        yield
    except TrustError as refusal:
        raise StateCorrupt(path, refusal.message, hint=refusal.hint) from refusal
