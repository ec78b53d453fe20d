"""Reports, counts and reviews over a real log: recorded before and after, one at a time, proven by their own file."""

from __future__ import annotations

import asyncio
import json

import pytest
from walk_bench import SIGNER, Fault

from appliance.reports.registry import REPORTS
from appliance.reports.report_file import check_report
from appliance.reports.text import report_text
from audit.canonical import digest_of
from audit.checkpoint import LogSigner
from audit.errors import AuditCorrupt, ProofRefused
from audit.reader import AuditReader, EntryFilter

OTHER = LogSigner.from_seed(SIGNER.name, b"\x09" * 32)
KEYS = [SIGNER.verifier]


def _kinds(bench) -> list[str]:
    return [entry.leaf.event.kind for entry in bench.reader.entries(limit=1000).entries]


async def _some_reads(client, count: int = 3) -> None:
    for _ in range(count):
        await client.get("/audit/checkpoint")


@pytest.mark.parametrize("report", REPORTS)
async def test_every_report_runs_proves_itself_and_reads_as_text(make_perimeter, report: str):
    """On a real log, through policy, with the log's key alone afterwards."""
    bench = make_perimeter()
    async with bench.client("auditor") as client:
        await _some_reads(client)
        answer = await client.post(f"/audit/reports/{report}", json={})
    assert answer.status_code == 200, answer.text
    checked = check_report(answer.content, KEYS)
    run, made = (bench.reader.entry(leaf.index) for leaf in (checked.run, checked.made))
    assert (run.index, made.index) == (3, 4)
    assert answer.headers["x-cloister-receipt"] == f"{made.index}:{made.leaf_hash.hex()}"
    assert made.leaf.event.facts["document_sha256"] == digest_of(checked.document)
    assert run.leaf.event.facts["query_sha256"] == digest_of(checked.document["query"])
    assert run.leaf.event.actor == made.leaf.event.actor == "auditor"
    assert checked.document["log"] == {"origin": SIGNER.name, "size": run.index + 1}
    shown = report_text(checked.document)
    assert shown.startswith(f"{report} {REPORTS[report].title}, version ")
    assert "FINDINGS" in shown
    assert len(shown.splitlines()) > 4


@pytest.mark.parametrize("fault", ["not_persisted", "persisted"])
async def test_a_run_that_cannot_be_recorded_reads_nothing(make_perimeter, monkeypatch, fault: Fault):
    """503, and not a row was read."""
    bench = make_perimeter(fail_at=0, fault=fault)

    def never(*_arguments, **_named):
        raise AssertionError("the log was read")

    with monkeypatch.context() as patch:
        for name in ("entries", "walk", "entry", "proof", "head"):
            patch.setattr(AuditReader, name, never)
        async with bench.client("auditor") as client:
            for answer in (
                await client.post("/audit/reports/R3", json={}),
                await client.get("/audit/aggregates?by=kind"),
            ):
                assert (answer.status_code, answer.json()["error"]["code"]) == (503, "log_unavailable")


@pytest.mark.parametrize("fault", ["not_persisted", "persisted"])
async def test_a_result_that_cannot_be_recorded_is_not_shown(make_perimeter, fault: Fault):
    """The run has its record, the answer is 503, and the result's digest is in the log or nobody saw the result."""
    bench = make_perimeter(fail_at=1, fault=fault)
    async with bench.client("auditor") as client:
        answer = await client.post("/audit/reports/R3", json={})
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "log_unavailable")
    assert "document" not in answer.text
    assert _kinds(bench) == ["report:run"] + (["report:made"] if fault == "persisted" else [])


async def test_a_run_that_breaks_leaves_its_record_and_the_next_access_report_names_it(make_perimeter, monkeypatch):
    """As a crash between the two records does."""
    bench = make_perimeter()

    def damaged(*_arguments, **_named):
        raise AuditCorrupt(0, "a canary")

    async with bench.client("auditor") as client:
        with monkeypatch.context() as patch:
            patch.setattr(AuditReader, "entries", damaged)
            broken = await client.post("/audit/reports/R3", json={})
        answer = await client.post("/audit/reports/R11", json={})
    assert (broken.status_code, broken.json()["error"]["code"]) == (503, "log_unreadable")
    assert "canary" not in broken.text
    assert check_report(answer.content, KEYS).document["result"]["unfinished_runs"] == [0]


async def test_the_same_report_of_the_same_log_is_the_same(make_perimeter):
    """Two runs over one window differ in nothing but the size of the log that they were run on."""
    bench = make_perimeter()
    async with bench.client("auditor") as client:
        await _some_reads(client)
        window = {"to": "2200-01-01", "seed": 7}
        files = [(await client.post("/audit/reports/R12", json=window)).content for _ in range(2)]
    first, second = (check_report(file, KEYS).document for file in files)
    assert first["query"] == second["query"]
    assert (first["log"]["size"], second["log"]["size"]) == (4, 6)


def _changed(path: tuple[str, ...], change):
    def tamper(file):
        place = file
        for name in path[:-1]:
            place = place[name]
        place[path[-1]] = change(place[path[-1]])

    return tamper


def _swap_evidence(file):
    file["run"], file["made"] = file["made"], file["run"]


def _move_run(file):
    file["run"] = file["made"]


TAMPERS = {
    "a figure of the result": _changed(("document", "result", "num_entries"), lambda value: value + 1),
    "a finding that was left out": _changed(("document", "result", "findings"), lambda _: ["x"]),
    "another window": _changed(("document", "query", "until"), lambda _: "2027-01-01T00:00:00.000000Z"),
    "another size of the log": _changed(("document", "log", "size"), lambda value: value + 1),
    "another origin": _changed(("document", "log", "origin"), lambda _: "other.log/x"),
    "another title": _changed(("document", "title"), lambda _: "Completeness"),
    "another format": _changed(("document", "format_version"), lambda _: 2),
    "a member more": lambda file: file.update(extra=1),
    "a member less": lambda file: file.pop("run"),
    "the two records swapped": _swap_evidence,
    "one record twice": _move_run,
    "a leaf's word": _changed(("made", "leaf"), lambda text: text.replace("auditor", "officer")),
    "a proof's hash": _changed(("run", "proof"), lambda text: text.replace("index 3", "index 2")),
    "no proof": _changed(("made", "proof"), lambda _: ""),
    "a leaf that is no text": _changed(("made", "leaf"), lambda _: 7),
}


@pytest.mark.parametrize("tamper", TAMPERS.values(), ids=TAMPERS.keys())
async def test_a_file_that_was_altered_does_not_check(make_perimeter, tamper):
    """Whatever was altered."""
    bench = make_perimeter()
    async with bench.client("auditor") as client:
        await _some_reads(client)
        content = (await client.post("/audit/reports/R3", json={})).content
    check_report(content, KEYS)
    file = json.loads(content)
    tamper(file)
    with pytest.raises(ProofRefused):
        check_report(json.dumps(file).encode(), KEYS)


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b"\xff", b"null", b'{"a":1,"a":2}', b"[" * 100_000, b"NaN"])
def test_what_is_no_report_is_refused_in_our_words(content: bytes):
    """Never a traceback."""
    with pytest.raises(ProofRefused):
        check_report(content, KEYS)


async def test_a_report_of_another_key_does_not_check(make_perimeter):
    """The key decides, and nothing in the file."""
    bench = make_perimeter()
    async with bench.client("auditor") as client:
        content = (await client.post("/audit/reports/R3", json={})).content
    with pytest.raises(ProofRefused):
        check_report(content, [OTHER.verifier])


@pytest.mark.parametrize("role", ["developer", "operator"])
async def test_whom_policy_does_not_name_gets_no_report(make_perimeter, role: str):
    """Denied, with a record of the denial."""
    bench = make_perimeter()
    async with bench.client(role) as client:
        report = await client.post("/audit/reports/R1", json={})
        counts = await client.get("/audit/aggregates")
        review = await client.post("/audit/reviews", json={})
    assert {report.status_code, counts.status_code, review.status_code} == {403}
    assert set(_kinds(bench)) == {"request:denied"}


@pytest.mark.parametrize(
    ("path", "body", "status", "code", "param"),
    [
        ("/audit/reports/R99", {}, 404, "report_not_found", "id"),
        ("/audit/reports/R1", {"from": "yesterday"}, 400, "bad_value", "from"),
        ("/audit/reports/R1", {"from": "2026-02-01", "to": "2026-01-01"}, 400, "bad_value", "to"),
        ("/audit/reports/R1", {"seed": 1}, 400, "bad_value", "seed"),
        ("/audit/reports/R1", {"subject": "x"}, 400, "bad_value", "subject"),
        ("/audit/reports/R12", {"sample": 0}, 400, "bad_value", "sample"),
        ("/audit/reports/R12", {"sample": 1001}, 400, "bad_value", "sample"),
        ("/audit/reports/R1", {"colour": 1}, 400, "unknown_parameter", "colour"),
        ("/audit/reviews", {"from": "2026-01-01"}, 400, "missing_parameter", "to"),
    ],
)
async def test_a_body_that_cannot_be_meant_is_refused_before_it_is_recorded(
    make_perimeter, path, body, status, code, param
):
    """By name, and no record of a run that did not happen."""
    bench = make_perimeter()
    async with bench.client("auditor") as client:
        answer = await client.post(path, json=body)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (status, code, param)
    assert _kinds(bench) == []


async def test_one_long_reading_at_a_time(make_perimeter):
    """The second is told to come again; the first is made to its end."""
    bench = make_perimeter()
    reading = bench.appliance.one_long_reading
    async with bench.client("auditor") as client:
        async with reading:
            answers = await asyncio.gather(
                client.post("/audit/reports/R1", json={}), client.get("/audit/aggregates?by=kind")
            )
            for answer in answers:
                assert (answer.status_code, answer.json()["error"]["code"]) == (429, "audit_busy")
                assert answer.headers["retry-after"] == "5"
        assert (await client.post("/audit/reports/R1", json={})).status_code == 200
    assert _kinds(bench) == ["report:run", "report:made"]


async def test_counts_are_of_the_log_up_to_their_own_record(make_perimeter):
    """Recorded first with the digest of the question, counted from leaves."""
    bench = make_perimeter()
    async with bench.client("auditor") as client:
        await _some_reads(client)
        answer = (await client.get("/audit/aggregates?by=kind,actor&filter=actor%3Dauditor")).json()
        bad = await client.get("/audit/aggregates?by=colour")
    assert answer["groups"] == [
        {"key": {"kind": "log:read", "actor": "auditor"}, "count": 4, "totals": {}, "quantiles": {}}
    ]
    assert (answer["size"], answer["num_entries"]) == (4, 4)
    facts = bench.reader.entry(3).leaf.event.facts
    asked = {name: facts[name] for name in ("what", "filter", "by")}
    assert (facts["query_sha256"], facts["filter"]) == (digest_of(asked), "actor=auditor")
    assert (bad.status_code, bad.json()["error"]["param"]) == (400, "by")
    assert len(_kinds(bench)) == 4


async def test_a_review_is_signed_over_what_was_examined(make_perimeter):
    """The notes stay with the reviewer unless they are to be kept; what was examined must be a report's result."""
    bench = make_perimeter()
    window = {"from": "2026-01-01", "to": "2199-12-31", "outcome": "no_findings", "notes": "a canary"}
    async with bench.client("auditor") as client:
        made = check_report((await client.post("/audit/reports/R1", json={})).content, KEYS).made.index
        signed = await client.post("/audit/reviews", json={**window, "examined": [made]})
        kept = await client.post("/audit/reviews", json={**window, "keep_notes": True})
        wrong = await client.post("/audit/reviews", json={**window, "examined": [made - 1]})
        reviews = check_report(
            (await client.post("/audit/reports/R10", json={"from": "2026-01-01", "to": "2199-12-31"})).content, KEYS
        )
    first, second = (
        entry.leaf.event.facts for entry in bench.reader.entries(EntryFilter(kind="review:signed_off")).entries
    )
    assert "notes" not in first
    assert (second["notes"], first["notes_sha256"]) == ("a canary", second["notes_sha256"])
    assert (first["examined"], signed.json()["outcome"], kept.status_code) == ([made], "no_findings", 200)
    assert (wrong.status_code, wrong.json()["error"]["param"]) == (400, "examined")
    assert reviews.document["result"]["num_reviews"] == 2
    signed_at = max(one["signed_at"] for one in reviews.document["result"]["reviews"])
    (since,) = reviews.document["result"]["not_reviewed"]
    assert signed_at == since["covers_from"] < since["covers_until"], "from the last signature until the run"
