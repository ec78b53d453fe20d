"""The records that a request owes, and what it means when one cannot be written.

Promise: what a method returns a receipt for is durable; the end of an admitted request is written whatever becomes of
its facts, and a full queue of records is waited out for it, since that leaf is owed.  Only a halted log shuts the
door.  Subject keys that cannot be used are an obstacle of their own: who needs a new one is refused with a record, who
has one is served, and no request waits while the file is tried until it works again.  A request ends under the subject
key that it began under: where that was destroyed meanwhile, its end is recorded, and nothing of what it said is
committed to.  Every other failure concerns one request.

Never: a record or a line of the operator's log with a piece of a prompt or an answer in it.  The log belongs to its
writer, the door to `AdmissionDoor`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import structlog

from appliance.admission import AdmissionDoor, Obstacle
from appliance.audit_trail import AuditTrail, Kind
from appliance.choice_text import ChoiceText
from appliance.committed import (
    declared_content,
    mark_every,
    output_content,
    prompt_content,
    stop_content,
    token_spans,
    tokens_phase,
)
from appliance.conclusion import Conclusion, conclude
from appliance.errors import (
    MORE_THAN_ONE_REQUEST,
    ApplianceError,
    Conflict,
    GenerationFailed,
    Overloaded,
    Unavailable,
    recorded,
)
from appliance.gate import Asking
from appliance.inference import Admission, Finished
from appliance.logs import class_names
from appliance.metrics import ServingMetrics
from appliance.records import Timing, admitted_facts, refused_facts, terminal_facts
from appliance.run_counters import usage_facts
from appliance.running import Running
from appliance.served_model import ServedModel
from audit.errors import AuditError, AuditHalted, AuditInterrupted, AuditQueueFull, AuditRefused, SubjectErased
from audit.event import JsonValue, Receipt, SealedContent

LOG = structlog.get_logger("cloister.recorder")
LOG_OBSTACLE = Obstacle("log_unavailable", "the log cannot be written; read the operator's log, repair, restart")
LOG_AWAY_OBSTACLE = Obstacle("log_away", "the log's database went away and is waited for; look at the database server")
KEYS_OBSTACLE = Obstacle(
    "subject_keys_unavailable",
    "new callers get no answer; read the operator's log, make room for subject_keys.db or repair it",
    shuts=False,
)
KEYS_PACE_S = 5.0
"""Between two proofs that the subject keys can be written again."""


COMMITTING_LEVELS = frozenset({"commitments", "encrypted"})
SEALED_PHASES = frozenset({"output", "prompt", "stop"})
"""What a replay needs.  What a caller says beside that is committed to and kept nowhere."""


@dataclass(frozen=True, slots=True)
class Kept:
    """What is kept of some content: all under one key, or nothing."""

    commitments: Mapping[str, JsonValue] = field(default_factory=dict)
    sealed: tuple[SealedContent, ...] = ()


class RequestRecorder:
    """Writes `request:refused`, `request:admitted` and the terminal kinds; `PolicyGate` writes `request:denied`."""

    def __init__(self, trail: AuditTrail, door: AdmissionDoor, metrics: ServingMetrics) -> None:
        self._trail = trail
        self._door = door
        self._metrics = metrics
        self._keys_watch: asyncio.Task[None] | None = None
        """Runs while the obstacle of the keys stands; the event loop's."""

    async def refusal(self, asking: Asking, refusal: ApplianceError, *, param: str = "") -> None:
        """Record that a caller with a valid credential sent something that cannot be honoured.

        Raises:
            ApplianceError: it could not be recorded; this is the answer then.
        """
        facts = refused_facts(asking, refusal, param)
        try:
            receipt = await self._trail.append(Kind.REQUEST_REFUSED, asking.principal, asking.request_id, facts)
        except AuditError as failure:
            raise self.not_recorded(failure) from failure
        recorded(refusal, receipt)

    async def admission(self, running: Running, model: ServedModel) -> Admission:
        """Record that the request may reach the engine.

        Raises:
            Exception: the leaf is not known to be durable; `not_admitted` says so to the caller.
        """
        asking, request = running.asking, running.request
        try:
            kept = self._keep(running, _to_what_was_asked)
        except SubjectErased as erased:
            message = "this caller was erased at this very moment; ask again"
            raise Conflict(message, code="subject_erased") from erased
        facts = admitted_facts(asking, request, model, running.allow, running.plan, kept.commitments)
        receipt = await self._trail.append(
            Kind.REQUEST_ADMITTED, asking.principal, asking.request_id, facts, kept.sealed
        )
        return Admission(
            request_id=asking.request_id,
            receipt=receipt,
            created_s=self._trail.clock.utc_us() // 1_000_000,
            model=model.name,
            system_fingerprint=model.fingerprint,
            prompt_texts=running.plan.prompt_texts,
        )

    async def end(self, running: Running) -> Finished | ApplianceError:
        """Write the one terminal record; give what may be said once it is durable.

        Raises:
            AuditError: the log is halted.
        """
        conclusion = conclude(running)
        total_ns = self._trail.clock.monotonic_ns() - running.started_ns
        try:
            receipt = await self._append_end(running, conclusion, total_ns)
        except (AuditHalted, *MORE_THAN_ONE_REQUEST):
            raise
        except BaseException as failure:  # noqa: BLE001 - the record must be written even if its facts cannot be told
            LOG.error(  # noqa: TRY400 - a traceback could carry a piece of the answer
                "record_broke", request_id=running.asking.request_id, errors=class_names(failure)
            )
            refused = GenerationFailed("this answer cannot be recorded", code="record_refused")
            error = failure if isinstance(failure, Unavailable) else refused
            conclusion = Conclusion(Kind.REQUEST_FAILED, "failed", error)
            receipt = await self._append_bare_end(running, conclusion)
        self._metrics.request_ended(running, conclusion.kind, total_ns / 1e9)
        if conclusion.error is not None:
            return recorded(conclusion.error, receipt)
        return Finished(running.finishes(), running.usage(), receipt)

    def not_recorded(self, failure: AuditError) -> ApplianceError:
        """Say why there is no answer."""
        if isinstance(failure, AuditHalted):
            self._door.shut(LOG_OBSTACLE)
        if isinstance(failure, AuditQueueFull):
            return recorded(Overloaded("too many records are waiting; try again", code="log_busy", retry_after_s=1))
        if isinstance(failure, AuditInterrupted):
            return recorded(Unavailable("the log's database is away; try again", code=LOG_AWAY_OBSTACLE.code))
        LOG.error("not_recorded", error=type(failure).__name__, reason=str(failure))
        if isinstance(failure, AuditRefused):
            return recorded(GenerationFailed("this request cannot be recorded", code="record_refused"))
        return recorded(
            Unavailable(
                "the request could not be recorded, so it is not answered; the operator must repair the log",
                code=LOG_OBSTACLE.code,
            )
        )

    def not_admitted(self, running: Running, failure: BaseException) -> ApplianceError:
        """Say why a request has no admission."""
        if isinstance(failure, ApplianceError):
            return failure
        if isinstance(failure, AuditError):
            return self.not_recorded(failure)
        LOG.error("admission_broke", request_id=running.asking.request_id, errors=class_names(failure))
        return GenerationFailed("the appliance failed on this request", code="internal_error")

    def _keep(self, running: Running, make: Callable[[Running, _Keeping], dict[str, JsonValue]]) -> Kept:
        """Commit to the content of each phase, and seal it, where policy obliges to; elsewhere it is not put together.

        Raises:
            SubjectErased: the key that the request began under was destroyed meanwhile.
            Unavailable: the keys cannot be used.
        """
        level = running.allow.obligations.log_level
        if level not in COMMITTING_LEVELS:
            return Kept()
        keeping = _Keeping(self._trail, running.asking, running.subject_key_id, seals=level == "encrypted")
        try:
            return Kept(make(running, keeping), tuple(keeping.sealed))
        except SubjectErased:
            raise
        except AuditError as failure:
            self._tell_keys_failed(failure)
            message = "the keys of the records cannot be used, so this request is not answered; the operator must act"
            raise Unavailable(message, code=KEYS_OBSTACLE.code) from failure

    def _tell_keys_failed(self, failure: AuditError) -> None:
        LOG.error("subject_keys_failed", error=type(failure).__name__, reason=str(failure))
        self._door.show(KEYS_OBSTACLE)
        if self._keys_watch is None or self._keys_watch.done():
            self._keys_watch = asyncio.create_task(self._watch_keys())

    async def _watch_keys(self) -> None:
        """Take the obstacle back once the file works again, which a key in memory says nothing of.

        Beside the requests: a proof waits for the disk.
        """
        while True:
            await asyncio.sleep(KEYS_PACE_S)
            if self._door.stands("stopping"):
                return
            try:
                await asyncio.to_thread(self._trail.prove_subject_keys)
            except AuditError as failure:
                LOG.warning("subject_keys_still_fail", error=type(failure).__name__, reason=str(failure))
            else:
                self._door.clear(KEYS_OBSTACLE.code)
                return

    async def _append_end(self, running: Running, conclusion: Conclusion, total_ns: int) -> Receipt:
        try:
            kept, erased = self._keep(running, _to_what_was_answered), False
        except SubjectErased:
            kept, erased = Kept(), True
        facts = terminal_facts(
            running.asking,
            running.admission.receipt.index,
            running.choices,
            running.usage(),
            Timing(running.queue_ms(), running.first_token_ms(), total_ns // 1_000_000),
            outcome=conclusion.outcome,
            code=conclusion.code,
            commitments=kept.commitments,
            engine_usage=running.engine_usage(),
            subject_erased=erased,
        )
        asking = running.asking
        return await self._trail.append_owed(conclusion.kind, asking.principal, asking.request_id, facts, kept.sealed)

    async def _append_bare_end(self, running: Running, conclusion: Conclusion) -> Receipt:
        asking = running.asking
        facts = _bare_facts(running, conclusion)
        return await self._trail.append_owed(conclusion.kind, asking.principal, asking.request_id, facts)


@dataclass(slots=True)
class _Keeping:
    """Commits to the phases of one request, and seals them where it is to, all under the key of the first."""

    trail: AuditTrail
    asking: Asking
    key_id: str | None
    seals: bool
    sealed: list[SealedContent] = field(default_factory=list)

    def commit(self, phase: str, content: bytes) -> dict[str, JsonValue]:
        """Commit to the content of one phase, and seal it."""
        principal, request_id = self.asking.principal, self.asking.request_id
        made = self.trail.commitment(principal, request_id, phase, content, key_id=self.key_id)
        self.key_id = str(made["key_id"])
        if self.seals and phase in SEALED_PHASES:
            self.sealed.append(self.trail.sealed(principal, request_id, phase, content, key_id=self.key_id))
        return made

    def marks(self, choices: Sequence[ChoiceText]) -> dict[str, JsonValue]:
        """Mark every choice's tokens, so that a replay can say from where on it differs."""
        asking, every = self.asking, mark_every([choice.num_tokens for choice in choices])
        marks: list[JsonValue] = [
            self.trail.marks(
                asking.principal,
                asking.request_id,
                tokens_phase(choice.index),
                token_spans(choice.token_ids, every),
                key_id=self.key_id,
            )
            for choice in choices
        ]
        return {"every": every, "key_id": self.key_id, "marks": marks}


def _to_what_was_asked(running: Running, keeping: _Keeping) -> dict[str, JsonValue]:
    request = running.request
    made: dict[str, JsonValue] = {"prompt": keeping.commit("prompt", prompt_content(request.prompts))}
    if request.sampling.stop:
        made["stop"] = keeping.commit("stop", stop_content(request.sampling.stop))
    if request.declared:
        made["declared"] = keeping.commit("declared", declared_content(request.declared))
    running.subject_key_id = keeping.key_id
    return made


def _to_what_was_answered(running: Running, keeping: _Keeping) -> dict[str, JsonValue]:
    output = keeping.commit("output", output_content([choice.text for choice in running.choices]))
    return {"output": output, "tokens": keeping.marks(running.choices)}


def _bare_facts(running: Running, conclusion: Conclusion) -> dict[str, JsonValue]:
    """Facts that can be told of any request."""
    return {
        "admitted_index": running.admission.receipt.index,
        "code": conclusion.code,
        "engine": usage_facts(running.engine_usage()),
        "outcome": conclusion.outcome,
    }
