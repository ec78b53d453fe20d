"""Whose keys the commitments are made under, and what it means when those cannot be used."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from walk_bench import DEVELOPER, WalkBench, collect, completion

from appliance import recorder
from appliance.audit_trail import key_subject
from appliance.errors import Unavailable
from audit.errors import KeyringUnusable
from audit.subject_keys.commitment import Commitment

STRANGER = replace(DEVELOPER, id="sam")


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[WalkBench]:
    """One walk on a real log."""
    made = WalkBench(tmp_path)
    yield made
    made.close()


def _database(bench: WalkBench) -> sqlite3.Connection:
    with bench.trail._keyring._file._engine.connect() as connection:
        return connection.connection.dbapi_connection


def _make_read_only(bench: WalkBench) -> None:
    _database(bench).execute("PRAGMA query_only=ON")  # what a file system that became read-only says


def _make_writable(bench: WalkBench) -> None:
    _database(bench).execute("PRAGMA query_only=OFF")


def _obstacles(bench: WalkBench) -> list[str]:
    return [obstacle.code for obstacle in bench.door.obstacles]


async def test_the_same_id_in_two_tenants_is_two_people(bench: WalkBench):
    """Erasing one tenant's `dana` takes nothing from the other tenant's."""
    other = replace(DEVELOPER, tenant="plant-2")
    ours, theirs = (bench.trail.commitment(who, "r", "prompt", b"hello") for who in (DEVELOPER, other))
    assert ours["key_id"] != theirs["key_id"]
    assert bench.trail.commitment(DEVELOPER, "r2", "prompt", b"x")["key_id"] == ours["key_id"]
    keyring = bench.trail._keyring
    assert keyring.destroy(keyring.keys_of(key_subject(DEVELOPER.tenant, DEVELOPER.id)).living) == (ours["key_id"],)
    assert keyring.check(Commitment(theirs["key_id"], theirs["hmac"]), "r", "prompt", b"hello")


def test_no_two_people_have_one_name():
    """Tenant and id do not run into one another."""
    first, second = replace(DEVELOPER, tenant="a", id='b","c'), replace(DEVELOPER, tenant='a","b', id="c")
    assert key_subject(first.tenant, first.id) != key_subject(second.tenant, second.id)


async def test_unusable_keys_are_no_fault_of_the_log(bench: WalkBench, monkeypatch: pytest.MonkeyPatch):
    """Who needs a new key is told so and may be recorded; who has one is served; readiness says it until it is over."""
    monkeypatch.setattr(recorder, "KEYS_PACE_S", 0.0)
    await collect(await bench.walk.admit(bench.asking("r1"), completion()))
    _make_read_only(bench)
    with pytest.raises(Unavailable) as refusal:
        await bench.walk.admit(bench.asking("r2", STRANGER), completion())
    assert refusal.value.code == "subject_keys_unavailable"
    assert not refusal.value.recorded
    assert _obstacles(bench) == ["subject_keys_unavailable"]
    await bench.recorder.refusal(bench.asking("r2", STRANGER), refusal.value)
    assert bench.kinds("r2") == ["request:refused"]

    _, error = await collect(await bench.walk.admit(bench.asking("r3"), completion()))
    assert error is None
    assert _obstacles(bench) == ["subject_keys_unavailable"], "a key in memory says nothing of the file"

    _make_writable(bench)
    await bench.recorder._keys_watch
    assert _obstacles(bench) == [], "found out without any request"
    _, error = await collect(await bench.walk.admit(bench.asking("r4", STRANGER), completion()))
    assert error is None


async def test_a_lock_in_foreign_hands_is_a_no_and_holds_up_nobody(bench: WalkBench, monkeypatch: pytest.MonkeyPatch):
    """A new person is refused, whoever has a key is served, in memory or not; SQLite never waits, on any connection."""
    monkeypatch.setattr(recorder, "KEYS_PACE_S", 0.0)
    await collect(await bench.walk.admit(bench.asking("r1"), completion()))
    assert _database(bench).execute("PRAGMA busy_timeout").fetchall() == [(0,)]
    with closing(sqlite3.connect(bench.trail._keyring._file.path, isolation_level=None)) as foreign:
        foreign.execute("BEGIN IMMEDIATE")
        with pytest.raises(Unavailable) as refusal:
            await bench.walk.admit(bench.asking("r2", STRANGER), completion())
        assert refusal.value.code == "subject_keys_unavailable"
        proofs = _count_proofs(bench, monkeypatch)
        for request_id, forget in (("r3", False), ("r4", True)):
            if forget:
                bench.trail._keyring._cache.clear()
            running = await bench.walk.admit(bench.asking(request_id), completion())
            _, error = await collect(running)
            assert error is None
            assert bench.kinds(request_id) == ["request:admitted", "request:completed"]
        assert _obstacles(bench) == ["subject_keys_unavailable"]
        assert threading.get_ident() not in proofs, "the event loop proves nothing"
        foreign.execute("ROLLBACK")
    await bench.recorder._keys_watch
    assert _obstacles(bench) == []
    assert proofs
    _, error = await collect(await bench.walk.admit(bench.asking("r5", STRANGER), completion()))
    assert error is None


def _count_proofs(bench: WalkBench, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The thread of each proof that the file can be written."""
    threads: list[int] = []
    real = bench.trail._keyring.prove_writable
    monkeypatch.setattr(bench.trail._keyring, "prove_writable", lambda: (threads.append(threading.get_ident()), real()))
    return threads


async def test_keys_that_fail_under_way_fail_the_request_with_its_record(
    bench: WalkBench, monkeypatch: pytest.MonkeyPatch
):
    """An admitted request whose output cannot be committed to has its terminal leaf with the code, and no answer."""
    running = await bench.walk.admit(bench.asking("r1"), completion())

    def refused(_key_id: str) -> None:
        raise KeyringUnusable(bench.path, "disk I/O error", hint="look at the disk")

    bench.trail._keyring._cache.clear()  # many other callers came meanwhile
    monkeypatch.setattr(bench.trail._keyring._file, "by_id", refused)
    _, error = await collect(running)
    assert isinstance(error, Unavailable)
    assert error.code == "subject_keys_unavailable"
    assert bench.kinds("r1") == ["request:admitted", "request:failed"]
    assert bench.reader.entry(error.receipt.index).leaf.event.facts["code"] == "subject_keys_unavailable"
