"""What the log remembers and the state folder may have forgotten: an older copy of a file is not a way back.

The log is the one part that a checkpoint kept elsewhere protects; so what it says about revocations, policy and
approvals outranks the files beside it.  Law: a key that was revoked stays revoked; a policy bundle or an approval
older than one that was in force is refused.  Never: repairs a file in silence - a key that had to be revoked again is
named in the operator's log.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import structlog

from appliance.audit_trail import Kind
from appliance.identity.key_store import KeyStore
from appliance.keeping.leaves import entries_of
from appliance.state.errors import StateCorrupt
from audit.event import JsonValue
from audit.reader import AuditReader

LOG = structlog.get_logger("cloister.remembered")


def revoke_again(reader: AuditReader, keys: KeyStore) -> tuple[str, ...]:
    """Revoke every key that the log says was revoked and the key database has forgotten; return their ids."""
    forgotten: list[str] = []
    for entry in entries_of(reader, Kind.KEY_REVOKED, newest=True):
        record = keys.find(entry.leaf.event.subject)
        if record is not None and record.revoked_at_us is None:
            keys.revoke(record.id, entry.leaf.event.ts_us)
            forgotten.append(record.id)
    if forgotten:
        LOG.warning(
            "revoked_again", key_ids=forgotten, remedy="keys.db is older than the log; find out who restored it"
        )
    return tuple(forgotten)


def require_policy_not_older(reader: AuditReader, folder: Path, seq: int) -> None:
    """Refuse a policy bundle that an already loaded one has replaced.

    Raises:
        StateCorrupt: names the policy folder.
    """
    newest = next(entries_of(reader, Kind.POLICY_LOADED, newest=True), None)
    if newest is not None:
        _require_not_older(folder, "policy bundle", seq, newest.leaf.event.facts.get("seq"))


def require_approval_not_older(reader: AuditReader, folder: Path, model: str, seq: int) -> None:
    """Refuse an approval of a model that a later one has replaced.

    Raises:
        StateCorrupt: names the approvals' folder.
    """
    _require_not_older(folder, f"approval of {model}", seq, newest_approvals(reader).get(model))


def newest_approvals(reader: AuditReader) -> dict[str, int]:
    """Give the newest approval's number of every model that was ever loaded; a pruning carries them on in its leaf."""
    newest: dict[str, int] = {}
    for entry in (*entries_of(reader, Kind.MODEL_LOADED), *entries_of(reader, Kind.LOG_PRUNED)):
        facts = entry.leaf.event.facts
        carried = facts.get("approvals")
        said = carried if isinstance(carried, Mapping) else {str(facts.get("model")): facts.get("approval_seq")}
        for model, seq in said.items():
            if isinstance(seq, int):
                newest[model] = max(seq, newest.get(model, seq))
    return newest


def _require_not_older(folder: Path, what: str, seq: int, remembered: JsonValue) -> None:
    if isinstance(remembered, int) and seq < remembered:
        raise StateCorrupt(
            folder,
            f"the newest {what} here is number {seq}, but the log says that number {remembered} was in force",
            hint="restore the newer one from a backup; going back takes a new, signed one with a higher number",
        )
