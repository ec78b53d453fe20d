"""The first sentence of the house: no receipt, no tokens - with the append failing at every point there is."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from itertools import product

import pytest
from walk_bench import AUDITOR, DEVELOPER, BenchMaker, WalkBench, collect, completion

from appliance.choice_text import ChoiceText
from appliance.errors import BadRequest, Forbidden, GenerationFailed, NotFound, Overloaded, Unavailable
from appliance.inference import Finished, PlainText, TextDelta


@pytest.fixture
def make_bench(tmp_path) -> Iterator[BenchMaker]:
    """Make walks that are closed after the test."""
    made: list[WalkBench] = []

    def make(**faults) -> WalkBench:
        folder = tmp_path / str(len(made))
        folder.mkdir()
        made.append(WalkBench(folder, **faults))
        return made[-1]

    yield make
    for bench in made:
        bench.close()


async def test_an_answer_has_two_records_and_then_its_end(make_bench: BenchMaker):
    """A finished answer has its admission before the first token and its terminal leaf before `Finished`."""
    bench = make_bench()
    running = await bench.walk.admit(bench.asking("r1"), completion())
    assert bench.kinds("r1") == ["request:admitted"]
    given, error = await collect(running)
    assert error is None
    assert "".join(delta.text for delta in given if isinstance(delta, TextDelta)) == "hello"
    assert isinstance(given[-1], Finished)
    assert given[-1].receipt.index > running.admission.receipt.index
    assert bench.kinds("r1") == ["request:admitted", "request:completed"]
    assert bench.verify().ok


@pytest.mark.parametrize("fault", ["not_persisted", "persisted"])
async def test_no_admission_leaf_no_prompt_to_the_engine(make_bench: BenchMaker, fault: str):
    """When the admission cannot be recorded, persisted or not, the engine sees nothing and nobody is admitted again."""
    bench = make_bench(fail_at=0, fault=fault)
    with pytest.raises(Unavailable) as refusal:
        await bench.walk.admit(bench.asking("r1"), completion())
    assert refusal.value.code == "log_unavailable"
    assert bench.engine.streams == []
    with pytest.raises(Unavailable):
        await bench.walk.admit(bench.asking("r2"), completion())
    assert bench.kinds("r2") == []
    assert bench.verify().ok


@pytest.mark.parametrize("fault", ["not_persisted", "persisted"])
async def test_no_terminal_leaf_no_end_of_the_answer(make_bench: BenchMaker, fault: str):
    """When the terminal record fails, persisted or not, no `Finished` is given and the appliance stops admitting."""
    bench = make_bench(fail_at=1, fault=fault)
    running = await bench.walk.admit(bench.asking("r1"), completion())
    given, error = await collect(running)
    assert not any(isinstance(one, Finished) for one in given)
    assert isinstance(error, Unavailable)
    assert error.code == "log_unavailable"
    assert [obstacle.code for obstacle in bench.door.obstacles] == ["log_unavailable"]
    assert bench.kinds("r1") == ["request:admitted", "request:completed"][: 1 if fault == "not_persisted" else 2]
    assert bench.verify().ok


async def test_a_denial_that_cannot_be_recorded_is_no_answer(make_bench: BenchMaker):
    """A denied caller does not hear of the denial before it is durable."""
    bench = make_bench(fail_at=0)
    with pytest.raises(Unavailable):
        await bench.walk.admit(bench.asking("r1", AUDITOR), completion())
    assert bench.kinds("r1") == []


async def test_a_denial_is_recorded_before_it_is_spoken(make_bench: BenchMaker):
    """Policy's no leaves exactly one `request:denied`, and the engine sees nothing."""
    bench = make_bench()
    with pytest.raises(Forbidden):
        await bench.walk.admit(bench.asking("r1", AUDITOR), completion())
    assert bench.kinds("r1") == ["request:denied"]
    assert bench.engine.streams == []


async def test_a_client_that_goes_leaves_a_cancelled_record(make_bench: BenchMaker):
    """Whoever vanishes in the middle leaves one terminal leaf with the tokens so far; the engine is told to stop."""
    bench = make_bench()
    bench.engine.gate = asyncio.Event()
    running = await bench.walk.admit(bench.asking("r1"), completion())
    answers = running.answers()
    assert (await anext(answers)).text == "h"
    running.abandon("client_closed")
    with pytest.raises(Unavailable):
        await anext(answers)
    assert bench.engine.streams[0].cancelled.is_set()
    assert bench.kinds("r1") == ["request:admitted", "request:cancelled"]
    assert bench.walk.num_running == 0


async def test_a_full_queue_is_recorded_before_429(make_bench: BenchMaker):
    """A request turned away after admission has its `request:failed`; its choices that got in are cancelled."""
    bench = make_bench()
    bench.engine.full_at = 1
    with pytest.raises(Overloaded):
        await bench.walk.admit(bench.asking("r1"), completion(n=2))
    assert bench.engine.streams[0].cancelled.is_set()
    assert bench.kinds("r1") == ["request:admitted", "request:failed"]


@pytest.mark.parametrize("fault", ["not_persisted", "persisted"])
async def test_a_full_queue_s_end_that_cannot_be_recorded_is_no_429(make_bench: BenchMaker, fault: str):
    """Turned away without a record of it, the caller hears of the log, not of the queue; the appliance shuts."""
    bench = make_bench(fail_at=1, fault=fault)
    bench.engine.full_at = 1
    with pytest.raises(Unavailable) as refusal:
        await bench.walk.admit(bench.asking("r1"), completion(n=2))
    assert refusal.value.code == "log_unavailable"
    assert bench.engine.streams[0].cancelled.is_set()
    assert [obstacle.code for obstacle in bench.door.obstacles] == ["log_unavailable"]
    assert bench.kinds("r1") == ["request:admitted", "request:failed"][: 1 if fault == "not_persisted" else 2]
    assert bench.verify().ok


@pytest.mark.parametrize(
    ("code", "kind"),
    [("engine_died", Unavailable), ("nan_logits", GenerationFailed), ("out_of_kv_memory", GenerationFailed)],
)
async def test_an_engine_error_fails_this_request_with_a_record(make_bench: BenchMaker, code: str, kind: type):
    """An error of the engine ends the answer with its code, after `request:failed`."""
    bench = make_bench()
    bench.engine.error = code
    running = await bench.walk.admit(bench.asking("r1"), completion())
    _, error = await collect(running)
    assert isinstance(error, kind)
    assert error.code == code
    assert bench.kinds("r1") == ["request:admitted", "request:failed"]


async def test_a_fault_of_our_own_still_leaves_a_terminal_record(make_bench: BenchMaker, monkeypatch):
    """A bug in our text path fails that request alone, with its record."""
    bench = make_bench()
    monkeypatch.setattr(ChoiceText, "take", lambda _, event: event.no_such_field)
    running = await bench.walk.admit(bench.asking("r1"), completion())
    _, error = await collect(running)
    assert isinstance(error, GenerationFailed)
    assert error.code == "internal_error"
    assert bench.kinds("r1") == ["request:admitted", "request:failed"]


async def test_a_stop_orders_cancellation_with_records(make_bench: BenchMaker):
    """Draining with no time left cancels what runs, and waits for its terminal leaf."""
    bench = make_bench()
    bench.engine.gate = asyncio.Event()
    running = await bench.walk.admit(bench.asking("r1"), completion())
    await bench.walk.drain(0)
    assert bench.kinds("r1") == ["request:admitted", "request:cancelled"]
    assert bench.walk.num_running == 0
    _, error = await collect(running)
    assert error.code == "appliance_stopping"


async def test_a_stop_string_ends_the_answer_and_the_engine(make_bench: BenchMaker):
    """A stop string is found across tokens, never shown, and the sequence is cancelled."""
    bench = make_bench()
    running = await bench.walk.admit(bench.asking("r1"), completion(sampling={"stop": ("ll",)}))
    given, error = await collect(running)
    assert error is None
    assert "".join(delta.text for delta in given[:-1]) == "he"
    assert given[-1].choices[0].reason == "stop"
    assert given[-1].choices[0].stop_reason == "ll"
    assert bench.engine.streams[0].cancelled.is_set()


async def test_min_tokens_holds_a_stop_string_off(make_bench: BenchMaker):
    """A stop string within the first `min_tokens` tokens is text; the next one ends the answer."""
    bench = make_bench()
    running = await bench.walk.admit(bench.asking("r1"), completion(sampling={"stop": ("l",), "min_tokens": 3}))
    given, _ = await collect(running)
    assert "".join(delta.text for delta in given[:-1]) == "hel"
    assert given[-1].choices[0].stop_reason == "l"


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"sampling": {"max_tokens": 100_000}}, "context_length_exceeded"),
        ({"sampling": {"min_tokens": 9}}, "bad_value"),
        ({"sampling": {"stop_token_ids": (10**6,)}}, "bad_token_id"),
        ({"sampling": {"logit_bias": ((-1, 1.0),)}}, "bad_token_id"),
        ({"prompt": "x" * 200_000}, "context_length_exceeded"),
        ({"prompt": "x" * 5_000}, "context_length_exceeded"),
        ({"prompt": ""}, "empty_prompt"),
    ],
)
async def test_what_the_model_cannot_take_is_refused_by_name(make_bench: BenchMaker, changes: dict, code: str):
    """A request that does not fit is a BadRequest with its code; the engine and the log's admissions see nothing."""
    bench = make_bench()
    with pytest.raises(BadRequest) as refusal:
        await bench.walk.admit(bench.asking("r1"), completion(**changes))
    assert refusal.value.code == code
    assert not refusal.value.recorded
    await bench.recorder.refusal(bench.asking("r1"), refusal.value)
    assert bench.kinds("r1") == ["request:refused"]
    assert bench.engine.streams == []


@pytest.mark.parametrize(
    ("num_prompts", "n", "param"), [(1, 3, "n"), (1, 4, "n"), (2, 2, "n"), (3, 1, "prompt"), (1, 2, None), (2, 1, None)]
)
async def test_more_choices_than_may_ever_wait_are_refused_by_name(
    make_bench: BenchMaker, num_prompts: int, n: int, param: str | None
):
    """A request that no empty queue could take is a BadRequest, not a 429 that comes again at every retry."""
    bench = make_bench()
    bench.walk.model = replace(bench.walk.model, max_queue_len=2)
    request = replace(completion(n=n), prompts=(PlainText("Once"),) * num_prompts)
    if param is None:
        _, error = await collect(await bench.walk.admit(bench.asking("r1"), request))
        assert error is None
        assert len(bench.engine.streams) == num_prompts * n
        return
    with pytest.raises(BadRequest) as refusal:
        await bench.walk.admit(bench.asking("r1"), request)
    assert (refusal.value.code, refusal.value.param) == ("bad_value", param)
    assert bench.kinds("r1") == []
    assert bench.engine.streams == []


async def test_an_unknown_model_is_not_found(make_bench: BenchMaker):
    """No fallback: another model's name is not served by this one."""
    bench = make_bench()
    request = completion()
    object.__setattr__(request, "model", "other")
    with pytest.raises(NotFound):
        await bench.walk.admit(bench.asking("r1"), request)


async def test_salts_differ_by_tenant_and_label(make_bench: BenchMaker):
    """The cache's salt comes from tenant and label alone: who asks changes nothing, either of the two everything."""
    bench = make_bench()
    bench.walk.model = replace(bench.walk.model, tenants=("plant-1", "plant-2"))
    neighbour = replace(DEVELOPER, tenant="plant-2")
    salts: dict[tuple[str, int], set[bytes]] = {}
    for number, (principal, label) in enumerate(
        product((DEVELOPER, replace(DEVELOPER, id="sam"), neighbour, replace(neighbour, id="sam")), (0, 1))
    ):
        asking = replace(bench.asking(f"r{number}", principal), label=label)
        await collect(await bench.walk.admit(asking, completion()))
        salt = bench.engine.streams[-1].request.cache_salt
        salts.setdefault((principal.tenant, label), set()).add(salt)
    assert [len(of_line) for of_line in salts.values()] == [1] * 4
    assert len(set.union(*salts.values())) == len(salts) == 4


async def test_a_request_admitted_while_the_stop_begins_is_drained(make_bench: BenchMaker):
    """A drain that begins while the admission is being committed ends that request too, with both its leaves."""
    bench = make_bench()
    bench.sink.hold = asyncio.Event()
    admitting = asyncio.create_task(bench.walk.admit(bench.asking("r1"), completion()))
    await bench.sink.reached.wait()
    draining = asyncio.create_task(bench.walk.drain(0))
    bench.sink.hold.set()
    await draining
    await bench.walk.settle()
    assert bench.walk.num_running == 0
    with pytest.raises(Unavailable) as refusal:
        await _drained(admitting)
    assert refusal.value.code == "appliance_stopping"
    assert bench.kinds("r1") == ["request:admitted", "request:cancelled"]


async def _drained(admitting: asyncio.Task) -> None:
    running = await admitting
    _, error = await collect(running)
    raise error


async def test_a_caller_that_goes_during_the_admission_leaves_two_leaves(make_bench: BenchMaker):
    """Cancelling whoever waits for the admission cancels the request, not its records."""
    bench = make_bench()
    bench.sink.hold = asyncio.Event()
    admitting = asyncio.create_task(bench.walk.admit(bench.asking("r1"), completion()))
    await bench.sink.reached.wait()
    admitting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await admitting
    bench.sink.hold.set()
    await bench.walk.settle()
    assert bench.kinds("r1") == ["request:admitted", "request:cancelled"]
    assert bench.engine.streams == []


async def test_a_bug_between_admission_and_generation_is_recorded(make_bench: BenchMaker):
    """Whatever the engine's client raises, the admitted request ends as failed and what was queued is cancelled."""
    bench = make_bench()
    bench.engine.broken_at = 1
    with pytest.raises(GenerationFailed) as refusal:
        await bench.walk.admit(bench.asking("r1"), completion(n=2))
    assert refusal.value.code == "internal_error"
    assert bench.engine.streams[0].cancelled.is_set()
    assert bench.kinds("r1") == ["request:admitted", "request:failed"]


async def test_commitments_that_fail_cost_the_request_not_its_record(make_bench: BenchMaker, monkeypatch):
    """When the output cannot be committed to, the terminal leaf is written without it, as failed."""
    bench = make_bench()
    running = await bench.walk.admit(bench.asking("r1"), completion())

    def broken(*_arguments):
        raise OSError("subject keys are gone")

    monkeypatch.setattr(bench.trail, "commitment", broken)
    _, error = await collect(running)
    assert isinstance(error, GenerationFailed)
    assert error.code == "record_refused"
    assert bench.kinds("r1") == ["request:admitted", "request:failed"]
    with pytest.raises(GenerationFailed):
        await bench.walk.admit(bench.asking("r2"), completion())
    assert bench.kinds("r2") == []
    assert bench.walk.num_running == 0


async def test_every_recorded_refusal_carries_its_receipt(make_bench: BenchMaker):
    """A denial, a full queue and a refusal name the leaf that says so."""
    bench = make_bench()
    with pytest.raises(Forbidden) as denied:
        await bench.walk.admit(bench.asking("r1", AUDITOR), completion())
    bench.engine.full_at = 0
    with pytest.raises(Overloaded) as full:
        await bench.walk.admit(bench.asking("r2"), completion())
    refusal = BadRequest("no", code="bad_value")
    await bench.recorder.refusal(bench.asking("r3"), refusal)
    for error, kind in (
        (denied.value, "request:denied"),
        (full.value, "request:failed"),
        (refusal, "request:refused"),
    ):
        assert error.receipt is not None
        assert bench.reader.entry(error.receipt.index).leaf.event.kind == kind


async def test_an_approval_that_has_ended_allows_nothing(make_bench: BenchMaker):
    """A model whose approval expires while the appliance runs is denied from then on, without a restart."""
    bench = make_bench()
    await collect(await bench.walk.admit(bench.asking("r1"), completion()))
    bench.walk.model = replace(bench.walk.model, approved_until_us=bench.trail.clock.utc_us() - 1)
    with pytest.raises(Forbidden):
        await bench.walk.admit(bench.asking("r2"), completion())
    assert bench.kinds("r2") == ["request:denied"]


async def test_a_stalled_engine_admits_nothing(make_bench: BenchMaker):
    """With work at hand and no step, a new request is refused at once instead of waiting without end."""
    bench = make_bench()
    bench.engine.is_stalled = True
    with pytest.raises(Unavailable) as refusal:
        await bench.walk.admit(bench.asking("r1"), completion())
    assert refusal.value.code == "engine_stalled"
    assert bench.kinds("r1") == []
