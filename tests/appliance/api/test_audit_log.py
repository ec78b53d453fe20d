"""The auditor's routes on a real log: recorded before they are answered, with a receipt, beside the event loop."""

from __future__ import annotations

import json
import threading

import pytest
from walk_bench import Fault

from appliance.api import audit_log
from audit.canonical import digest_of
from audit.errors import AuditCorrupt
from audit.reader import AuditReader, EntryFilter
from audit.search.parser import parse_filter

READS = ("/audit/entries", "/audit/entries/0", "/audit/entries/0/proof", "/audit/checkpoint")


def _reads(bench) -> list:
    return list(bench.reader.entries(EntryFilter(kind="log:read")).entries)


@pytest.mark.parametrize("path", [*READS, "/audit/entries/99"])
async def test_every_read_carries_the_receipt_of_its_record(make_perimeter, path: str):
    """Also a read that found nothing: the header names the `log:read` leaf, by index and hash."""
    bench = make_perimeter()
    async with bench.client("auditor") as client:
        answer = await client.get(path)
    (entry,) = _reads(bench)
    assert answer.status_code == (404 if path.endswith("99") else 200)
    assert answer.headers["x-cloister-receipt"] == f"{entry.index}:{entry.leaf_hash.hex()}"
    assert entry.leaf.event.subject == answer.headers["x-request-id"]


@pytest.mark.parametrize("fault", ["not_persisted", "persisted"])
@pytest.mark.parametrize("path", READS)
async def test_a_read_that_cannot_be_recorded_shows_nothing(make_perimeter, monkeypatch, path: str, fault: Fault):
    """When `log:read` fails, persisted or not, the answer is 503 and not a row was read; the log verifies."""
    bench = make_perimeter(fail_at=0, fault=fault)

    def never(*_arguments, **_named):
        raise AssertionError("the log was read")

    with monkeypatch.context() as patch:
        for name in ("entries", "entry", "proof", "head"):
            patch.setattr(AuditReader, name, never)
        async with bench.client("auditor") as client:
            answer = await client.get(path)
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "log_unavailable")
    assert "x-cloister-receipt" not in answer.headers
    assert len(_reads(bench)) == (0 if fault == "not_persisted" else 1)
    assert bench.walk_bench.verify().ok


async def test_a_log_that_cannot_be_read_is_said_with_the_receipt_of_the_attempt(make_perimeter, monkeypatch):
    """The read was recorded and failed: 503 in words of its own, since nothing is wrong with recording."""
    bench = make_perimeter()

    def damaged(*_arguments):
        raise AuditCorrupt(0, "a canary")

    with monkeypatch.context() as patch:
        patch.setattr(AuditReader, "head", damaged)
        async with bench.client("auditor") as client:
            answer = await client.get("/audit/checkpoint")
    (entry,) = _reads(bench)
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "log_unreadable")
    assert "canary" not in answer.text
    assert answer.headers["x-cloister-receipt"] == f"{entry.index}:{entry.leaf_hash.hex()}"
    assert bench.walk_bench.door.obstacles == ()


@pytest.mark.parametrize("path", ["/audit/entries", "/audit/entries/0"])
async def test_bodies_are_made_beside_the_event_loop(make_perimeter, monkeypatch, path: str):
    """A page is up to a thousand leaves to decode: everybody's tokens wait for what the loop does itself."""
    bench = make_perimeter()
    threads: set[int] = set()
    shown = audit_log.entry_body

    def watched(entry):
        threads.add(threading.get_ident())
        return shown(entry)

    monkeypatch.setattr(audit_log, "entry_body", watched)
    async with bench.client("auditor") as client:
        answer = await client.get(path)
    body = answer.json()
    (entry,) = body["data"] if path == "/audit/entries" else [body]
    assert entry["entry"] == json.loads(entry["leaf"])
    assert threads
    assert threading.get_ident() not in threads


@pytest.mark.parametrize(
    ("query", "code", "param"),
    [
        ("unknown=1", "unknown_parameter", "unknown"),
        ("order=up", "bad_value", "order"),
        ("order=asc&order=desc", "bad_value", None),
        ("limit=0", "bad_value", "limit"),
        ("after=-1", "bad_value", "after"),
        ("actor=" + "x" * 257, "bad_value", "actor"),
        ("actor=a%00b", "bad_value", "actor"),
        ("filter=actr%3Dada", "bad_filter", "filter"),
        ("filter=" + "%28" * 40, "bad_filter", "filter"),
        ("filter=actor%3D%22ada", "bad_filter", "filter"),
        ("filter=" + "x" * 4097, "bad_filter", "filter"),
    ],
)
async def test_a_query_that_cannot_be_meant_is_refused_before_it_is_recorded(
    make_perimeter, query: str, code: str, param: str | None
):
    """400 by name, and no record of a read that did not happen."""
    bench = make_perimeter()
    async with bench.client("auditor") as client:
        answer = await client.get(f"/audit/entries?{query}")
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (400, code, param)
    assert _reads(bench) == []


async def test_a_shorthand_is_the_same_query_as_its_long_form(make_perimeter):
    """Same entries, and the same filter and digest in the record of the read."""
    bench = make_perimeter()
    async with bench.client("auditor") as client:
        await client.get("/audit/checkpoint")
        short = await client.get("/audit/entries?kind=log:read&actor=auditor")
        long = await client.get("/audit/entries?filter=kind%3Dlog:read%20and%20actor%3Dauditor")
    first, second, third = _reads(bench)
    assert [row["index"] for row in short.json()["data"]] == [first.index, second.index]
    assert [row["index"] for row in long.json()["data"]] == [first.index, second.index, third.index]
    assert second.leaf.event.facts["filter"] == "actor=auditor and kind=log:read"
    assert third.leaf.event.facts["filter"] == "kind=log:read and actor=auditor"


async def test_a_recorded_query_can_be_asked_again_and_gives_the_same(make_perimeter):
    """The record says all that the answer depends on: the query, and its own place in the log."""
    bench = make_perimeter()
    async with bench.client("auditor") as client:
        said = (await client.get("/audit/entries?filter=kind%3Dlog:read&order=desc&limit=2")).json()["data"]
        await client.get("/audit/checkpoint")
    (record, _) = _reads(bench)
    facts = record.leaf.event.facts
    asked = {name: facts[name] for name in ("what", "filter", "limit", "after", "order")}
    assert facts["query_sha256"] == digest_of(asked)
    again = bench.reader.entries(
        parse_filter(facts["filter"]), limit=facts["limit"], newest=True, size=record.index + 1
    )
    assert [entry.leaf_hash.hex() for entry in again.entries] == [row["leaf_hash"] for row in said]
