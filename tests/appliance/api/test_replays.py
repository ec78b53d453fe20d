"""`POST /audit/replays` and `cloister audit replay`: who may, what goes in, and that no text comes out."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from perimeter_bench import PerimeterBench

from appliance.audit_trail import SYSTEM, Kind
from appliance.replay.verdict import Why
from policies.bundle import load_bundle, read_source_bundle

BODY = {"model": "starter", "prompt": "Once", "max_tokens": 5}


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[PerimeterBench]:
    """A perimeter on a real log; entry 0 says how the model was loaded."""
    made = PerimeterBench(tmp_path)
    asyncio.run(made.walk_bench.trail.append(Kind.MODEL_LOADED, SYSTEM, "c" * 64, {"dtype": "float32"}))
    yield made
    assert made.walk_bench.verify().ok
    made.close()


async def _recorded(bench: PerimeterBench, body: dict = BODY, path: str = "/v1/completions") -> int:
    async with bench.client("developer") as developer:
        response = await developer.post(path, json=body)
    assert response.status_code == 200, response.text
    return int(response.headers["x-cloister-receipt"].partition(":")[0])


async def test_an_auditor_gets_a_verdict_with_its_receipt_and_no_text(bench: PerimeterBench):
    """The answer names the admission and the verdict; its receipt is that of `replay:ended`."""
    index = await _recorded(bench)
    async with bench.client("auditor") as auditor:
        response = await auditor.post("/audit/replays", json={"index": index, "prompts": ["Once"]})
    body = response.json()
    assert (body["index"], body["verdict"], body["num_runs"]) == (index, "reproduced", 1)
    assert "hello" not in response.text
    ended = bench.reader.entry(int(response.headers["x-cloister-receipt"].partition(":")[0]))
    assert (ended.leaf.event.kind, ended.leaf.event.facts["verdict"]) == ("replay:ended", "reproduced")


@pytest.mark.parametrize("role", ["developer", "operator"])
async def test_nobody_but_an_auditor_replays(bench: PerimeterBench, role: str):
    """Another role is denied before anything is read, with one record."""
    index = await _recorded(bench)
    async with bench.client(role) as client:
        response = await client.post("/audit/replays", json={"index": index, "prompts": ["Once"]})
    assert response.status_code == 403
    assert bench.walk_bench.kinds(response.headers["x-request-id"]) == ["request:denied"]


@pytest.mark.parametrize(
    ("path", "body", "document"),
    [
        ("/v1/completions", BODY | {"prompt": [5, 6, 7]}, {"prompts": [[5, 6, 7]]}),
        ("/v1/completions", BODY | {"prompt": ["a", "b"], "n": 2}, {"prompts": ["a", "b"]}),
        ("/v1/completions", BODY | {"stop": "l"}, {"prompts": ["Once"], "stop": ["l"]}),
        (
            "/v1/chat/completions",
            {"model": "starter", "messages": [{"role": "developer", "content": [{"type": "text", "text": "é"}]}]},
            {"prompts": [[{"role": "system", "content": "é", "name": None}]]},
        ),
    ],
)
async def test_the_documents_are_those_that_were_committed_to(bench: PerimeterBench, path, body, document):
    """Every form of prompt goes through the wire into the very document of its commitment."""
    index = await _recorded(bench, body, path)
    async with bench.client("auditor") as auditor:
        response = await auditor.post("/audit/replays", json={"index": index, **document})
    assert response.json()["verdict"] == "reproduced", response.text


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "index"),
        ({"index": -1}, "index"),
        ({"index": 2**53}, "index"),
        ({"index": True}, "index"),
        ({"index": 1, "prompts": []}, "prompts"),
        ({"index": 1, "prompts": [[]]}, "prompts[0]"),
        ({"index": 1, "prompts": [[{"role": "tool", "content": "x"}]]}, "prompts[0][0].role"),
        ({"index": 1, "stop": ["x"]}, "prompts"),
        ({"index": 1, "outputs": ["x"]}, "prompts"),
        ({"index": 1, "seed": 5}, "seed"),
        ({"index": 1, "max_tokens": 5}, "max_tokens"),
    ],
)
async def test_a_body_that_cannot_be_honoured_is_refused_by_name(bench: PerimeterBench, body: dict, param: str):
    """No field of the request's own can be given: they come from the record; nothing is started."""
    size = bench.appliance.log_size()
    async with bench.client("auditor") as auditor:
        response = await auditor.post("/audit/replays", json=body)
    assert response.status_code == 400, response.text
    assert response.json()["error"]["param"] == param
    assert bench.appliance.log_size() == size


async def test_a_text_that_was_not_recorded_is_told_without_running(bench: PerimeterBench):
    """A guess of the prompt is answered with its mismatch, at the price of a record."""
    index = await _recorded(bench)
    async with bench.client("auditor") as auditor:
        response = await auditor.post("/audit/replays", json={"index": index, "prompts": ["Twice"]})
    assert (response.json()["verdict"], response.json()["reason"]) == ("not_reproducible_here", Why.PROMPT_MISMATCH)
    assert len(bench.walk_bench.engine.streams) == 1
    assert bench.walk_bench.kinds(response.headers["x-request-id"]) == ["replay:started", "replay:ended"]


async def test_another_replay_is_429_with_retry_after(bench: PerimeterBench):
    """One at a time: the second is told when to come again."""
    index = await _recorded(bench)
    engine = bench.walk_bench.engine
    engine.gate = asyncio.Event()
    engine.submitted.clear()
    async with bench.client("auditor") as auditor:
        first = asyncio.create_task(auditor.post("/audit/replays", json={"index": index, "prompts": ["Once"]}))
        await engine.submitted.wait()
        second = await auditor.post("/audit/replays", json={"index": index, "prompts": ["Once"]})
        assert (second.status_code, second.json()["error"]["code"]) == (429, "replay_busy")
        assert second.headers["retry-after"] == "5"
        engine.gate.set()
        assert (await first).json()["verdict"] == "reproduced"


async def test_a_refused_replay_has_the_receipt_of_its_record(bench: PerimeterBench):
    """An entry that is no request is 400, and the answer names the leaf that says so."""
    async with bench.client("auditor") as auditor:
        response = await auditor.post("/audit/replays", json={"index": 0, "prompts": ["Once"]})
    assert (response.status_code, response.json()["error"]["code"]) == (400, "not_a_request")
    ended = bench.reader.entry(int(response.headers["x-cloister-receipt"].partition(":")[0]))
    assert json.loads(ended.leaf_bytes)["facts"]["code"] == "not_a_request"


# What is sealed in the log, opened for a replay on the word of two people


SEALED_BODY = {"model": "starter", "prompt": ["Once", "upon"], "max_tokens": 5, "stop": ["l"]}


@pytest.fixture
def sealing(bench: PerimeterBench) -> PerimeterBench:
    """A perimeter whose policy obliges to encrypted content."""
    source = {name: text for name, text in read_source_bundle().items() if not name.startswith("tests/")}
    name = "base/20-models.cedar"
    source[name] = source[name].replace(b'@log_level("commitments")', b'@log_level("encrypted")')
    bench.walk_bench.gate._engine = load_bundle(source)
    return bench


async def _unsealing(bench: PerimeterBench, index: int, *, approved: bool = True) -> int:
    async with bench.client("auditor") as auditor:
        answer = await auditor.post(f"/audit/entries/{index}/unseal", json={"reason": "case 1"})
    proposal: int = answer.json()["proposal"]
    if approved:
        async with bench.client("privacy") as officer:
            assert (await officer.post(f"/audit/unsealings/{proposal}/approve")).status_code == 200
    return proposal


async def _replay(bench: PerimeterBench, role: str = "auditor", **body):
    async with bench.client(role) as client:
        return await client.post("/audit/replays", json=body)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/completions", SEALED_BODY),
        ("/v1/completions", BODY | {"prompt": [[40, 41], [42]]}),
        ("/v1/chat/completions", {"model": "starter", "messages": [{"role": "user", "content": "Hé\u2028"}]}),
    ],
)
async def test_what_is_sealed_is_replayed_on_the_word_of_two_people(sealing: PerimeterBench, path: str, body: dict):
    """Nobody supplies a text and nobody is shown one; the approval is used up by its record, before it is opened."""
    index = await _recorded(sealing, body, path)
    proposal = await _unsealing(sealing, index)
    response = await _replay(sealing, index=index, unsealing=proposal)
    assert response.json()["verdict"] == "reproduced", response.text
    assert "Once" not in response.text
    started, shown, ended = sealing.reader.tail(3)
    assert [one.leaf.event.kind for one in (started, shown, ended)] == [
        "replay:started",
        "content:shown",
        "replay:ended",
    ]
    assert started.leaf.event.facts["supplied"] == ["sealed"]
    assert shown.leaf.event.facts["used_for"] == "replay"
    again = await _replay(sealing, index=index, unsealing=proposal)
    assert (again.status_code, again.json()["error"]["code"]) == (409, "shown_before")


async def test_one_person_s_word_opens_nothing(sealing: PerimeterBench):
    """Without an approval the replay is refused, and the engine hears nothing."""
    index = await _recorded(sealing)
    proposal = await _unsealing(sealing, index, approved=False)
    num_asked = len(sealing.walk_bench.engine.streams)
    response = await _replay(sealing, index=index, unsealing=proposal)
    assert (response.status_code, response.json()["error"]["code"]) == (409, "not_approved")
    assert len(sealing.walk_bench.engine.streams) == num_asked
    kinds = sealing.walk_bench.kinds(response.headers["x-request-id"])
    assert kinds == ["replay:started", "act:refused", "replay:ended"]


async def test_an_approval_is_for_its_own_entry_and_person(sealing: PerimeterBench):
    """Another request's approval opens nothing, and nobody else may use it."""
    first, second = await _recorded(sealing), await _recorded(sealing)
    proposal = await _unsealing(sealing, first)
    response = await _replay(sealing, index=second, unsealing=proposal)
    assert (response.status_code, response.json()["error"]["code"]) == (409, "another_entry")
    sealing.add_key("other", 70, owner="other", tenant="plant-1", roles=("auditor",))
    response = await _replay(sealing, "other", index=first, unsealing=proposal)
    assert (response.status_code, response.json()["error"]["code"]) == (403, "not_the_proposer")
    assert (await _replay(sealing, index=first, unsealing=proposal)).json()["verdict"] == "reproduced"


async def test_sealed_content_of_an_erased_person_is_opened_by_nobody(sealing: PerimeterBench):
    """The verdict says so; there is nothing to run."""
    index = await _recorded(sealing)
    proposal = await _unsealing(sealing, index)
    async with sealing.client("privacy") as officer:
        erased = await officer.post("/audit/erasures", json={"subject": "developer", "reason": "asked for"})
    assert erased.status_code == 200, erased.text
    assert (await _replay(sealing, index=index, unsealing=proposal)).json()["reason"] == Why.SUBJECT_ERASED


async def test_without_texts_and_without_an_unsealing_there_is_nothing_to_run(sealing: PerimeterBench):
    """Sealed or not: an approval has to be named."""
    index = await _recorded(sealing)
    assert (await _replay(sealing, index=index)).json()["reason"] == Why.CONTENT_MISSING


async def test_texts_and_an_unsealing_are_one_too_many(sealing: PerimeterBench):
    """400, naming the field."""
    response = await _replay(sealing, index=1, prompts=["Once"], unsealing=3)
    assert (response.status_code, response.json()["error"]["param"]) == (400, "unsealing")
