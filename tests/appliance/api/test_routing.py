"""The way in, over the real perimeter and a real log: whatever goes wrong, one answer and one record."""

from __future__ import annotations

import asyncio
import json

import pytest
from walk_bench import Fault

from appliance.api.openai_completions_answer import CompletionsAnswer
from appliance.api.route_spec import RouteSpec
from appliance.api.routes import ROUTES
from appliance.choice_text import ChoiceText
from audit.reader import EntryFilter

BODY = {"model": "starter", "prompt": "Once", "max_tokens": 1}


class Panic(BaseException):
    """As pyo3's `PanicException`: a library's bug that is no `Exception`."""


def _broken_route(fault: type[BaseException], path: str = "/v1/broken") -> RouteSpec:
    async def endpoint(_call):
        raise fault("a canary")

    return RouteSpec(path, "POST", "infer", None, endpoint, "Breaks")


def _kinds(bench, **conditions) -> list[str]:
    return [entry.leaf.event.kind for entry in bench.reader.entries(EntryFilter(**conditions)).entries]


@pytest.mark.parametrize("fault", [Panic, LookupError, RecursionError])
async def test_a_library_s_panic_is_a_500_and_a_record(make_perimeter, fault: type[BaseException]):
    """An endpoint that breaks, by an exception or a panic, leaves its caller an error body and the log a refusal."""
    bench = make_perimeter(extra_routes=(_broken_route(fault),))
    async with bench.client("developer") as client:
        answer = await client.post("/v1/broken", json=BODY)
    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "internal_error")
    assert "canary" not in answer.text
    (entry,) = bench.reader.entries(EntryFilter(subject=answer.headers["x-request-id"])).entries
    assert (entry.leaf.event.kind, entry.leaf.event.facts["code"]) == ("request:refused", "internal_error")
    assert answer.headers["x-cloister-receipt"] == f"{entry.index}:{entry.leaf_hash.hex()}"


@pytest.mark.parametrize("end", [asyncio.CancelledError, SystemExit, KeyboardInterrupt])
async def test_what_ends_the_task_is_not_answered(make_perimeter, end: type[BaseException]):
    """A stop of the task or the process passes through: it is no call's fault, and nobody waits for an answer."""
    bench = make_perimeter(extra_routes=(_broken_route(end),))
    async with bench.client("developer") as client:
        with pytest.raises(end):
            await client.post("/v1/broken", json=BODY)
    assert _kinds(bench) == []


async def test_an_answer_that_breaks_after_its_admission_has_one_end(make_perimeter, monkeypatch):
    """A bug in a dialect's body is the walk's to record: a terminal leaf, and no `request:refused` beside it."""
    bench = make_perimeter()

    def broken(*_arguments):
        raise Panic("a canary")

    monkeypatch.setattr(CompletionsAnswer, "whole", broken)
    async with bench.client("developer") as client:
        answer = await client.post("/v1/completions", json=BODY)
    await bench.walk_bench.walk.settle()
    assert answer.status_code == 500
    admitted, end = bench.reader.entries(EntryFilter(subject=answer.headers["x-request-id"])).entries
    assert admitted.leaf.event.kind == "request:admitted"
    assert end.leaf.event.kind == "request:completed"
    assert answer.headers["x-cloister-receipt"] == f"{admitted.index}:{admitted.leaf_hash.hex()}"


@pytest.mark.parametrize("fault", [Panic, LookupError])
async def test_a_panic_while_tokens_become_text_has_its_end(make_perimeter, monkeypatch, fault: type[BaseException]):
    """The tokenizer is a library too: the request fails with its terminal leaf, and nobody waits for ever."""
    bench = make_perimeter()

    def broken(*_arguments):
        raise fault("a canary")

    monkeypatch.setattr(ChoiceText, "take", broken)
    async with bench.client("developer") as client:
        answer = await client.post("/v1/completions", json=BODY)
    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "internal_error")
    assert _kinds(bench, subject=answer.headers["x-request-id"]) == ["request:admitted", "request:failed"]
    assert bench.walk_bench.walk.num_running == 0


@pytest.mark.parametrize(
    ("phase", "code", "kinds"),
    [
        ("prompt", "internal_error", ["request:refused"]),
        ("output", "record_refused", ["request:admitted", "request:failed"]),
    ],
)
async def test_a_panic_in_a_commitment_costs_the_request_not_its_record(
    make_perimeter, monkeypatch, phase: str, code: str, kinds: list[str]
):
    """The cryptography is a library too: each leaf has its stand-in, and no prompt reaches the engine without one."""
    bench = make_perimeter()
    commit = bench.walk_bench.trail.commitment

    def broken(actor, request_id, now, content, **bound):
        if now == phase:
            raise Panic("a canary")
        return commit(actor, request_id, now, content, **bound)

    monkeypatch.setattr(bench.walk_bench.trail, "commitment", broken)
    async with bench.client("developer") as client:
        answer = await client.post("/v1/completions", json=BODY)
    assert (answer.status_code, answer.json()["error"]["code"]) == (500, code)
    assert _kinds(bench, subject=answer.headers["x-request-id"]) == kinds
    assert len(bench.walk_bench.engine.streams) == kinds.count("request:admitted")


@pytest.mark.parametrize("fault", ["not_persisted", "persisted"])
async def test_a_refusal_that_cannot_be_recorded_is_not_spoken(make_perimeter, fault: Fault):
    """The caller hears 503 in its place, persisted or not; then nothing is admitted, and the log verifies."""
    bench = make_perimeter(fail_at=0, fault=fault)
    async with bench.client("developer") as client:
        refused = await client.post("/v1/completions", json={**BODY, "no_such_field": 1})
        later = await client.post("/v1/completions", json=BODY)
    for answer in (refused, later):
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "log_unavailable")
        assert "x-cloister-receipt" not in answer.headers
    assert "no_such_field" not in refused.text
    assert _kinds(bench) == ([] if fault == "not_persisted" else ["request:refused"])
    assert bench.walk_bench.engine.streams == []
    assert bench.walk_bench.verify().ok


ROLE_FOR = {
    **dict.fromkeys(("infer", "tokenize", "readSpec", "listModels"), "developer"),
    **dict.fromkeys(("proposePrune", "proposeRetention"), "operator"),
    **dict.fromkeys(("approvePrune", "approveRetention", "eraseSubject", "placeHold", "proposeRelease"), "privacy"),
}
"""Action -> a role that policy lets by; the auditor for any other."""


@pytest.mark.parametrize("route", [route for route in ROUTES if not route.query], ids=lambda route: route.path)
async def test_a_query_parameter_that_does_not_exist_is_refused_on_every_route(make_perimeter, route: RouteSpec):
    """Nothing is dropped silently: 400 by name before anything is done, on an inference with its record."""
    bench = make_perimeter()
    role = ROLE_FOR.get(route.action, "auditor")
    path = route.path.replace("{id}", "x").replace("{index}", "0")
    async with bench.client(role) as client:
        answer = await client.request(route.method, path, params={"limit": "1"})
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (400, "unknown_parameter", "limit")
    assert _kinds(bench) == (["request:refused"] if route.action == "infer" else [])


@pytest.mark.parametrize("path", ["/livez", "/readyz"])
async def test_a_query_parameter_of_an_open_route_is_refused(make_perimeter, path: str):
    """The routes that need no credential take no parameter either."""
    async with make_perimeter().client(None) as client:
        answer = await client.get(path, params={"verbose": ""})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "unknown_parameter")


SECRET_ID = "Patient-Mueller:1970-01-01:HIV_positive"


@pytest.mark.parametrize("body", [BODY, {**BODY, "no_such_field": 1}, {**BODY, "user": "u"}])
async def test_a_caller_s_own_id_is_in_no_record_and_no_answer(make_perimeter, body: dict):
    """What a client writes into x-request-id is its text: the id of the call is ours, in leaves as in the answer."""
    bench = make_perimeter()
    async with bench.client("developer") as client:
        answer = await client.post("/v1/completions", json=body, headers={"x-request-id": SECRET_ID})
    assert answer.headers["x-request-id"].startswith("req-")
    entries = bench.reader.entries(EntryFilter()).entries
    assert {entry.leaf.event.subject for entry in entries} == {answer.headers["x-request-id"]}
    for text in (answer.text, str(answer.headers), *(entry.leaf_bytes.decode() for entry in entries)):
        assert "Mueller" not in text


@pytest.mark.parametrize("said", [{}, {"user": "u"}])
async def test_a_caller_s_own_id_is_committed_to_in_the_admission(make_perimeter, said: dict):
    """Who has the subject's key can show which id, and which `user`, the request came with."""
    bench = make_perimeter()
    made: dict[str, bytes] = {}
    trail = bench.walk_bench.trail
    commit = trail.commitment

    def committed(actor, request_id, phase, content, **bound):
        made[phase] = content
        return commit(actor, request_id, phase, content, **bound)

    trail.commitment = committed
    async with bench.client("developer") as client:
        answer = await client.post("/v1/completions", json={**BODY, **said}, headers={"x-request-id": SECRET_ID})
    admitted = bench.reader.entries(EntryFilter(subject=answer.headers["x-request-id"])).entries[0].leaf.event
    assert json.loads(made["declared"]) == {**said, "x-request-id": SECRET_ID}
    assert set(admitted.facts["commitments"]) == {"prompt", "declared"}


@pytest.mark.parametrize("value", ["x" * 513, "p\u00fcmp"])
async def test_an_own_id_that_cannot_be_committed_to_is_refused_by_name(make_perimeter, value: str):
    """Too long or no plain characters: refused, never cut or dropped."""
    bench = make_perimeter()
    async with bench.client("developer") as client:
        answer = await client.post("/v1/completions", json=BODY, headers=[(b"x-request-id", value.encode("latin-1"))])
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "x-request-id")
    assert _kinds(bench) == ["request:refused"]


@pytest.mark.parametrize("path", ["/v1/models%0A", "/audit/entries/0/proof%0A"])
async def test_a_path_with_a_newline_at_its_end_is_no_route(make_perimeter, path: str):
    """One spelling per route."""
    async with make_perimeter().client("auditor") as client:
        answer = await client.get(path)
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "route_not_found")
