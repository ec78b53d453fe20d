"""The operator's routes on a real log and a real key database: recorded before they are done, with a receipt."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest
from perimeter_bench import ROLES, PerimeterBench
from walk_bench import Fault

from appliance.api import operations
from appliance.api.operations import rfc3339
from appliance.remembered import revoke_again
from audit.reader import EntryFilter


def _entries(bench: PerimeterBench, kind: str) -> list:
    return list(bench.reader.entries(EntryFilter(kind=kind)).entries)


async def _revoke(bench: PerimeterBench, role: str):
    async with bench.client("operator") as client:
        return await client.post(f"/keys/{bench.key_ids[role]}/revoke")


async def test_the_list_of_keys_carries_the_receipt_of_its_record(make_perimeter):
    """The header names the `keys:listed` leaf."""
    bench = make_perimeter()
    async with bench.client("operator") as client:
        answer = await client.get("/keys")
    (entry,) = _entries(bench, "keys:listed")
    assert len(answer.json()["data"]) == entry.leaf.event.facts["num_keys"] == len(ROLES)
    assert answer.headers["x-cloister-receipt"] == f"{entry.index}:{entry.leaf_hash.hex()}"


@pytest.mark.parametrize("fault", ["not_persisted", "persisted"])
async def test_a_list_of_keys_that_cannot_be_recorded_is_not_shown(make_perimeter, fault: Fault):
    """Fault pair: 503 without a row of it, and the log verifies."""
    bench = make_perimeter(fail_at=0, fault=fault)
    async with bench.client("operator") as client:
        answer = await client.get("/keys")
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "log_unavailable")
    assert not any(key_id in answer.text for key_id in bench.key_ids.values())
    assert len(_entries(bench, "keys:listed")) == (0 if fault == "not_persisted" else 1)
    assert bench.walk_bench.verify().ok


async def test_a_revocation_carries_its_receipt_and_holds_from_the_next_request_on(make_perimeter):
    """The header names the `key:revoked` leaf, whose subject is the key."""
    bench = make_perimeter()
    answer = await _revoke(bench, "auditor")
    (entry,) = _entries(bench, "key:revoked")
    assert answer.headers["x-cloister-receipt"] == f"{entry.index}:{entry.leaf_hash.hex()}"
    assert (entry.leaf.event.subject, entry.leaf.event.actor) == (bench.key_ids["auditor"], "operator")
    async with bench.client("auditor") as client:
        assert (await client.get("/keys")).status_code == 401


async def test_revoking_again_tells_the_first_time(make_perimeter):
    """The answer says what the key database keeps, not the time of the second order."""
    bench = make_perimeter()
    first_us = 1_700_000_000_000_000
    bench.keys.revoke(bench.key_ids["auditor"], first_us)
    answer = await _revoke(bench, "auditor")
    assert answer.json() == {"id": bench.key_ids["auditor"], "revoked_at": rfc3339(first_us)}
    assert bench.keys.find(bench.key_ids["auditor"]).revoked_at_us == first_us


@pytest.mark.parametrize("fault", ["not_persisted", "persisted"])
async def test_a_revocation_that_cannot_be_recorded_is_not_done_and_not_lost(make_perimeter, fault: Fault):
    """Nothing is done without its record; a record that was durable after all is carried out by the next start."""
    bench = make_perimeter(fail_at=0, fault=fault)
    answer = await _revoke(bench, "auditor")
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "log_unavailable")
    assert "x-cloister-receipt" not in answer.headers
    assert bench.keys.find(bench.key_ids["auditor"]).revoked_at_us is None
    revoked = [bench.key_ids["auditor"]] if fault == "persisted" else []
    assert [entry.leaf.event.subject for entry in _entries(bench, "key:revoked")] == revoked
    assert list(revoke_again(bench.reader, bench.keys)) == revoked
    assert bench.walk_bench.verify().ok


async def test_a_recorded_revocation_holds_while_another_process_has_the_key_database(make_perimeter, monkeypatch):
    """The answer is true although the file cannot say so: the key is refused now, and by the file once it is free."""
    monkeypatch.setattr(operations, "KEYS_BUSY_S", 0.0)
    bench = make_perimeter()
    bench.keys.list()
    key_id = bench.key_ids["auditor"]
    with closing(sqlite3.connect(bench.keys._file.path, isolation_level=None)) as foreign:
        foreign.execute("BEGIN IMMEDIATE")
        answer = await _revoke(bench, "auditor")
        (entry,) = _entries(bench, "key:revoked")
        assert (answer.status_code, answer.json()["id"]) == (200, key_id)
        assert answer.headers["x-cloister-receipt"] == f"{entry.index}:{entry.leaf_hash.hex()}"
        async with bench.client("auditor") as client:
            assert (await client.get("/keys")).status_code == 401
        assert _on_file(foreign, key_id) is None
        foreign.execute("UPDATE api_keys SET last_used_day = 7")
        foreign.execute("COMMIT")
        async with bench.client("auditor") as client:
            assert (await client.get("/keys")).status_code == 401
        assert rfc3339(_on_file(foreign, key_id)) == answer.json()["revoked_at"]
    assert revoke_again(bench.reader, bench.keys) == ()


def _on_file(foreign: sqlite3.Connection, key_id: str) -> int | None:
    ((at_us,),) = foreign.execute("SELECT revoked_at_us FROM api_keys WHERE id = ?", (key_id,)).fetchall()
    return at_us
