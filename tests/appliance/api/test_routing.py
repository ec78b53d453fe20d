"""The way in, over the real perimeter and a real log: whatever goes wrong, one answer and one record."""

from __future__ import annotations

import asyncio

import pytest

from appliance.api.route_spec import RouteSpec
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
