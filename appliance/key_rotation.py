"""A rotation of the log's key is recorded by the first start after it: whoever reads the log learns which keys it has.

What the state folder says is compared with what the log says; one leaf per change, `log:key_rotated` with `phase`
`overlap` (both keys sign) or `completed` (the old key signs no more).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from appliance.audit_trail import SYSTEM, AuditTrail, Kind
from audit.reader import EntryFilter

if TYPE_CHECKING:
    from appliance.state.log_keys import LogKeys
    from audit.event import JsonValue
    from audit.reader import AuditReader


async def record_rotation(keys: LogKeys, trail: AuditTrail, reader: AuditReader) -> None:
    """Append the leaf, unless the newest one says the same."""
    if keys.retiring is not None:
        phase, old = "overlap", keys.retiring.verifier
    elif keys.earlier:
        phase, old = "completed", keys.earlier[-1]
    else:
        return
    new = keys.signer.verifier
    facts: dict[str, JsonValue] = {"phase": phase, "new_vkey": new.vkey, "old_vkey": old.vkey}
    newest = reader.entries(EntryFilter(kind=Kind.LOG_KEY_ROTATED.value), limit=1, newest=True).entries
    if newest and all(newest[0].leaf.event.facts.get(name) == value for name, value in facts.items()):
        return
    await trail.append(Kind.LOG_KEY_ROTATED, SYSTEM, new.key_id.hex(), facts)
