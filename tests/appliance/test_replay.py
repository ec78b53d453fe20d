"""A recorded request run again: what is run, what is compared, and when a difference accuses somebody."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from walk_bench import AUDITOR, DEVELOPER, WalkBench, collect, completion

from appliance.audit_trail import SYSTEM, Kind, key_subject
from appliance.errors import BadRequest, Forbidden, GenerationFailed, NotFound, Overloaded, Unavailable
from appliance.gate import Asking
from appliance.inference import Conversation, InferenceRequest, Message, PlainText, PromptTokens
from appliance.log_opening import _close_what_was_left_open
from appliance.recorder import LOG_OBSTACLE
from appliance.replay.content import ReplayContent
from appliance.replay.regeneration import PRIORITY
from appliance.replay.replayer import Replayed
from appliance.replay.verdict import Difference, NotReproduced, NotReproducibleHere, Reproduced, Why
from audit.errors import AuditError
from policies.decision import Allow, Obligations

LOADED = {
    "dtype": "float32",
    "engine_build": "e" * 64,
    "max_num_batched_tokens": 512,
    "num_threads": 1,
    "page_size": 16,
    "processor": "x86_64 AVX2 some",
    "text_build": "t" * 64,
    "torch": "2.13.0",
}
PROMPT = ReplayContent((PlainText("Once"),))


class ReplayBench(WalkBench):
    """A walk that has recorded how its model was loaded."""

    async def load(self, **changes: object) -> None:
        """Record a load, as a start does."""
        receipt = await self.trail.append(Kind.MODEL_LOADED, SYSTEM, self.walk.model.root, {**LOADED, **changes})
        self.walk.model = replace(self.walk.model, loaded_index=receipt.index)

    async def record(self, request: InferenceRequest, request_id: str = "r1", label: int = 0) -> int:
        """Serve a request to its end; give the index of its admission."""
        running = await self.walk.admit(replace(self.asking(request_id), label=label), request)
        await collect(running)
        return running.admission.receipt.index

    async def again(self, index: int, content: ReplayContent | None = PROMPT, **changes: object) -> Replayed:
        """Replay as an auditor."""
        return await self.replayer.replay(self.auditing(**changes), index, content)

    def auditing(self, request_id: str = "a1", **changes: object) -> Asking:
        """Ask as an auditor."""
        return Asking(replace(AUDITOR, **changes), request_id, "/audit/replays", "127.0.0.1")

    def end_of(self, request_id: str = "a1") -> dict:
        """Facts of the last record of a call."""
        return dict(self.entries_of(request_id)[-1].leaf.event.facts)

    def entries_of(self, request_id: str) -> list:
        """All records of a call."""
        return [entry for entry in self.reader.tail(1000) if entry.leaf.event.subject == request_id]

    def tokens(self, text: str) -> list[int]:
        """Give the scripted engine's tokens for a text, a letter each."""
        return [token_id for letter in text for token_id in self.walk.model.tokenizer.encode(letter)]


@pytest.fixture
async def bench(tmp_path: Path) -> Iterator[ReplayBench]:
    """One walk on a real log with a loaded model."""
    made = ReplayBench(tmp_path)
    await made.load()
    yield made
    assert made.verify().ok
    made.close()


async def test_the_same_answer_is_reproduced_by_either_of_its_records(bench: ReplayBench):
    """The index of the admission and that of the end name the same request; both replays leave their two leaves."""
    index = await bench.record(completion())
    for number, given in enumerate((index, index + 1)):
        replayed = await bench.replayer.replay(bench.auditing(f"a{number}"), given, PROMPT)
        assert replayed.verdict == Reproduced()
        assert replayed.index == index
        assert replayed.num_runs == 1
        assert bench.kinds(f"a{number}") == ["replay:started", "replay:ended"]
        facts = bench.end_of(f"a{number}")
        assert (facts["verdict"], facts["replayed_index"]) == ("reproduced", index)
        assert (facts["started_index"], facts["engine"]["output_tokens"]) == (replayed.started.index, 5)


@pytest.mark.parametrize(
    "prompt",
    [
        PlainText("Once"),
        PromptTokens((40, 41, 42)),
        Conversation((Message("system", "Be brief."), Message("user", "Hé\u2028?", name="dana"))),
    ],
)
async def test_every_form_of_prompt_replays(bench: ReplayBench, prompt):
    """Text, token ids and conversations are put together again just as they were."""
    index = await bench.record(replace(completion(), prompts=(prompt,)))
    asked = bench.engine.streams[-1].request
    replayed = await bench.again(index, ReplayContent((prompt,)))
    assert replayed.verdict == Reproduced()
    again = bench.engine.streams[-1].request
    assert (again.token_ids, again.params) == (asked.token_ids, asked.params)


async def test_every_parameter_and_choice_comes_from_the_record(bench: ReplayBench):
    """Seeds, lengths, penalties, biases, stops: the engine is asked the very same, choice by choice."""
    sampling = {
        "max_tokens": 4,
        "temperature": 0.7,
        "top_k": 11,
        "top_p": 0.9,
        "min_p": 0.01,
        "presence_penalty": 0.5,
        "frequency_penalty": -0.25,
        "repetition_penalty": 1.1,
        "logit_bias": ((5, 1.5), (7, -100.0)),
        "seed": 2**63 + 1,
        "stop_token_ids": (9,),
        "stop": ("zz", "o"),
        "include_stop_in_output": True,
        "min_tokens": 2,
        "ignore_eos": True,
    }
    prompts = (PlainText("Once"), PlainText("upon"))
    index = await bench.record(replace(completion(n=2, sampling=sampling), prompts=prompts))
    asked = [stream.request for stream in bench.engine.streams]
    replayed = await bench.again(index, ReplayContent(prompts, ("zz", "o")))
    assert replayed.verdict == Reproduced()
    again = [stream.request for stream in bench.engine.streams[len(asked) :]]
    assert len(again) == len(asked) == 4
    for then, now in zip(asked, again, strict=True):
        assert now.token_ids == then.token_ids
        assert now.params == then.params


async def test_a_replay_waits_behind_everybody_and_shares_no_prefix(bench: ReplayBench):
    """Lowest priority, and a salt of its own in each run: no cache hit of anybody's, no trace for anybody."""
    index = await bench.record(completion())
    for number in range(2):
        await bench.replayer.replay(bench.auditing(f"a{number}"), index, PROMPT)
    asked, first, second = (stream.request for stream in bench.engine.streams)
    assert asked.priority == 0 > first.priority == second.priority == PRIORITY
    assert len({asked.cache_salt, first.cache_salt, second.cache_salt}) == 3


async def test_another_answer_is_made_twice_and_its_place_is_told(bench: ReplayBench):
    """Where the answer differs and nothing explains it: not reproduced, with token and - text at hand - character."""
    index = await bench.record(completion())
    bench.engine.token_ids = bench.tokens("heXlo")
    replayed = await bench.again(index)
    assert replayed.verdict == NotReproduced(Difference(choice=0, tokens=(2, 2)))
    assert replayed.num_runs == 2
    content = replace(PROMPT, outputs=("hello",))
    replayed = await bench.replayer.replay(bench.auditing("a2"), index, content)
    assert replayed.verdict == NotReproduced(Difference(choice=0, tokens=(2, 2), character=2))
    assert bench.end_of("a2")["difference"] == {"choice": 0, "tokens": [2, 2], "character": 2, "finish": False}
    assert bench.end_of("a2")["engine"]["output_tokens"] == 10


async def test_an_answer_that_ends_elsewhere_differs_where_it_ends(bench: ReplayBench):
    """A shorter answer differs at the first token that is missing."""
    index = await bench.record(completion())
    bench.engine.token_ids = bench.tokens("hel")
    assert (await bench.again(index)).verdict == NotReproduced(Difference(choice=0, tokens=(3, 3)))


async def test_two_replays_that_disagree_accuse_nobody(bench: ReplayBench, monkeypatch: pytest.MonkeyPatch):
    """An engine whose answers vary cannot say that the record is wrong."""
    index = await bench.record(completion())
    answers = iter(("heXlo", "heYlo"))
    submit = bench.engine.submit

    def varying(request):
        bench.engine.token_ids = bench.tokens(next(answers))
        return submit(request)

    monkeypatch.setattr(bench.engine, "submit", varying)
    verdict = (await bench.again(index)).verdict
    assert isinstance(verdict, NotReproducibleHere)
    assert verdict.why is Why.UNSTABLE_HERE


@pytest.mark.parametrize("name", sorted(LOADED))
async def test_a_circumstance_that_differs_explains_a_difference_and_no_match(bench: ReplayBench, name: str):
    """Another build or processor: a match is a match all the same, a mismatch accuses nobody and names it."""
    index = await bench.record(completion())
    await bench.load(**{name: "another"})
    assert (await bench.again(index)).verdict == Reproduced((name,))
    bench.engine.token_ids = bench.tokens("heXlo")
    verdict = (await bench.replayer.replay(bench.auditing("a2"), index, PROMPT)).verdict
    assert isinstance(verdict, NotReproducibleHere)
    assert (verdict.why, verdict.difference) == (Why.CIRCUMSTANCES_DIFFER, Difference(choice=0, tokens=(2, 2)))
    assert name in verdict.explanation


async def test_a_prefix_from_the_cache_explains_a_difference(bench: ReplayBench):
    """Cached pages may have been summed up in another order: a difference then says nothing."""
    bench.engine.num_cached_tokens = 3
    index = await bench.record(completion())
    assert (await bench.again(index)).verdict == Reproduced()
    bench.engine.token_ids = bench.tokens("heXlo")
    verdict = (await bench.replayer.replay(bench.auditing("a2"), index, PROMPT)).verdict
    assert isinstance(verdict, NotReproducibleHere)
    assert verdict.why is Why.ORDER_OF_ARITHMETIC


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (ReplayContent((PlainText("Twice"),)), Why.PROMPT_MISMATCH),
        (ReplayContent((PlainText("Once"), PlainText("Once"))), Why.PROMPT_MISMATCH),
        (ReplayContent((PromptTokens((1, 2)),)), Why.PROMPT_MISMATCH),
        (ReplayContent((PlainText("Once"),), ("x",)), Why.STOP_MISMATCH),
        (ReplayContent((PlainText("Once"),), (), ("hellO",)), Why.OUTPUT_MISMATCH),
        (None, Why.CONTENT_MISSING),
    ],
)
async def test_nothing_runs_that_was_not_recorded(bench: ReplayBench, content, why: Why):
    """A text that is not the committed one is refused before the engine hears of it, with a record of the attempt."""
    index = await bench.record(completion())
    num_asked = len(bench.engine.streams)
    verdict = (await bench.again(index, content)).verdict
    assert isinstance(verdict, NotReproducibleHere)
    assert verdict.why is why
    assert len(bench.engine.streams) == num_asked
    assert bench.kinds("a1") == ["replay:started", "replay:ended"]
    assert bench.end_of()["reason"] == why


async def test_stop_strings_are_held_against_their_commitment(bench: ReplayBench):
    """As many stop strings, but others, are refused."""
    index = await bench.record(completion(sampling={"stop": ("ll",)}))
    assert (await bench.again(index, replace(PROMPT, stop=("ll",)))).verdict == Reproduced()
    verdict = (await bench.replayer.replay(bench.auditing("a2"), index, replace(PROMPT, stop=("l",)))).verdict
    assert isinstance(verdict, NotReproducibleHere)
    assert verdict.why is Why.STOP_MISMATCH


async def test_an_erased_person_is_replayed_by_nobody(bench: ReplayBench):
    """With the subject's key destroyed no text can be held against its commitment, so nothing runs."""
    index = await bench.record(completion())
    bench.keyring.destroy(bench.keyring.keys_of(key_subject(DEVELOPER.tenant, DEVELOPER.id)).living)
    verdict = (await bench.again(index)).verdict
    assert isinstance(verdict, NotReproducibleHere)
    assert verdict.why is Why.SUBJECT_ERASED
    assert len(bench.engine.streams) == 1


async def test_a_person_erased_while_the_request_ran_is_replayed_by_nobody(bench: ReplayBench):
    """The answer has no commitment then, and the record says why."""
    bench.engine.gate = asyncio.Event()
    running = await bench.walk.admit(bench.asking("r1"), completion())
    bench.keyring.destroy(bench.keyring.keys_of(key_subject(DEVELOPER.tenant, DEVELOPER.id)).living)
    bench.engine.gate.set()
    await collect(running)
    verdict = (await bench.again(running.admission.receipt.index)).verdict
    assert isinstance(verdict, NotReproducibleHere)
    assert verdict.why is Why.SUBJECT_ERASED


@pytest.mark.parametrize("level", ["none", "metadata"])
async def test_a_request_without_commitments_cannot_be_replayed(bench: ReplayBench, level, monkeypatch):
    """Where policy asked for less than commitments, nothing says which text it was."""

    async def less(*_arguments: object) -> Allow:
        return Allow(Obligations(log_level=level), ("p",), "d" * 64)

    with monkeypatch.context() as patched:
        patched.setattr(bench.gate, "authorize", less)
        index = await bench.record(completion())
    verdict = (await bench.again(index)).verdict
    assert isinstance(verdict, NotReproducibleHere)
    assert verdict.why is Why.NOT_COMMITTED


async def test_a_cut_answer_is_reproduced_as_far_as_it_came(bench: ReplayBench):
    """A caller went in the middle: the tokens that had come, come again."""
    bench.engine.gate = asyncio.Event()
    running = await bench.walk.admit(bench.asking("r1"), completion())
    await anext(running.answers())
    running.abandon("client_closed")
    await bench.walk.settle()
    bench.engine.gate.set()
    replayed = await bench.again(running.admission.receipt.index)
    assert replayed.verdict == Reproduced()
    assert bench.engine.streams[-1].request.params.max_tokens == 1
    bench.engine.token_ids = bench.tokens("Hello")
    replayed = await bench.replayer.replay(bench.auditing("a2"), running.admission.receipt.index, PROMPT)
    assert replayed.verdict == NotReproduced(Difference(choice=0, tokens=(0, 0)))


async def test_a_request_that_came_to_no_token_says_nothing(bench: ReplayBench):
    """Turned away by a full queue, it has no answer to compare."""
    bench.engine.full_at = 0
    with pytest.raises(Overloaded):
        await bench.walk.admit(bench.asking("r1"), completion())
    bench.engine.full_at = None
    index = bench.reader.tail(2)[0].index
    verdict = (await bench.again(index)).verdict
    assert isinstance(verdict, NotReproducibleHere)
    assert verdict.why is Why.NOTHING_GENERATED


async def test_a_request_that_runs_is_not_replayed(bench: ReplayBench):
    """There is nothing to compare with before its end."""
    bench.engine.gate = asyncio.Event()
    running = await bench.walk.admit(bench.asking("r1"), completion())
    verdict = (await bench.again(running.admission.receipt.index)).verdict
    assert isinstance(verdict, NotReproducibleHere)
    assert verdict.why is Why.NOT_ENDED
    bench.engine.gate.set()
    await collect(running)


async def test_a_request_that_died_with_the_appliance_says_nothing(bench: ReplayBench):
    """`request:abandoned` tells of no answer."""
    index = await bench.record(completion(), "r0")
    facts = dict(bench.reader.entry(index).leaf.event.facts)
    admitted = await bench.trail.append(Kind.REQUEST_ADMITTED, DEVELOPER, "r1", facts)
    await bench.trail.append(Kind.REQUEST_ABANDONED, SYSTEM, "r1", {"admitted_index": admitted.index})
    verdict = (await bench.again(admitted.index)).verdict
    assert isinstance(verdict, NotReproducibleHere)
    assert verdict.why is Why.NOTHING_GENERATED


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"root": "0" * 64}, Why.ANOTHER_MODEL),
        ({"name": "other"}, Why.ANOTHER_MODEL),
        ({"tenants": ("plant-2",)}, Why.TENANT_NOT_NAMED),
        ({"max_model_len": 8}, Why.DOES_NOT_FIT),
    ],
)
async def test_a_model_that_is_not_the_recorded_one_runs_nothing(bench: ReplayBench, change: dict, why: Why):
    """Another model, or one that may not serve that tenant now or is shorter: no run, no verdict on the answer."""
    index = await bench.record(completion())
    bench.walk.model = replace(bench.walk.model, **change)
    verdict = (await bench.again(index)).verdict
    assert isinstance(verdict, NotReproducibleHere)
    assert verdict.why is why
    assert len(bench.engine.streams) == 1


@pytest.mark.parametrize("fact", ["model_loaded_index", "sampling", "n"])
async def test_a_record_of_an_older_release_is_told_as_such(bench: ReplayBench, fact: str):
    """A leaf that lacks a fact is no error of ours and no verdict on the answer."""
    index = await bench.record(completion(), "r0")
    facts = {name: value for name, value in bench.reader.entry(index).leaf.event.facts.items() if name != fact}
    admitted = await bench.trail.append(Kind.REQUEST_ADMITTED, DEVELOPER, "r1", facts)
    verdict = (await bench.again(admitted.index)).verdict
    assert isinstance(verdict, NotReproducibleHere)
    assert verdict.why is Why.RECORD_INCOMPLETE
    assert fact in verdict.explanation


async def test_policy_is_asked_for_the_label_of_the_recorded_request(bench: ReplayBench):
    """An auditor without the clearance for a request's label does not have it run, and the denial is recorded."""
    index = await bench.record(completion(), label=2)
    assert (await bench.again(index)).verdict == Reproduced()
    with pytest.raises(Forbidden) as denied:
        await bench.replayer.replay(bench.auditing("a2", clearance=1), index, PROMPT)
    assert bench.kinds("a2") == ["replay:started", "request:denied", "replay:ended"]
    assert denied.value.receipt is not None
    assert bench.end_of("a2")["code"] == "forbidden"
    assert len(bench.engine.streams) == 2


@pytest.mark.parametrize(("index", "error"), [(0, BadRequest), (10**6, NotFound)])
async def test_what_is_no_request_is_refused_with_a_record(bench: ReplayBench, index: int, error: type[Exception]):
    """A start of the appliance, or nothing at all, has no answer to replay; the attempt is recorded."""
    with pytest.raises(error):
        await bench.again(index)
    assert bench.kinds("a1") == ["replay:started", "replay:ended"]
    assert bench.end_of()["outcome"] == "refused"


async def test_one_replay_at_a_time(bench: ReplayBench):
    """While one runs the next is turned away, without a record: nothing was read."""
    index = await bench.record(completion())
    bench.engine.gate = asyncio.Event()
    bench.engine.submitted.clear()
    first = asyncio.create_task(bench.again(index))
    await bench.engine.submitted.wait()
    with pytest.raises(Overloaded) as busy:
        await bench.replayer.replay(bench.auditing("a2"), index, PROMPT)
    assert busy.value.code == "replay_busy"
    assert bench.kinds("a2") == []
    bench.engine.gate.set()
    assert (await first).verdict == Reproduced()
    assert (await bench.replayer.replay(bench.auditing("a3"), index, PROMPT)).verdict == Reproduced()


@pytest.mark.parametrize("how", ["client", "stop", "connection"])
async def test_a_replay_that_is_cut_short_is_recorded_as_cancelled(bench: ReplayBench, how: str):
    """Whoever goes away ends the replay in the engine; its end is recorded all the same."""
    index = await bench.record(completion())
    bench.engine.gate = asyncio.Event()
    bench.engine.submitted.clear()
    asking = bench.auditing()
    replaying = asyncio.create_task(bench.replayer.replay(asking, index, PROMPT))
    await bench.engine.submitted.wait()
    if how == "connection":
        replaying.cancel()
        with pytest.raises(asyncio.CancelledError):
            await replaying
    elif how == "client":
        bench.replayer.abandon(asking, "client_closed")
    else:
        bench.replayer.cut_short("appliance_stopping")
    await bench.replayer.settle()
    assert bench.engine.streams[1].cancelled.is_set()
    assert (bench.end_of()["outcome"], bench.end_of()["reason"]) == ("cancelled", Why.CANCELLED)


async def test_a_replay_has_a_deadline(bench: ReplayBench):
    """Behind everybody it could wait for ever: at the deadline it is cancelled with a record."""
    index = await bench.record(completion())
    bench.engine.gate = asyncio.Event()
    bench.replayer._deadline_s = 0.0
    verdict = (await bench.again(index)).verdict
    assert isinstance(verdict, NotReproducibleHere)
    assert verdict.why is Why.CANCELLED
    assert "replay_deadline" in verdict.explanation


@pytest.mark.parametrize("trouble", ["full", "error"])
async def test_an_engine_that_gives_up_says_nothing_of_the_answer(bench: ReplayBench, trouble: str):
    """A full queue or a dead engine is no difference."""
    index = await bench.record(completion())
    bench.engine.full_at = 1 if trouble == "full" else None
    bench.engine.error = "engine_died" if trouble == "error" else None
    verdict = (await bench.again(index)).verdict
    assert isinstance(verdict, NotReproducibleHere)
    assert verdict.why is Why.ENGINE_GAVE_UP


async def test_a_bug_in_a_replay_leaves_its_end(bench: ReplayBench, monkeypatch: pytest.MonkeyPatch):
    """A fault of ours is told as one, after `replay:ended`; the next replay runs."""
    index = await bench.record(completion())
    with monkeypatch.context() as patched:
        patched.setattr("appliance.replay.replayer.replay_plan", lambda *_: {}["no"])
        with pytest.raises(GenerationFailed):
            await bench.again(index)
    assert bench.end_of()["code"] == "internal_error"
    assert (await bench.replayer.replay(bench.auditing("a2"), index, PROMPT)).verdict == Reproduced()


@pytest.mark.parametrize("fault", ["not_persisted", "persisted"])
@pytest.mark.parametrize(("at", "kinds"), [(0, ["replay:started"]), (1, ["replay:started", "replay:ended"])])
async def test_no_record_no_replay_and_no_verdict(tmp_path: Path, fault: str, at: int, kinds: list[str]):
    """Without a durable start the engine sees nothing; without a durable end nobody hears a verdict."""
    bench = ReplayBench(tmp_path, fail_at=3 + at, fault=fault)
    await bench.load()
    index = await bench.record(completion())
    with pytest.raises(AuditError):
        await bench.again(index)
    assert len(bench.engine.streams) == 1 + at
    assert bench.kinds("a1") == kinds[: len(kinds) - (fault == "not_persisted")]
    assert bench.verify().ok
    bench.close()


async def test_a_shut_door_stops_replays_too(bench: ReplayBench):
    """An appliance that admits nothing runs nothing again."""
    index = await bench.record(completion())
    bench.door.shut(LOG_OBSTACLE)
    with pytest.raises(Unavailable):
        await bench.again(index)


async def test_no_text_is_in_any_record_of_a_replay(bench: ReplayBench):
    """Prompt, stop string and answer stand in no leaf."""
    content = ReplayContent((PlainText("sesame"),), ("barley",), ("hello",))
    request = replace(completion(sampling={"stop": ("barley",)}), prompts=(PlainText("sesame"),))
    index = await bench.record(request)
    assert (await bench.again(index, content)).verdict == Reproduced()
    for entry in bench.reader.tail(1000):
        assert not any(word in entry.leaf_bytes for word in (b"sesame", b"barley", b"hello"))


async def test_a_replay_that_died_with_the_appliance_is_ended_by_the_next_start(bench: ReplayBench):
    """`replay:started` without its end gets one, once, that says so."""
    began = await bench.trail.append(Kind.REPLAY_STARTED, AUDITOR, "a1", {"replayed_index": 1})
    for _ in range(2):
        await _close_what_was_left_open(bench.trail, bench.reader)
        assert bench.kinds("a1") == ["replay:started", "replay:ended"]
    facts = bench.end_of("a1")
    assert (facts["outcome"], facts["started_index"], facts["verdict"]) == ("abandoned", began.index, None)
