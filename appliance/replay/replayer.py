"""A replay from its request to its recorded verdict: one at a time, behind everybody else.

The walk of a replay:
1. `replay:started` is durable before a row is read or a text is held against a commitment, so that whoever tries out
   guesses leaves one record per guess.
2. The record is read, and policy is asked again: for the label that the recorded request had.
3. The texts are held against their commitments; nothing that was not recorded goes on.
4. The request runs again.  An answer that differs runs a second time: two runs that disagree accuse nobody.
5. `replay:ended` with the verdict is durable before it is told.  A task of ours writes it, not the connection.

Never: a text in a record, an answer or a line of the operator's log.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from dataclasses import dataclass, replace

import structlog

from appliance.admission import AdmissionDoor
from appliance.audit_trail import AuditTrail, Kind
from appliance.errors import (
    MORE_THAN_ONE_REQUEST,
    ApplianceError,
    BadRequest,
    GenerationFailed,
    NotFound,
    Overloaded,
    recorded,
)
from appliance.gate import Asking, PolicyGate
from appliance.generation import Generation, GenerationEngine
from appliance.logs import class_names
from appliance.replay.comparison import compare
from appliance.replay.content import ReplayContent, Source, content_refusal
from appliance.replay.reading import Recorded, read_recorded
from appliance.replay.recorded import NotARequest, NothingCommitted, RecordIncomplete
from appliance.replay.regeneration import (
    PRIORITY,
    NotCounted,
    Regenerated,
    regenerated,
    replay_plan,
    replay_request,
)
from appliance.replay.telling import ended_facts, started_facts
from appliance.replay.verdict import Difference, NotReproduced, NotReproducibleHere, Reproduced, Verdict, Why
from appliance.running import Running
from appliance.served_model import ServedModel
from audit.errors import AuditError, EntryNotFound, KeyRefused, SubjectErased
from audit.event import JsonValue, Receipt
from audit.reader import AuditReader
from engine.request import NO_USAGE, SequenceUsage
from policies.decision import Allow

LOG = structlog.get_logger("cloister.replay")
ACTION = "replayRequest"
BUSY_RETRY_S = 5
MAX_RUNS = 2
"""An answer that differs is made a second time before anybody is accused."""


@dataclass(frozen=True, slots=True)
class Replayed:
    """What a replay came to, and its two records."""

    index: int
    """Of the admission."""
    verdict: Verdict
    num_runs: int
    num_prompt_tokens: int
    num_completion_tokens: int
    started: Receipt
    ended: Receipt


@dataclass(slots=True)
class _Replay:
    """One replay under way.  The event loop's."""

    asking: Asking
    index: int
    """As asked for, and of the admission once that is known."""
    source: Source
    abandoned: str | None = None
    """Why nobody waits any more, or why it may not go on."""
    running: Running | None = None
    num_runs: int = 0
    num_prompt_tokens: int = 0
    num_completion_tokens: int = 0
    engine_usage: SequenceUsage = NO_USAGE
    """What all runs cost the engine."""

    def abandon(self, reason: str) -> None:
        """Cancel what runs, and begin nothing more."""
        self.abandoned = self.abandoned or reason
        if self.running is not None:
            self.running.abandon(reason)


class Replayer:
    """Runs replays.  Owned by the event loop."""

    def __init__(
        self,
        *,
        trail: AuditTrail,
        reader: AuditReader,
        door: AdmissionDoor,
        gate: PolicyGate,
        engine: GenerationEngine,
        model: Callable[[], ServedModel],
        deadline_s: float,
    ) -> None:
        self._trail = trail
        self._reader = reader
        self._door = door
        self._gate = gate
        self._engine = engine
        self._model = model
        self._deadline_s = deadline_s
        self._present: _Replay | None = None
        self._task: asyncio.Task[Replayed] | None = None
        """Owes `replay:ended` of the present replay."""

    async def replay(self, asking: Asking, index: int, source: Source) -> Replayed:
        """Run a recorded request again; the verdict is durable when this returns.

        Raises:
            ApplianceError: there is no verdict; where `recorded` is true the log says why.
            audit.errors.AuditError: a record could not be written.
        """
        self._door.check()
        if self._present is not None:
            raise Overloaded("another replay runs; try again after it", code="replay_busy", retry_after_s=BUSY_RETRY_S)
        present = self._present = _Replay(asking, index, source)
        self._task = asyncio.create_task(self._live(present), name=f"replay {asking.request_id}")
        try:
            return await asyncio.shield(self._task)
        except asyncio.CancelledError:
            present.abandon("client_closed")
            raise

    def abandon(self, asking: Asking, reason: str) -> None:
        """Say that nobody waits for a replay any more; it is recorded as cancelled."""
        if self._present is not None and self._present.asking is asking:
            self._present.abandon(reason)

    def cut_short(self, reason: str) -> None:
        """Cancel what runs; nobody waits for a replay at a stop."""
        if self._present is not None:
            self._present.abandon(reason)

    async def settle(self) -> None:
        """Wait until no replay owes a record."""
        if self._task is not None:
            await asyncio.wait({self._task})

    async def _live(self, present: _Replay) -> Replayed:
        """Record the start, come to a verdict, record the end: the one task that owes a replay its two leaves."""
        deadline = asyncio.get_running_loop().call_later(self._deadline_s, present.abandon, "replay_deadline")
        try:
            facts = started_facts(present.asking, present.index, present.source)
            started = await self._append(Kind.REPLAY_STARTED, present, facts)
            verdict: Verdict | ApplianceError
            try:
                verdict = await self._judge(present)
            except MORE_THAN_ONE_REQUEST:
                raise
            except BaseException as failure:  # noqa: BLE001 - the end is owed whatever it was
                verdict = _refusal(failure, present.asking.request_id)
            counts = (present.num_runs, present.num_prompt_tokens, present.num_completion_tokens)
            facts = ended_facts(present.asking, present.index, started, verdict, *counts, present.engine_usage)
            ended = await self._append(Kind.REPLAY_ENDED, present, facts)
        finally:
            deadline.cancel()
            self._present = None
        if isinstance(verdict, ApplianceError):
            raise recorded(verdict, ended)
        return Replayed(present.index, verdict, *counts, started, ended)

    async def _append(self, kind: Kind, present: _Replay, facts: dict[str, JsonValue]) -> Receipt:
        append = self._trail.append_owed if kind is Kind.REPLAY_ENDED else self._trail.append
        return await append(kind, present.asking.principal, present.asking.request_id, facts)

    async def _judge(self, present: _Replay) -> Verdict:
        """Read, ask policy, check the texts, run, compare.

        Raises:
            Exception: there is no verdict, for a reason that is no property of the recorded request.
        """
        model = self._model()
        try:
            found = await asyncio.to_thread(read_recorded, self._reader, present.index, model.loaded_index)
        except RecordIncomplete as gap:
            return NotReproducibleHere(Why.RECORD_INCOMPLETE, f"its records lack what a replay needs: {gap}")
        except NothingCommitted:
            return NotReproducibleHere(Why.NOT_COMMITTED, "policy asked for no commitments to what was said")
        present.index = found.request.index
        allow = await self._authorize(present.asking, found, model)
        refusal = _known_refusal(found, model)
        if refusal is not None:
            return refusal
        end, source = found.end, present.source
        assert end is not None, f"request {present.index} runs"
        try:
            if source is None or isinstance(source, ReplayContent):
                content = source
            else:
                content = await source.open(found.request)
            if content is None:
                return NotReproducibleHere(Why.CONTENT_MISSING, "supply the prompts; nothing of them is sealed here")
            check = self._trail.check_commitment
            refusal = await asyncio.to_thread(content_refusal, check, found.request, end, content)
            return refusal or await self._run_and_compare(present, found, content, model, allow)
        except SubjectErased:
            return NotReproducibleHere(Why.SUBJECT_ERASED, "the subject's key was destroyed while the replay ran")
        except KeyRefused:
            return NotReproducibleHere(Why.KEY_UNKNOWN, "the keyring of this appliance has no key of that subject")

    async def _authorize(self, asking: Asking, found: Recorded, model: ServedModel) -> Allow:
        """Ask policy once more, now that the label of what would run is known; the caller's own can only restrict."""
        label = max(asking.label, found.request.label)
        target = model.target_at(self._trail.clock.utc_us())
        return await self._gate.authorize(replace(asking, label=label), ACTION, target)

    async def _run_and_compare(
        self, present: _Replay, found: Recorded, content: ReplayContent, model: ServedModel, allow: Allow
    ) -> Verdict:
        """Run once; where that differs and nothing explains it, run once more."""
        assert found.end is not None, f"request {present.index} runs"
        outcomes: list[tuple[Regenerated, Difference]] = []
        while len(outcomes) < MAX_RUNS:
            again = await self._run(present, found, content, model, allow)
            if isinstance(again, NotReproducibleHere):
                return again
            difference = await asyncio.to_thread(compare, self._trail, found.request, found.end, content, again)
            if difference is None:
                return Reproduced(found.differences)
            outcomes.append((again, difference))
            explained = _explained(found, difference)
            if explained is not None:
                return explained
        (first, difference), (second, _) = outcomes
        if first != second:
            explanation = "two replays differ from one another: the arithmetic depends here on what else runs"
            return NotReproducibleHere(Why.UNSTABLE_HERE, explanation, difference)
        return NotReproduced(difference)

    async def _run(
        self, present: _Replay, found: Recorded, content: ReplayContent, model: ServedModel, allow: Allow
    ) -> Regenerated | NotReproducibleHere:
        end = found.end
        assert end is not None, f"request {present.index} runs"
        plan = await asyncio.to_thread(replay_plan, found.request, end, content, model, allow.obligations)
        if isinstance(plan, NotReproducibleHere):
            return plan
        now_ns = self._trail.clock.monotonic_ns()
        running = Running(present.asking, replay_request(found.request, content), plan, model, allow, now_ns)
        present.running = running
        if present.abandoned is not None:
            running.abandon(present.abandoned)
        secret = secrets.token_bytes(32)  # of this run alone: nothing cached is found, and nothing found later
        await Generation(self._engine, self._trail.clock, NotCounted(), secret, priority=PRIORITY).run(running)
        present.num_runs += 1
        present.engine_usage = present.engine_usage.plus(running.engine_usage())
        usage = running.usage()
        present.num_prompt_tokens += usage.prompt_tokens
        present.num_completion_tokens += usage.completion_tokens
        return regenerated(running, end)


def _known_refusal(found: Recorded, model: ServedModel) -> NotReproducibleHere | None:
    """Say what of the records and of this appliance stands against a replay."""
    request, end = found.request, found.end
    if (request.admitted.model_root, request.admitted.model) != (model.root, model.name):
        return NotReproducibleHere(Why.ANOTHER_MODEL, f"the answer came from model root {request.admitted.model_root}")
    if request.tenant not in model.tenants:
        return NotReproducibleHere(Why.TENANT_NOT_NAMED, "the model's approval does not name the request's tenant now")
    if end is None:
        return NotReproducibleHere(Why.NOT_ENDED, "the request still runs")
    if end.facts is not None and end.facts.subject_erased:
        return NotReproducibleHere(Why.SUBJECT_ERASED, "the subject was erased while the request ran")
    if end.facts is None:
        return NotReproducibleHere(Why.NOTHING_GENERATED, f"{end.kind}: its record says nothing of an answer")
    if any(
        reason is None and num_tokens
        for reason, num_tokens in zip(end.facts.finish_reasons, end.facts.num_choice_tokens, strict=True)
    ):
        return NotReproducibleHere(Why.RECORD_INCOMPLETE, "a fault of ours ended it before its last text")
    return None


def _explained(found: Recorded, difference: Difference) -> NotReproducibleHere | None:
    """Say what could explain another answer, if anything does."""
    assert found.end is not None, f"request {found.request.index} runs"
    facts = found.end.facts
    assert facts is not None, f"request {found.request.index} ended without an answer"
    if found.differences:
        names = ", ".join(found.differences)
        explanation = f"another answer came, and this is not what it was computed with: {names}"
        return NotReproducibleHere(Why.CIRCUMSTANCES_DIFFER, explanation, difference)
    if facts.cached_tokens or facts.num_preemptions:
        explanation = (
            f"another answer came; the recorded one had {facts.cached_tokens} tokens from the cache and was preempted "
            f"{facts.num_preemptions} times, so its sums ran in another order"
        )
        return NotReproducibleHere(Why.ORDER_OF_ARITHMETIC, explanation, difference)
    return None


def _refusal(failure: BaseException, request_id: str) -> ApplianceError:
    """Say in the caller's terms why there is no verdict."""
    match failure:
        case ApplianceError():
            return failure
        case NotARequest():
            message = "this entry records no admitted request; give the index of its admission or of its end"
            return BadRequest(message, code="not_a_request", param="index")
        case EntryNotFound():
            return NotFound(f"{failure.what}; see GET /audit/entries", code="entry_not_found", param="index")
    errors = f"{type(failure).__name__}: {failure}" if isinstance(failure, AuditError) else class_names(failure)
    LOG.error("replay_broke", request_id=request_id, errors=errors)
    return GenerationFailed("the appliance failed on this replay", code="internal_error")
