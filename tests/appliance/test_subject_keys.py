"""Whose keys the commitments are made under, and what it means when those cannot be used."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from walk_bench import DEVELOPER, WalkBench, collect, completion

from appliance.audit_trail import key_subject
from appliance.errors import Unavailable
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
    assert keyring.destroy(key_subject(DEVELOPER)) == (ours["key_id"],)
    assert keyring.check(Commitment(theirs["key_id"], theirs["hmac"]), "r", "prompt", b"hello")


def test_no_two_people_have_one_name():
    """Tenant and id do not run into one another."""
    first, second = replace(DEVELOPER, tenant="a", id='b","c'), replace(DEVELOPER, tenant='a","b', id="c")
    assert key_subject(first) != key_subject(second)


async def test_unusable_keys_are_no_fault_of_the_log(bench: WalkBench):
    """Who needs a new key is told so and may be recorded; who has one is served; readiness says it until it is over."""
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
    _, error = await collect(await bench.walk.admit(bench.asking("r4", STRANGER), completion()))
    assert error is None
    assert _obstacles(bench) == []


async def test_keys_that_fail_under_way_fail_the_request_with_its_record(bench: WalkBench):
    """An admitted request whose output cannot be committed to has its terminal leaf with the code, and no answer."""
    running = await bench.walk.admit(bench.asking("r1"), completion())
    bench.trail._keyring._cache.clear()  # what other callers do to a key that is seldom used
    _make_read_only(bench)
    _, error = await collect(running)
    assert isinstance(error, Unavailable)
    assert error.code == "subject_keys_unavailable"
    assert bench.kinds("r1") == ["request:admitted", "request:failed"]
    assert bench.reader.entry(error.receipt.index).leaf.event.facts["code"] == "subject_keys_unavailable"
