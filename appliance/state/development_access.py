"""The API keys of a development state, one for each role, so that each duty can be tried.

A state made by a release that knew fewer roles gets the keys it lacks; what is on file stays as it is.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime

from appliance.identity.api_keys import MintedKey, ParsedKey, Pepper, mint, parse, secret_digest
from appliance.identity.errors import KeyStoreError, KeyStoreUnusable
from appliance.identity.key_record import KeyRecord
from appliance.identity.key_store import KeyStore
from appliance.state.development_keys import LIFETIME
from appliance.state.errors import StateCorrupt, StateUnusable
from appliance.state.files import flush_folder, refusing, write_private
from appliance.state.layout import StateLayout
from appliance.state.opening import read_object

TENANT = "development"
MAX_LABEL = 2
CLEARANCES: Mapping[str, int] = {"developer": MAX_LABEL, "operator": 0, "auditor": MAX_LABEL, "privacy": 0, "peer": 0}
"""Role -> highest label: the developer's key touches content, and the auditor's has what was recorded run again."""
FIRST_ROLES = frozenset({"developer", "operator", "auditor"})
"""What every development state has had from the first release on; a state may lack the roles that came later."""
_ENV = "dev"
_HINT = "restore it from a backup, or remove the state folder and start again"


def make_api_keys(
    layout: StateLayout, pepper: bytes, now: datetime, random_bytes: Callable[[int], bytes]
) -> Mapping[str, str]:
    """Make the key database and the keys; return role -> key for the one time they are shown."""
    store = KeyStore.create(layout.keys_db)
    try:
        texts = _mint(store, tuple(CLEARANCES), pepper, now, random_bytes)
    finally:
        store.close()
    write_private(layout.dev_keys, _file_of(texts))
    return texts


def add_missing_keys(
    layout: StateLayout, pepper: bytes, now: datetime, random_bytes: Callable[[int], bytes]
) -> Mapping[str, str]:
    """Make the keys of the roles that came after this state; return role -> key, empty when it has them all.

    The file of keys is replaced whole after the database knows them: a crash between the two leaves a record whose
    secret nobody has, and the next start makes another key.  `check_api_keys` comes first.

    Raises:
        StateError: the file or the database cannot be used.
    """
    texts = {role: str(text) for role, text in read_object(layout.dev_keys).items()}
    missing = tuple(role for role in CLEARANCES if role not in texts)
    if not missing:
        return {}
    store = _open_store(layout)
    try:
        made = _mint(store, missing, pepper, now, random_bytes)
    except KeyStoreError as refusal:
        raise StateUnusable(layout.keys_db, refusal.message, hint=refusal.hint) from refusal
    finally:
        store.close()
    staged = layout.dev_keys.with_suffix(".staged")
    with refusing(staged):
        staged.unlink(missing_ok=True)  # of a start that was cut short
        write_private(staged, _file_of({**texts, **made}))
        staged.replace(layout.dev_keys)
        flush_folder(layout.dev)
    return made


def check_api_keys(layout: StateLayout, pepper: bytes) -> None:
    """Check that the keys on file are those in the database; one that was revoked on purpose stays revoked.

    Raises:
        StateError: the file or the database is missing, exposed or damaged.
    """
    texts = read_object(layout.dev_keys)
    if not FIRST_ROLES <= set(texts) <= set(CLEARANCES):
        raise StateCorrupt(layout.dev_keys, f"it does not hold a key for each of {', '.join(CLEARANCES)}", hint=_HINT)
    store = _open_store(layout)
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


def _open_store(layout: StateLayout) -> KeyStore:
    try:
        return KeyStore.open(layout.keys_db)
    except KeyStoreUnusable as refusal:  # the machine's no: a full disk, a lock; it says nothing of the bytes
        raise StateUnusable(layout.keys_db, refusal.message, hint=refusal.hint) from refusal
    except KeyStoreError as refusal:
        raise StateCorrupt(layout.keys_db, refusal.message, hint=refusal.hint) from refusal


def _mint(
    store: KeyStore, roles: Sequence[str], pepper: bytes, now: datetime, random_bytes: Callable[[int], bytes]
) -> dict[str, str]:
    minted = {role: mint(_ENV, random_bytes) for role in roles}
    for role, key in minted.items():
        store.add(_record(role, key, Pepper(pepper), now))
    return {role: key.unsafe_text for role, key in minted.items()}


def _file_of(texts: Mapping[str, str]) -> bytes:
    return (json.dumps(dict(texts), indent=1) + "\n").encode()


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
