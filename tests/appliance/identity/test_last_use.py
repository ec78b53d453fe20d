"""The day of a key's last use: written beside the requests, whatever holds the database."""

from __future__ import annotations

import queue
import random
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from identity_keys import NOW_US, PEPPER, bearer, make_record

from appliance.identity.api_keys import mint
from appliance.identity.authenticate import Authenticated, Authenticator
from appliance.identity.errors import KeyStoreUnusable
from appliance.identity.key_file import KeyFile
from appliance.identity.key_store import KeyStore
from appliance.identity.last_use import LastUse

TODAY = NOW_US // 86_400_000_000
PATIENT_S = 250.0
"""Whoever waited for the lock on the path of a request would still wait when the test is given up."""


@pytest.fixture
def failures() -> queue.Queue[Exception]:
    """Told of each write that failed."""
    return queue.Queue()


@pytest.fixture
def database(store, key_path) -> Path:
    """The file, once it is there."""
    store.list()
    return key_path


@pytest.fixture
def last_use(database, failures) -> Iterator[Callable[..., LastUse]]:
    """Make the bookkeeping; closed after the test."""
    made: list[LastUse] = []

    def make(*, busy_s: float, pace_s: float = 0.0) -> LastUse:
        made.append(LastUse(KeyFile.open(database, busy_s=busy_s), failures.put, pace_s=pace_s))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def minted_before(minted):
    """Keys that were minted before anybody took the lock."""
    return [minted(), minted()]


@pytest.fixture
def held(database, minted_before) -> Iterator[sqlite3.Connection]:
    """The write lock of the database, in the hands of another connection."""
    assert minted_before
    connection = sqlite3.connect(database, isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    yield connection
    connection.close()


def test_a_held_lock_delays_no_request(store, minted_before, last_use, held, failures):
    """Every request of every key is let in while the lock is held; the day is on file once it is free."""
    uses = last_use(busy_s=PATIENT_S)
    desk = Authenticator(store, [PEPPER], uses.note)
    for _ in range(3):
        for key in minted_before:
            assert isinstance(desk.authenticate([bearer(key)], b"", NOW_US), Authenticated)
    assert {record.last_used_day for record in store.list()} == {None}
    held.execute("ROLLBACK")
    uses.close()
    assert {record.last_used_day for record in store.list()} == {TODAY}
    assert failures.empty()


def test_a_day_that_could_not_be_written_is_told_and_tried_at_the_next_use(
    store, minted_before, last_use, held, failures
):
    """Fault pair, first half: the write failed and did not persist; the request was let in all the same."""
    key = minted_before[0]
    uses = last_use(busy_s=0.0)
    desk = Authenticator(store, [PEPPER], uses.note)
    for _ in range(2):
        assert isinstance(desk.authenticate([bearer(key)], b"", NOW_US), Authenticated)
        failure = failures.get()
        assert isinstance(failure, KeyStoreUnusable)
        assert "locked" in str(failure)
    held.execute("ROLLBACK")
    assert isinstance(desk.authenticate([bearer(key)], b"", NOW_US), Authenticated)
    uses.close()
    assert store.find(key.key_id).last_used_day == TODAY
    assert failures.empty()


def test_a_day_that_was_written_though_the_write_failed_is_not_written_again(
    store, minted, last_use, failures, monkeypatch
):
    """Fault pair, second half: the caller got an error, the file has the day; the next use sees it."""
    key = minted()
    written: list[int] = []
    real = KeyFile.note_use

    def write_then_fail(file, key_ids, day):
        real(file, key_ids, day)
        written.append(day)
        raise OSError("a bug or a disk")

    monkeypatch.setattr(KeyFile, "note_use", write_then_fail)
    uses = last_use(busy_s=PATIENT_S)
    desk = Authenticator(store, [PEPPER], uses.note)
    desk.authenticate([bearer(key)], b"", NOW_US)
    assert isinstance(failures.get(), OSError)
    desk.authenticate([bearer(key)], b"", NOW_US)
    uses.close()
    assert written == [TODAY]
    assert store.find(key.key_id).last_used_day == TODAY


def test_uses_within_the_pace_are_one_write(store, minted, last_use, monkeypatch):
    """A morning's first uses do not make the store read its rows once per key."""
    keys = [minted() for _ in range(20)]
    writes: list[list[str]] = []
    real = KeyFile.note_use
    monkeypatch.setattr(
        KeyFile, "note_use", lambda file, key_ids, day: (writes.append(key_ids), real(file, key_ids, day))
    )
    uses = last_use(busy_s=PATIENT_S, pace_s=PATIENT_S)
    for key in keys:
        uses.note(store.find(key.key_id), TODAY)
    uses.close()
    assert sorted(key_id for key_ids in writes for key_id in key_ids) == sorted(key.key_id for key in keys)
    assert len(writes) <= 2  # the first use at once, the others together
    assert {record.last_used_day for record in store.list()} == {TODAY}


@settings(max_examples=30, deadline=None)
@given(days=st.lists(st.lists(st.integers(20_000, 20_005), max_size=4), max_size=4))
def test_the_latest_day_stays(tmp_path_factory, days):
    """Law: whatever days are noted in whatever order, over any number of starts, the file has the latest."""
    path = tmp_path_factory.mktemp("keys") / "keys.db"
    store = KeyStore.create(path)
    record = make_record(mint("dev", random.Random(1).randbytes))
    store.add(record)
    for run in days:
        uses = LastUse(KeyFile.open(path), raised, pace_s=0.0)
        for day in run:
            uses.note(record, day)
        uses.close()
    assert store.find(record.id).last_used_day == max((day for run in days for day in run), default=None)
    store.close()


def raised(failure: Exception) -> None:
    """No write fails here; one that did is shown by the thread."""
    raise failure
