"""The log's signing keys over time: the one that signs, the one that still signs beside it, those that signed before.

    log/signing.key, verifier.vkey      the key; the appliance signs with it, and it names the log
    log/retiring.key, retiring.vkey     while a rotation overlaps: the key before, which signs every head as well
    log/earlier.vkeys                   public keys that sign no more, one a line, oldest first

Laws: all of them have one name, the log's; a rotation goes on where a crash left it, when its command is given again;
the key before is destroyed only after the log's head is known to carry the new key's signature.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from appliance.state.errors import StateCorrupt, StateUnusable
from appliance.state.files import flush_folder, make_folder, read_private, refusing, write_private
from appliance.state.layout import StateLayout
from audit.checkpoint import LogSigner, LogVerifier
from audit.errors import AuditError

MAX_KEY_BYTES = 2**16
_SEED_BYTES = 32
_RESTORE = "restore it from a backup, or make a new state in another folder"
_GO_ON = "finish the rotation that was cut short: cloister audit rotate-key begin"


@dataclass(frozen=True, slots=True)
class LogKeys:
    """What the log is signed with now, and was signed with before."""

    signer: LogSigner = field(repr=False)
    retiring: LogSigner | None = field(repr=False)
    """Signs beside the other one while a rotation overlaps."""
    earlier: tuple[LogVerifier, ...]
    """Oldest first; they sign no more."""

    @property
    def signers(self) -> list[LogSigner]:
        """Who signs each head; the first names the log."""
        return [self.signer] if self.retiring is None else [self.signer, self.retiring]


def open_log_keys(layout: StateLayout) -> LogKeys:
    """Read all of them.

    Raises:
        StateError: names the file at fault.
    """
    if layout.log_rotation.exists():
        raise StateCorrupt(layout.log_rotation, "a rotation of the log's key is half done", hint=_GO_ON)
    signer = _read_pair(layout.log_signing_key, layout.log_vkey)
    retiring = None
    if layout.log_retiring_key.exists():
        retiring = _read_pair(layout.log_retiring_key, layout.log_retiring_vkey)
    keys = LogKeys(signer, retiring, _earlier(layout))
    for verifier in (*keys.earlier, *(one.verifier for one in keys.signers)):
        if verifier.name != signer.name:
            raise StateCorrupt(layout.log, f"one of its keys is of another log: {verifier.name}", hint=_RESTORE)
    return keys


def own_verifiers(layout: StateLayout) -> list[LogVerifier]:
    """Read every public key that the log has or had, newest first.

    Raises:
        StateError: names the file at fault.
    """
    retiring = [layout.log_retiring_vkey] if layout.log_retiring_vkey.exists() else []
    return [*(_read_vkey(path) for path in (layout.log_vkey, *retiring)), *reversed(_earlier(layout))]


def begin_rotation(layout: StateLayout, random_bytes: Callable[[int], bytes]) -> tuple[LogVerifier, LogVerifier]:
    """Make a new key and let the old one sign beside it from the next start on; return the new and the old public key.

    Under the state's lock.  Crash states: before the folder `rotation` has its name nothing has happened; from then on
    an appliance refuses to start, and this same call goes on to the end.

    Raises:
        StateError: a rotation overlaps already, or a file cannot be written.
    """
    with refusing(layout.log):
        if not layout.log_rotation.exists():
            if layout.log_retiring_vkey.exists():
                hint = "end it first: cloister audit rotate-key end"
                raise StateUnusable(layout.log_retiring_vkey, "a rotation overlaps already", hint=hint)
            _stage(layout, random_bytes)
        for path in _pairs(layout):
            staged = layout.log_rotation / path.name
            if staged.exists():
                staged.replace(path)
        flush_folder(layout.log)
        layout.log_rotation.rmdir()
        flush_folder(layout.log)
    keys = open_log_keys(layout)
    assert keys.retiring is not None, "a rotation that was begun overlaps"
    return keys.signer.verifier, keys.retiring.verifier


def end_rotation(layout: StateLayout) -> tuple[LogVerifier, LogVerifier]:
    """Destroy the key before and keep its public half; return the key and the one that signs no more.

    Under the state's lock, and only after the caller saw the new key's signature on the log's head.

    Raises:
        StateError: no rotation overlaps, or a file cannot be written.
    """
    if not layout.log_retiring_vkey.exists():
        raise StateUnusable(layout.log_retiring_vkey, "no rotation overlaps", hint="begin one first")
    old = _read_vkey(layout.log_retiring_vkey)
    with refusing(layout.log):
        if old not in _earlier(layout):
            lines = [*(verifier.vkey for verifier in _earlier(layout)), old.vkey]
            _replace(layout.log_earlier_vkeys, "".join(f"{line}\n" for line in lines).encode())
        layout.log_retiring_key.unlink(missing_ok=True)
        layout.log_retiring_vkey.unlink()
        flush_folder(layout.log)
    return _read_vkey(layout.log_vkey), old


def _pairs(layout: StateLayout) -> tuple[Path, ...]:
    return layout.log_retiring_key, layout.log_retiring_vkey, layout.log_signing_key, layout.log_vkey


def _stage(layout: StateLayout, random_bytes: Callable[[int], bytes]) -> None:
    """Make a folder with both pairs as they shall be; it gets its name whole."""
    old = _read_pair(layout.log_signing_key, layout.log_vkey)
    private_key = Ed25519PrivateKey.from_private_bytes(random_bytes(_SEED_BYTES))
    contents = (
        read_private(layout.log_signing_key, max_bytes=MAX_KEY_BYTES),
        f"{old.verifier.vkey}\n".encode(),
        private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        f"{LogSigner(old.name, private_key).verifier.vkey}\n".encode(),
    )
    draft = layout.log_rotation.with_name("rotation.draft")
    if draft.exists():
        shutil.rmtree(draft)  # of a beginning that was cut short: nothing was signed with it
    make_folder(draft)
    for path, content in zip(_pairs(layout), contents, strict=True):
        write_private(draft / path.name, content)
    flush_folder(draft)
    draft.rename(layout.log_rotation)
    flush_folder(layout.log)


def _replace(path: Path, content: bytes) -> None:
    draft = path.with_name(f"{path.name}.draft")
    draft.unlink(missing_ok=True)
    write_private(draft, content)
    draft.replace(path)
    flush_folder(path.parent)


def _earlier(layout: StateLayout) -> tuple[LogVerifier, ...]:
    path = layout.log_earlier_vkeys
    if not path.exists():
        return ()
    lines = read_private(path, max_bytes=MAX_KEY_BYTES).decode("utf-8", "replace").splitlines()
    return tuple(_parse(path, line) for line in lines)


def _read_vkey(path: Path) -> LogVerifier:
    return _parse(path, read_private(path, max_bytes=MAX_KEY_BYTES).decode("utf-8", "replace"))


def _parse(path: Path, text: str) -> LogVerifier:
    try:
        return LogVerifier.from_vkey(text)
    except AuditError as refusal:
        raise StateCorrupt(path, str(refusal), hint=_RESTORE) from refusal


def _read_pair(key_path: Path, vkey_path: Path) -> LogSigner:
    verifier = _read_vkey(vkey_path)
    try:
        signer = LogSigner.from_pem(verifier.name, read_private(key_path, max_bytes=MAX_KEY_BYTES))
    except AuditError as refusal:
        raise StateCorrupt(key_path, str(refusal), hint=_RESTORE) from refusal
    if signer.verifier != verifier:
        raise StateCorrupt(key_path, f"it is not the key of {vkey_path.name}", hint="restore both from one backup")
    return signer
