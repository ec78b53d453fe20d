"""Every way a call can go, as something that a test does to a call: `mode_of(path, name)` gives it."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from asgi_call import AsgiCall
from matrix_bench import TEXT_GIVEN, Caller, MatrixBench
from matrix_setup import CHAT_PATH, INFER_PATHS, TEXT, a_hold, an_unsealing

from appliance.admission import Obstacle
from appliance.audit_trail import Kind
from appliance.recorder import LOG_OBSTACLE
from audit.errors import AuditRefused, KeyringUnusable
from engine.errors import EngineStopped

STOPPING = Obstacle("stopping", "start it again")

Mode = Callable[[MatrixBench, Caller], Awaitable[AsgiCall]]


async def _answered(bench: MatrixBench, caller: Caller) -> AsgiCall:
    return await bench.ask(caller).end()


async def _as_stranger(bench: MatrixBench, caller: Caller) -> AsgiCall:
    return await bench.ask(caller, role=None).end()


async def _with_a_wrong_key(bench: MatrixBench, caller: Caller) -> AsgiCall:
    caller.headers["authorization"] = "Bearer cls_dev_nonsense"
    return await bench.ask(caller, role=None).end()


async def _denied(bench: MatrixBench, caller: Caller) -> AsgiCall:
    return await bench.ask(caller, role=caller.denied_role).end()


def _changed(**changes: Any) -> Mode:
    """Give the mode of a caller that differs in something, or of a body that does."""

    async def mode(bench: MatrixBench, caller: Caller) -> AsgiCall:
        for name, value in changes.items():
            setattr(caller, name, value(caller) if callable(value) else value)
        return await bench.ask(caller).end()

    return mode


def _with_body(body: Callable[[dict[str, Any]], dict[str, Any]]) -> Mode:
    return _changed(body=lambda caller: {**caller.body, **body(caller.body)})


def _raw(piece: bytes) -> Mode:
    async def mode(bench: MatrixBench, caller: Caller) -> AsgiCall:
        return await bench.call(caller).say(piece, more=False).end()

    return mode


async def _never_whole(bench: MatrixBench, caller: Caller) -> AsgiCall:
    return await bench.call(caller).say(b"{", more=True).end()


async def _gone_before_whole(bench: MatrixBench, caller: Caller) -> AsgiCall:
    call = bench.call(caller).say(b"{", more=True)
    call.leave()
    return await call.end()


def _after(prepare: Callable[[MatrixBench], None]) -> Mode:
    """Give the mode of a call after something was set up."""

    async def mode(bench: MatrixBench, caller: Caller) -> AsgiCall:
        prepare(bench)
        return await bench.ask(caller).end()

    return mode


def _at(place: int, act: Callable[[MatrixBench, AsgiCall], Awaitable[None]]) -> Mode:
    """Give the mode of something that happens while the engine holds the answer before its token `place`."""

    async def mode(bench: MatrixBench, caller: Caller) -> AsgiCall:
        bench.engine.gate, bench.engine.gate_at = asyncio.Event(), place
        bench.engine.submitted.clear()
        call = bench.ask(caller)
        await bench.engine.submitted.wait()
        if place and caller.body and caller.body.get("stream"):
            await call.until(lambda one: len(re.findall(TEXT_GIVEN, one.body)) >= place)
        await act(bench, call)
        return await call.end()

    return mode


async def _leave(bench: MatrixBench, call: AsgiCall) -> None:
    call.leave()
    await bench.walk_bench.walk.settle()
    await bench.walk_bench.replayer.settle()


async def _stop(bench: MatrixBench, _call: AsgiCall) -> None:
    bench.walk_bench.door.shut(STOPPING)
    bench.walk_bench.replayer.cut_short("appliance_stopping")
    await bench.walk_bench.walk.drain(0)
    await bench.walk_bench.replayer.settle()


async def _gone_during_the_admission(bench: MatrixBench, caller: Caller) -> AsgiCall:
    bench.sink.hold = asyncio.Event()
    bench.sink.reached.clear()
    call = bench.ask(caller)
    await bench.sink.reached.wait()
    bench.engine.gate, bench.engine.gate_at = asyncio.Event(), 0
    call.leave()
    bench.sink.hold.set()
    await call.end()
    await bench.walk_bench.walk.settle()
    return call


async def _gone_after_the_end(bench: MatrixBench, caller: Caller) -> AsgiCall:
    """The record of the end is on its way when the client goes: it is written, and says completed."""
    call = await bench.ask(caller).end()
    call.leave()
    return call


async def _slow_reader(bench: MatrixBench, caller: Caller) -> AsgiCall:
    bench.engine.gate, bench.engine.gate_at = asyncio.Event(), 1
    call = bench.call(caller)
    call.stall_at(b'"content":"h' if caller.path == CHAT_PATH else b'"text":"h')
    call.say(json.dumps(caller.body).encode(), more=False)
    await call.end()
    await bench.walk_bench.walk.settle()
    return call


def _set(**changes: Any) -> Callable[[MatrixBench], None]:
    """Give what sets attributes of the scripted engine."""

    def prepare(bench: MatrixBench) -> None:
        for name, value in changes.items():
            setattr(bench.engine, name, value)

    return prepare


def _full_at(place: int) -> Callable[[MatrixBench], None]:
    return lambda bench: setattr(bench.engine, "full_at", len(bench.engine.streams) + place)


def _broken(bench: MatrixBench) -> None:
    bench.engine.broken_at = len(bench.engine.streams)


def _engine_stopped(bench: MatrixBench) -> None:
    def refuse(_request: object) -> None:
        raise EngineStopped("stopped")

    bench.engine.submit = refuse


def _log_fails_after(num_appends: int) -> Callable[[MatrixBench], None]:
    return lambda bench: bench.sink.fail_after(num_appends)


def _busy_after(num_appends: int) -> Callable[[MatrixBench], None]:
    return lambda bench: setattr(bench.sink, "num_until_busy", num_appends)


def _log_halted(bench: MatrixBench) -> None:
    bench.sink.fail_after(0)
    bench.walk_bench.door.shut(LOG_OBSTACLE)


def _stopping(bench: MatrixBench) -> None:
    bench.walk_bench.door.shut(STOPPING)


def _keys_unusable(num_works: int) -> Callable[[MatrixBench], None]:
    """Let so many commitments be made, and none after them."""

    def prepare(bench: MatrixBench) -> None:
        keyring = bench.walk_bench.keyring
        commitment, left = keyring.commitment, [num_works]

        def failing(*args: Any, **named: Any) -> Any:
            left[0] -= 1
            if left[0] < 0:
                raise KeyringUnusable(bench.walk_bench.path, "no space", hint="make room")
            return commitment(*args, **named)

        keyring.commitment = failing

    return prepare


def _end_refused(bench: MatrixBench) -> None:
    append, sink = bench.sink.append, bench.sink

    async def refusing(event: Any, *contents: Any) -> Any:
        if event.kind == Kind.REQUEST_COMPLETED:
            raise AuditRefused("a leaf of that size")
        return await append(event, *contents)

    sink.append = refusing


GENERAL: Mapping[str, Mode] = {
    "answered": _answered,
    "no credential": _as_stranger,
    "wrong credential": _with_a_wrong_key,
    "wrong method": _changed(method="PATCH"),
    "unknown query parameter": _changed(query="colour=blue"),
    "denied": _denied,
    "invalid JSON": _raw(b"{"),
    "unknown field": _with_body(lambda _: {"colour": "blue"}),
    "body too large": _raw(b'"' + b"x" * 4096 + b'"'),
    "body too slow": _never_whole,
    "gone before the body is whole": _gone_before_whole,
    "log fails": _after(_log_fails_after(0)),
    "too many records wait": _after(_busy_after(0)),
    "stopping": _after(_stopping),
    "another model": _with_body(lambda _: {"model": "other"}),
}
INFER_MODES: Mapping[str, Mode] = {
    "prompt and answer too long": _with_body(lambda _: {"max_tokens": 5000}),
    "engine stalled": _after(_set(is_stalled=True)),
    "log halted": _after(_log_halted),
    "log fails at the admission": _after(_log_fails_after(0)),
    "too many records wait at the admission": _after(_busy_after(0)),
    "subject keys unusable": _after(_keys_unusable(0)),
    "two choices": _with_body(lambda _: {"n": 2}),
    "queue full": _after(_full_at(0)),
    "engine stopped": _after(_engine_stopped),
    "engine dies before the first token": _after(_set(error="engine_died", error_at=0)),
    "engine dies in the middle": _after(_set(error="engine_died")),
    "scores not finite": _after(_set(error="nan_logits")),
    "a fault of ours": _after(_broken),
    "gone while the admission is recorded": _gone_during_the_admission,
    "gone before the first token": _at(0, _leave),
    "gone in the middle": _at(1, _leave),
    "gone after the last token": _at(5, _leave),
    "gone after the end": _gone_after_the_end,
    "reader too slow": _slow_reader,
    "stop before the first token": _at(0, _stop),
    "stop in the middle": _at(1, _stop),
    "log fails at the end": _after(_log_fails_after(1)),
    "too many records wait at the end": _after(_busy_after(1)),
    "record of the end is refused": _after(_end_refused),
    "subject keys unusable at the end": _after(_keys_unusable(1)),
    "two prompts": _with_body(lambda _: {"prompt": ["Once", "upon"]}),
    "best_of equal to n": _with_body(lambda _: {"best_of": 2, "n": 2}),
    "best_of above n": _with_body(lambda _: {"best_of": 2}),
}


def _two_choices_and(prepare: Callable[[MatrixBench], None]) -> Mode:
    async def mode(bench: MatrixBench, caller: Caller) -> AsgiCall:
        prepare(bench)
        caller.body = {**(caller.body or {}), "n": 2}
        return await bench.ask(caller).end()

    return mode


async def _unknown_entry(bench: MatrixBench, caller: Caller) -> AsgiCall:
    if caller.body is None:
        caller.path = re.sub(r"/\d+", "/999999", caller.path)
    else:
        caller.body["index"] = 999999
    return await bench.ask(caller).end()


async def _of_somebody_else(bench: MatrixBench, caller: Caller) -> AsgiCall:
    bench.add_key("other", 90, owner="other", tenant="plant-1", roles=("developer",))
    return await bench.ask(caller, role="other").end()


async def _another_replay(bench: MatrixBench, caller: Caller) -> AsgiCall:
    """The first one holds on while the second is turned away; only the second's leaves count."""
    bench.engine.gate = asyncio.Event()
    bench.engine.submitted.clear()
    first = bench.ask(caller)
    await bench.engine.submitted.wait()
    bench.base = bench.appliance.log_size()
    second = await bench.ask(caller).end()
    size = bench.appliance.log_size()
    bench.engine.gate.set()
    await first.end()
    assert size == bench.base, "the one that was turned away left a record"
    bench.base = bench.appliance.log_size()
    return second


def _by(role: str) -> Mode:
    async def mode(bench: MatrixBench, caller: Caller) -> AsgiCall:
        return await bench.ask(caller, role=role).end()

    return mode


def _sealed(*, approved: bool) -> Mode:
    async def mode(bench: MatrixBench, caller: Caller) -> AsgiCall:
        given = await an_unsealing(bench, approved=approved)
        caller.body = {"index": int(given["of"]), "unsealing": given["index"]}
        bench.base = bench.appliance.log_size()
        return await bench.ask(caller).end()

    return mode


async def _twice(bench: MatrixBench, caller: Caller) -> AsgiCall:
    await bench.ask(caller).end()
    bench.base = bench.appliance.log_size()
    return await bench.ask(caller).end()


async def _under_hold(bench: MatrixBench, caller: Caller) -> AsgiCall:
    await a_hold(bench)
    bench.base = bench.appliance.log_size()
    return await bench.ask(caller).end()


async def _label_above_clearance(bench: MatrixBench, caller: Caller) -> AsgiCall:
    async with bench.client("developer") as developer:
        labelled = {"x-cloister-label": "2"}
        response = await developer.post("/v1/completions", json=TEXT, headers=labelled)
    (caller.body or {})["index"] = int(response.headers["x-cloister-receipt"].partition(":")[0])
    bench.add_key("low", 91, owner="low", tenant="plant-1", roles=("auditor",), clearance=1)
    bench.base = bench.appliance.log_size()
    return await bench.ask(caller, role="low").end()


def _token_differs(bench: MatrixBench) -> None:
    bench.engine.token_ids = [*bench.engine.token_ids[:-1], bench.engine.token_ids[0]]


OWN: Mapping[tuple[str, str], Mode] = {
    ("/v1/models/{id}", "another model"): _changed(path="/v1/models/other"),
    ("/audit/entries", "bad filter"): _changed(query="filter=%28"),
    ("/audit/entries/{index}", "unknown entry"): _unknown_entry,
    ("/audit/entries/{index}/proof", "unknown entry"): _unknown_entry,
    ("/audit/receipts/{receipt}/proof", "somebody else s"): _of_somebody_else,
    ("/audit/receipts/{receipt}/proof", "malformed receipt"): _changed(path="/audit/receipts/0:xyz/proof"),
    ("/audit/replays", "another prompt"): _with_body(lambda _: {"prompts": ["Twice"]}),
    ("/audit/replays", "another answer"): _after(_token_differs),
    ("/audit/replays", "no request"): _with_body(lambda _: {"index": 0}),
    ("/audit/replays", "unknown entry"): _unknown_entry,
    ("/audit/replays", "label above clearance"): _label_above_clearance,
    ("/audit/replays", "another replay runs"): _another_replay,
    ("/audit/replays", "queue full"): _after(_full_at(0)),
    ("/audit/replays", "engine dies in the middle"): _after(_set(error="engine_died")),
    ("/audit/replays", "gone in the middle"): _at(1, _leave),
    ("/audit/replays", "stop in the middle"): _at(1, _stop),
    ("/audit/replays", "log fails at the end"): _after(_log_fails_after(1)),
    ("/audit/erasures", "erased before"): _twice,
    ("/audit/erasures", "under hold"): _under_hold,
    ("/audit/erasures", "unknown subject"): _with_body(lambda _: {"subject": "nobody"}),
    ("/audit/replays", "sealed and unsealed by two"): _sealed(approved=True),
    ("/audit/replays", "sealed and not approved"): _sealed(approved=False),
    ("/audit/evidence/{id}/made", "unknown pack"): _changed(path="/audit/evidence/req-0/made"),
    ("/audit/evidence/{id}/made", "made before"): _twice,
    ("/audit/evidence/{id}/made", "unknown head"): _with_body(lambda _: {"head_root": "f" * 64}),
    ("/audit/aggregates", "unknown field to count by"): _changed(query="by=colour"),
    ("/audit/reports/{id}", "unknown report"): _changed(path="/audit/reports/R99"),
    ("/audit/reviews", "examined no report"): _with_body(lambda _: {"examined": [0]}),
    ("/audit/entries/{index}/check", "another text"): _with_body(lambda _: {"text": "Twice"}),
    ("/audit/entries/{index}/check", "no commitment"): _changed(path="/audit/entries/0/check"),
    ("/audit/entries/{index}/check", "unknown entry"): _changed(path="/audit/entries/999999/check"),
    ("/audit/entries/{index}/unseal", "nothing sealed"): _changed(path="/audit/entries/0/unseal"),
    ("/audit/unsealings/{index}/approve", "by the same person"): _by("auditor"),
    ("/audit/unsealings/{index}/show", "shown before"): _twice,
    ("/audit/unsealings/{index}/show", "to somebody else"): _by("privacy"),
    ("/audit/prunings", "unknown export"): _with_body(lambda _: {"export": "e9"}),
    ("/keys/{id}/revoke", "unknown key"): _changed(path="/keys/AAAAAAAAAAA/revoke"),
}
TWO_CHOICES: Mapping[str, Mode] = {
    "queue full for the second of two choices": _two_choices_and(_full_at(1)),
    "engine dies under two choices": _two_choices_and(_set(error="engine_died")),
}
HURRIED_MODES = ("body too slow", "reader too slow")


def mode_of(path: str, name: str) -> Mode:
    """Give the mode of a cell."""
    for modes in (TWO_CHOICES, INFER_MODES if path in INFER_PATHS else {}):
        if name in modes:
            return modes[name]
    return OWN[path, name] if (path, name) in OWN else GENERAL[name]
