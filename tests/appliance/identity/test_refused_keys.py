"""A key that was refused in memory: at once, for good, and in the file as soon as the file can say so."""

from __future__ import annotations

import sqlite3
from dataclasses import replace

import pytest
from identity_keys import NOW_US

from appliance.identity.errors import KeyStoreCorrupt, KeyStoreUnusable
from appliance.identity.key_file import KeyFile


@pytest.fixture
def foreign(store, key_path):
    """Another process's connection."""
    store.list()
    connection = sqlite3.connect(key_path, isolation_level=None)
    yield connection
    connection.close()


def test_a_refused_key_stays_refused_while_the_file_cannot_say_so(store, reopened, random_record, foreign):
    """Fault pair, first half: under a foreign lock, and however often the file is read again, the key is ended here."""
    record, other = random_record(), random_record()
    store.add(record)
    store.add(other)
    foreign.execute("BEGIN IMMEDIATE")
    assert store.refuse(record.id, NOW_US) == replace(record, revoked_at_us=NOW_US)
    with pytest.raises(KeyStoreUnusable, match="locked"):
        store.write_refusals(busy_s=0.0)
    assert reopened().find(record.id) == record
    store._seen_version = None  # as any failed call leaves it
    assert store.find(record.id).revoked_at_us == NOW_US
    assert {one.id for one in store.list() if one.revoked_at_us} == {record.id}
    assert store.refuse(record.id, NOW_US + 1).revoked_at_us == NOW_US
    foreign.execute("ROLLBACK")
    store.write_refusals(busy_s=0.0)
    assert reopened().find(record.id).revoked_at_us == NOW_US
    assert reopened().find(other.id) == other


def test_what_the_file_is_owed_is_written_when_another_connection_was_done_with_it(
    store, reopened, random_record, foreign
):
    """The look that sees the other's change writes ours."""
    record = random_record()
    store.add(record)
    foreign.execute("BEGIN IMMEDIATE")
    foreign.execute("UPDATE api_keys SET last_used_day = 7")
    store.refuse(record.id, NOW_US)
    foreign.execute("COMMIT")
    assert store.find(record.id) == replace(record, revoked_at_us=NOW_US, last_used_day=7)
    assert reopened().find(record.id).revoked_at_us == NOW_US


def test_a_key_refused_while_the_file_cannot_be_read_is_refused_afterwards(store, random_record, foreign):
    """The order was recorded: damage in the moment of it is no way to keep the key."""
    record = random_record()
    store.add(record)
    foreign.execute("UPDATE api_keys SET roles = 'x'")
    with pytest.raises(KeyStoreCorrupt):
        store.refuse(record.id, NOW_US)
    foreign.execute("UPDATE api_keys SET roles = '[\"developer\"]'")
    assert store.find(record.id).revoked_at_us == NOW_US


def test_what_the_file_is_owed_is_written_on_closing(store, reopened, random_record):
    """The last chance before the next start."""
    record = random_record()
    store.add(record)
    store.list()
    store.refuse(record.id, NOW_US)
    assert reopened().find(record.id) == record
    store.close()
    assert reopened().find(record.id).revoked_at_us == NOW_US


def test_a_key_that_an_older_file_lets_in_again_is_refused_and_written_again(store, reopened, random_record, foreign):
    """A row that somebody put back under the running process is no way in."""
    record = random_record()
    store.add(record)
    store.revoke(record.id, NOW_US)
    foreign.execute("UPDATE api_keys SET revoked_at_us = NULL")
    assert store.find(record.id).revoked_at_us == NOW_US
    assert reopened().find(record.id).revoked_at_us == NOW_US


def test_no_lock_is_held_while_another_connection_is_waited_for(store, random_record, monkeypatch):
    """Whoever asks for a key meanwhile, asks a free store."""
    record = random_record()
    store.add(record)
    store.list()
    was_free = []
    monkeypatch.setattr(KeyFile, "revoke", lambda *_arguments: was_free.append(not store._lock.locked()))
    store.refuse(record.id, NOW_US)
    store.write_refusals()
    assert was_free == [True]
