"""This appliance as a witness of other logs: its cosigning key, whose logs, and what its own log remembers of them.

What is cosigned is not recorded here: two appliances that witness one another would then make each other's logs grow
for ever.  Recorded is what is rare and must not be forgotten: the first cosignature of a log - from then on a missing
state is a loss and no beginning - and each piece of evidence that a log was forked.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from appliance.audit_trail import Kind
from appliance.keeping.leaves import entries_of
from appliance.state.errors import StateCorrupt, StateMissing, StateUnusable
from appliance.state.files import flush_folder, make_folder, read_private, refusing, write_private
from audit.anchoring.witness import Witness
from audit.checkpoint import LogVerifier
from audit.cosignature import CosignatureVerifier, Cosigner
from audit.errors import AuditError

if TYPE_CHECKING:
    from appliance.settings import Settings
    from appliance.state.layout import StateLayout
    from audit.reader import AuditReader

MAX_KEY_BYTES = 2**16
_SEED_BYTES = 32
_MAKE = "make one: cloister audit witness init NAME"


@dataclass(slots=True)
class Witnessing:
    """The witness, and the logs that our own log says it has begun with.  Owned by the event loop."""

    witness: Witness
    enrolled: set[str] = field(default_factory=set)


def open_witnessing(settings: Settings, layout: StateLayout, reader: AuditReader) -> Witnessing | None:
    """Open the witness that the settings ask for; None when they name no log.

    Raises:
        StateError: there is no cosigning key, or it is damaged.
    """
    if not settings.witness_logs:
        return None
    enrolled = {entry.leaf.event.subject for entry in entries_of(reader, Kind.WITNESS_ENROLLED)}
    return Witnessing(make_witness(settings, layout, enrolled), enrolled)


def make_witness(settings: Settings, layout: StateLayout, enrolled: set[str]) -> Witness:
    """Make the witness of the state folder."""
    logs = [LogVerifier.from_vkey(vkey) for vkey in settings.witness_logs]
    return Witness(layout.witness, read_cosigner(layout), logs, now_s=lambda: int(time.time()), enrolled=enrolled)


def read_cosigner(layout: StateLayout) -> Cosigner:
    """Read the cosigning key.

    Raises:
        StateError: names the file at fault.
    """
    if not layout.witness_key.exists():
        raise StateMissing(layout.witness_key, "this appliance has no cosigning key", hint=_MAKE)
    vkey = read_private(layout.witness_vkey, max_bytes=MAX_KEY_BYTES).decode("utf-8", "replace")
    pem = read_private(layout.witness_key, max_bytes=MAX_KEY_BYTES)
    try:
        verifier = CosignatureVerifier.from_vkey(vkey)
        cosigner = Cosigner.from_pem(verifier.name, pem)
    except AuditError as refusal:
        raise StateCorrupt(layout.witness_key, str(refusal), hint="restore it from a backup") from refusal
    if cosigner.verifier != verifier:
        hint = "restore both from one backup"
        raise StateCorrupt(layout.witness_key, f"it is not the key of {layout.witness_vkey.name}", hint=hint)
    return cosigner


def make_cosigner(layout: StateLayout, name: str, random_bytes: Callable[[int], bytes]) -> CosignatureVerifier:
    """Make the cosigning key, once: a witness that gets another key is another witness.

    Raises:
        StateError: there is one already, or it cannot be written.
        KeyRefused: signed-note allows no such name.
    """
    if not layout.root.exists():
        raise StateMissing(layout.root, "there is no state here", hint="set CLOISTER_STATE_DIR, or start it once")
    private_key = Ed25519PrivateKey.from_private_bytes(random_bytes(_SEED_BYTES))
    verifier = Cosigner(name, private_key).verifier
    with refusing(layout.witness):
        make_folder(layout.witness)
        if layout.witness_key.exists():
            raise StateUnusable(layout.witness_key, "there is a cosigning key already", hint="it cannot be replaced")
        layout.witness_vkey.unlink(missing_ok=True)  # of a making that was cut short before its key was there
        write_private(layout.witness_vkey, f"{verifier.vkey}\n".encode())
        write_private(layout.witness_key, private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        flush_folder(layout.witness)
    return verifier
