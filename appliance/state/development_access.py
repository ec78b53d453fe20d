"""The three API keys of a development state: developer, operator and auditor, so that each duty can be tried."""

from __future__ import annotations

import hmac
import json
from collections.abc import Callable, Mapping
from datetime import datetime

from appliance.identity.api_keys import MintedKey, ParsedKey, Pepper, mint, parse, secret_digest
from appliance.identity.errors import KeyStoreError, KeyStoreUnusable
from appliance.identity.key_record import KeyRecord
from appliance.identity.key_store import KeyStore
from appliance.state.development_keys import LIFETIME
from appliance.state.errors import StateCorrupt, StateUnusable
from appliance.state.files import write_private
from appliance.state.layout import StateLayout
from appliance.state.opening import read_object

TENANT = "development"
MAX_LABEL = 2
CLEARANCES: Mapping[str, int] = {"developer": MAX_LABEL, "operator": 0, "auditor": 0}
"""Role -> highest label; only the developer's key ever touches content."""
_ENV = "dev"
_HINT = "restore it from a backup, or remove the state folder and start again"


def make_api_keys(
    layout: StateLayout, pepper: bytes, now: datetime, random_bytes: Callable[[int], bytes]
) -> Mapping[str, str]:
    """Make the key database and the three keys; return role -> key for the one time they are shown."""
    minted = {role: mint(_ENV, random_bytes) for role in CLEARANCES}
    store = KeyStore.create(layout.keys_db)
    try:
        for role, key in minted.items():
            store.add(_record(role, key, Pepper(pepper), now))
    finally:
        store.close()
    texts = {role: key.unsafe_text for role, key in minted.items()}
    write_private(layout.dev_keys, (json.dumps(texts, indent=1) + "\n").encode())
    return texts


def check_api_keys(layout: StateLayout, pepper: bytes) -> None:
    """Check that the three keys on file are those in the database; one that was revoked on purpose stays revoked.

    Raises:
        StateError: the file or the database is missing, exposed or damaged.
    """
    texts = read_object(layout.dev_keys)
    if set(texts) != set(CLEARANCES):
        raise StateCorrupt(layout.dev_keys, f"it does not hold a key for each of {', '.join(CLEARANCES)}", hint=_HINT)
    try:
        store = KeyStore.open(layout.keys_db)
    except KeyStoreUnusable as refusal:  # the machine's no: a full disk, a lock; it says nothing of the bytes
        raise StateUnusable(layout.keys_db, refusal.message, hint=refusal.hint) from refusal
    except KeyStoreError as refusal:
        raise StateCorrupt(layout.keys_db, refusal.message, hint=refusal.hint) from refusal
    try:
        for role, text in texts.items():
            parsed = parse(str(text).encode())
            record = store.find(parsed.key_id) if isinstance(parsed, ParsedKey) else None
            if (
                not isinstance(parsed, ParsedKey)
                or record is None
                or record.roles != (role,)
                or not hmac.compare_digest(record.hmac, secret_digest(Pepper(pepper), parsed.secret))
            ):
                raise StateCorrupt(layout.dev_keys, f"its key for {role} is not in {layout.keys_db.name}", hint=_HINT)
    finally:
        store.close()


def _record(role: str, key: MintedKey, pepper: Pepper, now: datetime) -> KeyRecord:
    return KeyRecord(
        id=key.key_id,
        env=key.env,
        hmac=secret_digest(pepper, key.secret),
        pepper_id=pepper.id,
        owner=role,
        kind="User",
        tenant=TENANT,
        roles=(role,),
        clearance=CLEARANCES[role],
        not_before_us=int(now.timestamp()) * 1_000_000,
        expires_at_us=int((now + LIFETIME).timestamp()) * 1_000_000,
    )
