"""THE WALK of a request, free of any dialect: authorize, admit, generate, complete.

Invariants:
- The engine never sees a prompt whose `request:admitted` leaf is not durable.
- An admitted request gets exactly one terminal leaf, whoever goes away: a task of the walk writes it, not the
  connection.
- Nothing that says "finished" is given out before the terminal leaf is durable.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
from typing import Protocol

import structlog

from appliance.admission import AdmissionDoor, Obstacle
from appliance.audit_trail import AuditTrail, Kind
from appliance.errors import ApplianceError, Forbidden, GenerationFailed, NotFound, Overloaded, Unavailable, recorded
from appliance.gate import Asking, PolicyGate
from appliance.inference import Admission, Finished, InferenceRequest
from appliance.metrics import ServingMetrics
from appliance.prompting import PromptPlan, SeedSource, plan_prompts, prompt_commitment_content, prompt_size
from appliance.records import Timing, admitted_facts, refused_facts, terminal_facts
from appliance.running import GenerationStream, Running
from appliance.served_model import ServedModel
from audit.errors import AuditError, AuditHalted, AuditQueueFull, AuditRefused
from audit.event import JsonValue, Receipt
from engine.errors import EngineStopped, QueueFull
from engine.health import EngineHealth
from engine.request import GenerationRequest
from policies.decision import Allow

LOG = structlog.get_logger("cloister.serve")
LOG_OBSTACLE = Obstacle("log_unavailable", "the log cannot be written; read the operator's log, repair, restart")
CANCEL_GRACE_S = 5.0
"""From the cancellation of what outlived the drain to the end of the engine that does not answer it."""
LOG_RETRY_S = 0.05
SHORT_PROMPT = 4096
"""Characters or token ids that are planned on the event loop: about a millisecond's work."""
ENGINE_CODES = frozenset({"engine_died", "engine_failed", "engine_stopped"})
"""Errors of the engine as a whole: the caller may try again once it is back."""


class GenerationEngine(Protocol):
    """What the walk needs of the engine; `engine.service.EngineService` is the one there is."""

    def submit(self, request: GenerationRequest) -> GenerationStream:
        """Queue a request.  Raises QueueFull or EngineStopped; then the engine keeps nothing of it."""
        ...

    def health(self) -> EngineHealth:
        """Give the state as of now."""
        ...


class Walk:
    """Takes requests from authorized to recorded.  Owned by the event loop."""

    def __init__(
        self,
        *,
        model: ServedModel,
        engine: GenerationEngine,
        gate: PolicyGate,
        trail: AuditTrail,
        door: AdmissionDoor,
        metrics: ServingMetrics,
        cache_secret: bytes,
        draw_seed: SeedSource,
    ) -> None:
        self.model = model
        self._engine = engine
        self._gate = gate
        self._trail = trail
        self._door = door
        self._metrics = metrics
        self._cache_secret = cache_secret
        """Salts the prefix cache; of this process alone."""
        self._draw_seed = draw_seed
        self._tasks: dict[Running, asyncio.Task[None]] = {}
        """Requests from before their admission is recorded until their terminal leaf is, each with the task that owes
        that leaf."""

    @property
    def num_running(self) -> int:
        """Requests that still owe a record."""
        return len(self._tasks)

    async def admit(self, asking: Asking, request: InferenceRequest) -> Running:
        """Authorize, plan, record, and only then hand the request to the engine.

        Raises:
            ApplianceError: not admitted, or admitted and turned away by a full queue.  Where `recorded` is false the
                caller owes the record, by `record_refusal`.
        """
        self._check_ready()
        started_ns = self._trail.clock.monotonic_ns()
        self.require_model(request.model)
        try:
            allow = await self._authorize(asking, request)
        except AuditError as failure:
            raise self.not_recorded(failure) from failure
        self._require_known_obligations(allow)
        plan = await self._plan(request, allow)
        self._door.check()  # it may have shut while policy's answer was recorded; from here on `drain` sees the request
        running = Running(asking, request, plan, self.model, allow, started_ns)
        self._tasks[running] = asyncio.create_task(self._live(running), name=f"request {asking.request_id}")
        try:
            await running.admitted()
        except asyncio.CancelledError:
            running.abandon("client_closed")
            raise
        return running

    def require_model(self, name: str) -> None:
        """Raise NotFound unless `name` is the model served here."""
        if name != self.model.name:
            raise NotFound(
                f"no model of that name is served here; the model is {self.model.name}",
                code="model_not_found",
                param="model",
            )

    async def record_refusal(self, asking: Asking, refusal: ApplianceError, *, param: str = "") -> None:
        """Record that a caller with a valid credential sent something that cannot be honoured."""
        facts = refused_facts(asking, refusal, param)
        try:
            receipt = await self._trail.append(Kind.REQUEST_REFUSED, asking.principal, asking.request_id, facts)
        except AuditError as failure:
            raise self.not_recorded(failure) from failure
        recorded(refusal, receipt)

    async def drain(self, deadline_s: float) -> None:
        """Wait for the requests that run; at the deadline abandon what is left, and wait a moment for its records.

        The engine answers a cancellation within one step.  One that does not step at all is ended by its own `stop`,
        which gives every sequence its last event; `settle` then waits for the records without a limit.
        """
        await self._wait(deadline_s)
        for running in tuple(self._tasks):
            running.abandon("appliance_stopping")
        await self._wait(CANCEL_GRACE_S)

    async def settle(self) -> None:
        """Wait until no request owes a record."""
        await self._wait(None)

    async def _wait(self, timeout_s: float | None) -> None:
        if self._tasks:
            await asyncio.wait(self._tasks.values(), timeout=timeout_s)

    async def _authorize(self, asking: Asking, request: InferenceRequest) -> Allow:
        return await self._gate.authorize(
            asking,
            "infer",
            self.model.target_at(self._trail.clock.utc_us()),
            {
                "label": asking.label,
                "n": request.n * len(request.prompts),
                "max_tokens": request.sampling.max_tokens or 0,
                "stream": request.stream,
                "logprobs": request.sampling.num_logprobs is not None,
            },
        )

    def _check_ready(self) -> None:
        """Raise `Unavailable` while nothing is admitted, or while the engine has work and makes no step."""
        self._door.check()
        health = self._engine.health()
        if health.state == "ready" and not health.is_healthy:
            raise Unavailable("the engine makes no progress; the operator must restart it", code="engine_stalled")

    async def _plan(self, request: InferenceRequest, allow: Allow) -> PromptPlan:
        """Tokenize and fix every parameter; a long prompt beside the event loop, so that nobody waits for it."""
        arguments = (request, self.model, allow.obligations, self._draw_seed)
        if prompt_size(request) <= SHORT_PROMPT:
            return plan_prompts(*arguments)
        return await asyncio.to_thread(plan_prompts, *arguments)

    def _require_known_obligations(self, allow: Allow) -> None:
        # An obligation that cannot be carried out denies: encrypted content has no store in this release.
        if allow.obligations.log_level == "encrypted":
            raise Forbidden(
                "policy obliges keeping encrypted content, which this release cannot do; change the policy",
                code="obligation_unsupported",
            )

    async def _live(self, running: Running) -> None:
        """Record the admission, generate, record the end: the one task that owes a request its two leaves."""
        try:
            admission = await self._record_admission(running)
        except Exception as failure:  # noqa: BLE001 - whatever it was, the engine hears nothing of this request
            self._tasks.pop(running)
            running.refuse(self._not_admitted(running, failure))
            return
        running.admit(admission)
        last: Finished | ApplianceError
        try:
            await self._generate(running)
            last = await self._record_end(running)
        except AuditError as failure:
            last = self.not_recorded(failure)
        finally:
            self._tasks.pop(running)
        running.close(last)

    async def _generate(self, running: Running) -> None:
        """Queue every choice, or none, and pump each to its end; what goes wrong is kept for the record."""
        try:
            if running.abandoned is None:
                for choice in running.plan.choices:
                    running.streams.append(self._engine.submit(self._engine_request(running, choice.index)))
                running.open()
                await self._pump_all(running)
        except (QueueFull, EngineStopped) as refusal:
            running.fail(_turned_away(refusal))
        except Exception as failure:  # noqa: BLE001 - our own fault, this request's alone: it still gets its record
            LOG.error(  # noqa: TRY400 - a traceback could carry a piece of the prompt
                "request_broke", request_id=running.asking.request_id, errors=_class_names(failure)
            )
            running.fail(GenerationFailed("the appliance failed on this request", code="internal_error"))

    async def _record_admission(self, running: Running) -> Admission:
        asking, request, allow = running.asking, running.request, running.allow
        commitments: dict[str, JsonValue] = {}
        if allow.obligations.log_level == "commitments":
            commitments["prompt"] = self._commit(asking, "prompt", prompt_commitment_content(request))
            if request.declared:
                declared = json.dumps(dict(request.declared), sort_keys=True, ensure_ascii=False).encode()
                commitments["declared"] = self._commit(asking, "declared", declared)
        facts = admitted_facts(asking, request, self.model, allow, running.plan, commitments)
        receipt = await self._trail.append(Kind.REQUEST_ADMITTED, asking.principal, asking.request_id, facts)
        return Admission(
            request_id=asking.request_id,
            receipt=receipt,
            created_s=self._trail.clock.utc_us() // 1_000_000,
            model=self.model.name,
            system_fingerprint=self.model.fingerprint,
            prompt_texts=running.plan.prompt_texts,
        )

    def _commit(self, asking: Asking, phase: str, content: bytes) -> dict[str, JsonValue]:
        return self._trail.commitment(asking.principal, asking.request_id, phase, content)

    def _engine_request(self, running: Running, index: int) -> GenerationRequest:
        choice = running.plan.choices[index]
        return GenerationRequest(
            request_id=f"{running.asking.request_id}/{index}",
            token_ids=choice.token_ids,
            params=choice.params,
            cache_salt=self._cache_salt(running.asking),
            fairness_key=running.asking.principal.tenant,
        )

    def _cache_salt(self, asking: Asking) -> bytes:
        # A cached prefix is shared inside one tenant and label only, whatever the client sends.
        line = json.dumps([asking.principal.tenant, asking.label]).encode()
        return hmac.digest(self._cache_secret, line, hashlib.sha256)

    async def _pump_all(self, running: Running) -> None:
        async with asyncio.TaskGroup() as pumps:
            for index in range(len(running.streams)):
                pumps.create_task(self._pump(running, index))

    async def _pump(self, running: Running, index: int) -> None:
        choice, stream = running.choices[index], running.streams[index]
        async for event in stream:
            if choice.has_ended():
                continue  # a stop string ended it; what the engine made meanwhile is nobody's
            if event.token_ids:
                running.note_tokens(index, self._trail.clock.monotonic_ns(), len(event.token_ids), self._metrics)
            delta = choice.take(event)
            if delta is not None:
                running.give(delta)
            if choice.has_ended() and event.finish is None:
                stream.cancel()
            if choice.error is not None:
                running.cancel()

    async def _record_end(self, running: Running) -> Finished | ApplianceError:
        """Write the one terminal record; give what may be said once it is durable.

        Raises:
            AuditError: the log is halted.
        """
        kind, outcome, error = _conclude(running)
        total_ns = self._trail.clock.monotonic_ns() - running.started_ns
        try:
            facts = self._terminal_facts(running, outcome, error.code if error else None, total_ns)
            receipt = await self._append_end(running, kind, facts)
        except AuditHalted:
            raise
        except Exception as failure:  # noqa: BLE001 - the record must be written even if its facts cannot be told
            LOG.error(  # noqa: TRY400 - see above
                "record_broke", request_id=running.asking.request_id, errors=_class_names(failure)
            )
            kind, error = Kind.REQUEST_FAILED, GenerationFailed("this answer cannot be recorded", code="record_refused")
            bare: dict[str, JsonValue] = {
                "admitted_index": running.admission.receipt.index,
                "code": error.code,
                "outcome": "failed",
            }
            receipt = await self._append_end(running, kind, bare)
        self._metrics.request_ended(running, kind, total_ns / 1e9)
        return recorded(error, receipt) if error else Finished(running.finishes(), running.usage(), receipt)

    def _terminal_facts(self, running: Running, outcome: str, code: str | None, total_ns: int) -> dict[str, JsonValue]:
        commitments: dict[str, JsonValue] = {}
        if running.allow.obligations.log_level == "commitments":
            output = json.dumps([choice.text for choice in running.choices], ensure_ascii=False).encode()
            commitments["output"] = self._commit(running.asking, "output", output)
        return terminal_facts(
            running.asking,
            running.admission.receipt.index,
            running.choices,
            running.usage(),
            Timing(running.queue_ms(), running.first_token_ms(), total_ns // 1_000_000),
            outcome=outcome,
            code=code,
            commitments=commitments,
        )

    async def _append_end(self, running: Running, kind: Kind, facts: dict[str, JsonValue]) -> Receipt:
        """Append a terminal record; a full queue of records is waited out, since this leaf is owed."""
        while True:
            try:
                return await self._trail.append(kind, running.asking.principal, running.asking.request_id, facts)
            except AuditQueueFull:
                await asyncio.sleep(LOG_RETRY_S)

    def _not_admitted(self, running: Running, failure: Exception) -> ApplianceError:
        if isinstance(failure, AuditError):
            return self.not_recorded(failure)
        LOG.error("admission_broke", request_id=running.asking.request_id, errors=_class_names(failure))
        return GenerationFailed("the appliance failed on this request", code="internal_error")

    def not_recorded(self, failure: AuditError) -> ApplianceError:
        """Say why there is no answer.  Only a halted log shuts the door: everything else concerns one request."""
        if isinstance(failure, AuditHalted):
            self._door.shut(LOG_OBSTACLE)
        if isinstance(failure, AuditQueueFull):
            return recorded(Overloaded("too many records are waiting; try again", code="log_busy", retry_after_s=1))
        LOG.error("not_recorded", error=type(failure).__name__, reason=str(failure))
        if isinstance(failure, AuditRefused):
            return recorded(GenerationFailed("this request cannot be recorded", code="record_refused"))
        return recorded(
            Unavailable(
                "the request could not be recorded, so it is not answered; the operator must repair the log",
                code=LOG_OBSTACLE.code,
            )
        )


def _class_names(failure: BaseException) -> list[str]:
    # Class names only: a message could carry a piece of the prompt.
    inner = failure.exceptions if isinstance(failure, BaseExceptionGroup) else (failure,)
    return [type(one).__name__ for one in inner]


def _turned_away(refusal: QueueFull | EngineStopped) -> ApplianceError:
    if isinstance(refusal, QueueFull):
        return Overloaded(
            "too many requests are waiting; try again after the time in Retry-After",
            code="queue_full",
            retry_after_s=1,
        )
    return Unavailable("the engine does not run now; see /readyz", code="engine_stopped")


def _conclude(running: Running) -> tuple[Kind, str, ApplianceError | None]:
    """Say how the whole request ended: an error of any choice outweighs a cancellation, that outweighs success."""
    if running.failure is not None:
        return Kind.REQUEST_FAILED, "failed", running.failure
    code = next((choice.error or "engine_error" for choice in running.choices if choice.failed), None)
    if code is not None:
        if code in ENGINE_CODES:
            message = "the engine stopped while it worked on this request; it is recorded as failed, send it again"
            return Kind.REQUEST_FAILED, "failed", Unavailable(message, code=code)
        message = "the model could not continue this request; it is recorded as failed"
        return Kind.REQUEST_FAILED, "failed", GenerationFailed(message, code=code)
    if running.abandoned is not None:
        message = "the request was cancelled; it is recorded as cancelled"
        return Kind.REQUEST_CANCELLED, "cancelled", Unavailable(message, code=running.abandoned)
    return Kind.REQUEST_COMPLETED, "completed", None
