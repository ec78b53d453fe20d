"""The key database: what it keeps, who may see it, and what it says when it is broken."""

from __future__ import annotations

import multiprocessing
import sqlite3
import stat
import threading
from dataclasses import replace

import pytest
import sqlalchemy as sa
from identity_keys import HOUR_US, NOW_US, PEPPER

from appliance.identity.errors import KeyStoreCorrupt, KeyStoreError, KeyStoreExposed, KeyStoreMissing, KeyStoreUnusable
from appliance.identity.key_file import KeyFile
from appliance.identity.key_store import KeyStore


def test_what_was_added_is_found_now_and_after_a_restart(store, reopened, random_record):
    """Every field comes back as it was."""
    record = random_record(roles=("auditor", "operator"), kind="Service", clearance=4)
    store.add(record)
    assert store.find(record.id) == record
    assert reopened().find(record.id) == record
    assert reopened().list() == (record,)
    assert store.find("0" * 11) is None


def test_a_revoked_key_is_revoked_at_once_and_for_good(store, reopened, random_record):
    """Through the same object, through another connection, and after a restart; the first time stays."""
    record = random_record()
    store.add(record)
    other = reopened()
    assert other.find(record.id) == record
    assert store.revoke(record.id, NOW_US) == replace(record, revoked_at_us=NOW_US)
    for seen in (store, other, reopened()):
        assert seen.find(record.id).revoked_at_us == NOW_US
    assert store.revoke(record.id, NOW_US + 1).revoked_at_us == NOW_US
    assert other.revoke(record.id, NOW_US + 1).revoked_at_us == NOW_US
    assert store.revoke("0" * 11, NOW_US) is None


def test_a_key_added_by_another_process_is_found(store, key_path, random_record):
    """The command line may change the file while the appliance serves from it."""
    record = random_record()
    process = multiprocessing.get_context("spawn").Process(target=add_record, args=(key_path, record))
    process.start()
    process.join()
    assert process.exitcode == 0
    assert store.find(record.id) == record


def add_record(path, record) -> None:
    """In the other process."""
    store = KeyStore.open(path)
    store.add(record)
    store.close()


def count_statements(store: KeyStore) -> list[str]:
    """Every SQL statement from now on."""
    statements: list[str] = []
    sa.event.listen(store._file._engine, "before_cursor_execute", lambda *args: statements.append(args[2]))
    return statements


def test_values_travel_as_bound_parameters(store, random_record):
    """Text that is SQL stays text."""
    statements = count_statements(store)
    attack = "x'); DROP TABLE api_keys; --"
    record = random_record(owner=attack, tenant=attack, roles=(attack,))
    store.add(record)
    assert store.find(record.id) == record
    assert store.revoke(attack, NOW_US) is None
    assert store.find(attack) is None
    assert not [statement for statement in statements if "DROP" in statement]


@pytest.mark.parametrize(
    "change",
    [
        {"id": "short"},
        {"id": "x" * 10 + "\n"},
        {"hmac": b""},
        {"owner": ""},
        {"kind": "Robot"},
        {"tenant": ""},
        {"roles": ("b", "a")},
        {"roles": ("a", "a")},
        {"clearance": 5},
        {"clearance": -1},
        {"expires_at_us": NOW_US - HOUR_US},
        {"expires_at_us": 2**63},
        {"not_before_us": -1},
    ],
    ids=str,
)
def test_a_record_that_cannot_be_is_never_made(random_record, change):
    """Every key ends, has an owner and a tenant, and a clearance there is."""
    with pytest.raises(ValueError, match=next(iter(change))):
        random_record(**change)


def test_an_id_that_is_taken_is_refused(store, random_record):
    """A second record never replaces the first."""
    record = random_record()
    store.add(record)
    with pytest.raises(KeyStoreUnusable, match="mint a new key"):
        store.add(replace(record, owner="eve"))
    assert store.find(record.id) == record


def test_only_this_account_may_read_the_file(store, key_path, random_record):
    """The database and the files beside it have mode 0600, whatever the umask."""
    store.add(random_record())
    names = sorted(path.name for path in key_path.parent.iterdir())
    assert "keys.db" in names
    assert len(names) > 1
    assert {stat.S_IMODE((key_path.parent / name).stat().st_mode) for name in names} == {0o600}


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o666, 0o620])
def test_a_file_that_others_may_use_is_not_opened(store, key_path, mode):
    """Somebody may have read the digests or planted a record: the operator must look."""
    store.close()
    key_path.chmod(mode)
    with pytest.raises(KeyStoreExposed, match="chmod 600"):
        KeyStore.open(key_path)


def test_a_missing_file_is_never_created_by_opening(key_path):
    """An empty database in the place of a lost one would lock everyone out without a word."""
    with pytest.raises(KeyStoreMissing, match="restore"):
        KeyStore.open(key_path)
    assert not key_path.exists()


def test_creating_never_overwrites(store, key_path, random_record):
    """What is there stays."""
    record = random_record()
    store.add(record)
    with pytest.raises(KeyStoreUnusable, match="cannot be created"):
        KeyStore.create(key_path)
    assert store.find(record.id) == record
    with pytest.raises(KeyStoreUnusable, match="cannot be created"):
        KeyStore.create(key_path / "below" / "keys.db")


def filled(key_path, random_record) -> int:
    """A closed database with enough rows for several pages; its size."""
    store = KeyStore.create(key_path)
    for _ in range(40):
        store.add(random_record())
    store.close()
    return key_path.stat().st_size


def test_damage_anywhere_is_reported_with_the_remedy(key_path, random_record):
    """Head, middle or tail, cut, zeroed or replaced: a typed error that names the file, never a traceback or a pass."""
    size = filled(key_path, random_record)
    sound = key_path.read_bytes()
    damages = {
        "emptied": b"",
        "cut": sound[: size // 2],
        "no database": b"\0" * size,
        "text": b"not a database\n" * 400,
        "head": b"X" * 16 + sound[16:],
        "first page": sound[:100] + b"\xff" * 300 + sound[400:],
        "middle": sound[: size // 2] + b"\xff" * 4096 + sound[size // 2 + 4096 :],
        "table renamed": sound.replace(b"CREATE TABLE api_keys", b"CREATE TABLE other_ke"),
    }
    for name, content in damages.items():
        assert content != sound, name
        key_path.write_bytes(content)
        with pytest.raises(KeyStoreError, match=r"keys\.db") as refusal:
            KeyStore.open(key_path)
        assert refusal.value.path == key_path, name
        assert refusal.value.hint, name
    key_path.write_bytes(sound)
    store = KeyStore.open(key_path)
    assert len(store.list()) == 40
    store.close()


def test_damage_in_a_page_that_no_query_reads_is_found(key_path, random_record):
    """The rows still read well, the index of ids is broken: the file is not to be trusted as a whole."""
    filled(key_path, random_record)
    connection = sqlite3.connect(key_path)
    (page,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE type = 'index'").fetchone()
    (page_bytes,) = connection.execute("PRAGMA page_size").fetchone()
    connection.close()
    content = bytearray(key_path.read_bytes())
    content[(page - 1) * page_bytes : (page - 1) * page_bytes + 8] = b"\xff" * 8
    key_path.write_bytes(content)
    with pytest.raises(KeyStoreCorrupt, match="restore"):
        KeyStore.open(key_path)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE api_keys SET roles = 'developer'",
        "UPDATE api_keys SET roles = '{}'",
        "UPDATE api_keys SET roles = '[1]'",
        """UPDATE api_keys SET roles = '["b","a"]'""",
        "UPDATE api_keys SET id = 'x' WHERE id = (SELECT min(id) FROM api_keys)",
        "PRAGMA user_version = 2",
        "PRAGMA application_id = 1",
        "ALTER TABLE api_keys RENAME COLUMN env TO surroundings",
        "ALTER TABLE api_keys ADD COLUMN more TEXT",
        "ALTER TABLE api_keys RENAME TO other",
    ],
)
def test_content_that_we_did_not_write_is_reported(key_path, random_record, statement):
    """A row that does not decode lets nobody in, itself included."""
    filled(key_path, random_record)
    with sqlite3.connect(key_path) as connection:
        connection.execute(statement)
    connection.close()
    with pytest.raises(KeyStoreCorrupt, match="restore"):
        KeyStore.open(key_path)


@pytest.mark.parametrize(
    "assignment",
    ["clearance = 9", "clearance = 'x'", "hmac = x'00'", "kind = 'Root'", "expires_at_us = NULL", "owner = ''"],
)
def test_the_database_itself_refuses_what_cannot_be(store, key_path, random_record, assignment):
    """Also a hand at the file with another tool meets the rules."""
    store.add(random_record())
    store.close()
    connection = sqlite3.connect(key_path)
    with pytest.raises(sqlite3.IntegrityError):
        connection.execute(f"UPDATE api_keys SET {assignment}")
    connection.close()


def test_damage_while_serving_lets_nobody_in(store, key_path, random_record):
    """A row spoilt by another process is an error from the next look on, not the old answer."""
    record = random_record()
    store.add(record)
    assert store.find(record.id) == record
    connection = sqlite3.connect(key_path)
    connection.execute("UPDATE api_keys SET roles = 'x'")
    connection.commit()
    connection.close()
    for _ in range(2):
        with pytest.raises(KeyStoreCorrupt):
            store.find(record.id)


def test_a_failed_write_changes_nothing_in_memory(store, reopened, random_record):
    """Fault pair, first half: refused and not persisted; what find says is what the file says."""
    kept, new = random_record(), random_record()
    store.add(kept)
    store._file._connection.exec_driver_sql("PRAGMA query_only=ON")
    with pytest.raises(KeyStoreUnusable, match="disk space"):
        store.add(new)
    assert store.list() == (kept,) == reopened().list()
    store._file._connection.exec_driver_sql("PRAGMA query_only=OFF")
    store.add(new)
    assert store.find(new.id) == new == reopened().find(new.id)


def test_a_write_that_persisted_but_failed_is_seen(store, reopened, random_record, monkeypatch):
    """Fault pair, second half: the row is durable although the caller got an error; the next look sees it."""
    record = random_record()
    store.add(record)
    assert store.find(record.id) == record
    real = KeyFile.revoke

    def write_then_fail(file, key_id, at_us):
        real(file, key_id, at_us)
        raise KeyStoreUnusable("disk I/O error", path=file.path, hint="check the disk")

    monkeypatch.setattr(KeyFile, "revoke", write_then_fail)
    with pytest.raises(KeyStoreUnusable):
        store.revoke(record.id, NOW_US)
    monkeypatch.undo()
    assert store.find(record.id).revoked_at_us == NOW_US
    assert reopened().find(record.id).revoked_at_us == NOW_US
    assert store.revoke(record.id, NOW_US + 1).revoked_at_us == NOW_US


def test_many_threads_see_whole_records(store, random_record):
    """The lock is the store's; the caller needs none."""
    records = [random_record() for _ in range(40)]
    errors: list[BaseException] = []

    def work(mine) -> None:
        try:
            for record in mine:
                store.add(record)
                assert store.revoke(record.id, NOW_US).revoked_at_us == NOW_US
                store.list()
        except BaseException as failure:  # noqa: BLE001 - shown by the main thread
            errors.append(failure)

    threads = [threading.Thread(target=work, args=(records[part::4],)) for part in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert {record.id for record in store.list() if record.revoked_at_us} == {record.id for record in records}


def test_no_repr_shows_a_digest(random_record):
    """The record may be logged; its digest may not."""
    record = random_record(hmac=b"canary-canary-canary-canary-1234")
    assert "canary" not in repr(record)
    assert PEPPER.id in repr(record)
