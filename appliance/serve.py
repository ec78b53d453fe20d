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
from appliance.prompting import PromptPlan, SeedSource, plan_prompts, prompt_commitment_content
from appliance.records import Timing, admitted_facts, refused_facts, terminal_facts
from appliance.running import GenerationStream, Running
from appliance.served_model import ServedModel
from audit.errors import AuditError, AuditQueueFull, AuditRefused
from audit.event import JsonValue, Receipt
from engine.request import GenerationRequest
from engine.service import EngineStopped, QueueFull
from policies.decision import Allow

LOG = structlog.get_logger("cloister.serve")
LOG_OBSTACLE = Obstacle("log_unavailable", "the log cannot be written; read the operator's log, repair, restart")
ENGINE_CODES = frozenset({"engine_died", "engine_failed", "engine_stopped"})
"""Errors of the engine as a whole: the caller may try again once it is back."""


class GenerationEngine(Protocol):
    """What the walk needs of the engine; `engine.service.EngineService` is the one there is."""

    def submit(self, request: GenerationRequest) -> GenerationStream:
        """Queue a request.  Raises QueueFull or EngineStopped; then the engine keeps nothing of it."""
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
        """Admitted requests without a terminal leaf, each with the task that will write it."""

    @property
    def num_running(self) -> int:
        """Admitted requests that have no terminal leaf yet."""
        return len(self._tasks)

    async def admit(self, asking: Asking, request: InferenceRequest) -> Running:
        """Authorize, plan, record, and only then hand the request to the engine.

        Raises:
            ApplianceError: not admitted, or admitted and turned away by a full queue.  Where `recorded` is false the
                caller owes the record, by `record_refusal`.
        """
        self._door.check()
        started_ns = self._trail.clock.monotonic_ns()
        self.require_model(request.model)
        try:
            allow = await self._authorize(asking, request)
            self._require_known_obligations(allow)
            plan = plan_prompts(request, self.model, allow.obligations, self._draw_seed)
            admission = await self._record_admission(asking, request, allow, plan)
        except AuditError as failure:
            raise self.not_recorded(failure) from failure
        return await self._start(Running(asking, request, admission, plan, self.model, allow, started_ns))

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
        try:
            await self._trail.append(
                Kind.REQUEST_REFUSED, asking.principal, asking.request_id, refused_facts(asking, refusal, param)
            )
        except AuditError as failure:
            raise self.not_recorded(failure) from failure

    async def drain(self, deadline_s: float) -> None:
        """Wait for running requests; at the deadline cancel what is left, and wait for its records."""
        if self._tasks:
            await asyncio.wait(self._tasks.values(), timeout=deadline_s)
        for running in tuple(self._tasks):
            running.abandon("appliance_stopping")
        if self._tasks:
            await asyncio.wait(self._tasks.values())

    async def _authorize(self, asking: Asking, request: InferenceRequest) -> Allow:
        return await self._gate.authorize(
            asking,
            "infer",
            self.model.target,
            {
                "label": asking.label,
                "n": request.n * len(request.prompts),
                "max_tokens": request.sampling.max_tokens or 0,
                "stream": request.stream,
                "logprobs": request.sampling.num_logprobs is not None,
            },
        )

    def _require_known_obligations(self, allow: Allow) -> None:
        # An obligation that cannot be carried out denies: encrypted content has no store in this release.
        if allow.obligations.log_level == "encrypted":
            raise Forbidden(
                "policy obliges keeping encrypted content, which this release cannot do; change the policy",
                code="obligation_unsupported",
            )

    async def _record_admission(
        self, asking: Asking, request: InferenceRequest, allow: Allow, plan: PromptPlan
    ) -> Admission:
        commitments: dict[str, JsonValue] = {}
        if allow.obligations.log_level == "commitments":
            commitments["prompt"] = self._commit(asking, "prompt", prompt_commitment_content(request))
            if request.declared:
                declared = json.dumps(dict(request.declared), sort_keys=True, ensure_ascii=False).encode()
                commitments["declared"] = self._commit(asking, "declared", declared)
        facts = admitted_facts(asking, request, self.model, allow, plan, commitments)
        receipt = await self._trail.append(Kind.REQUEST_ADMITTED, asking.principal, asking.request_id, facts)
        return Admission(
            request_id=asking.request_id,
            receipt=receipt,
            created_s=self._trail.clock.utc_us() // 1_000_000,
            model=self.model.name,
            system_fingerprint=self.model.fingerprint,
            prompt_texts=plan.prompt_texts,
        )

    def _commit(self, asking: Asking, phase: str, content: bytes) -> dict[str, JsonValue]:
        return self._trail.commitment(asking.principal, asking.request_id, phase, content)

    async def _start(self, running: Running) -> Running:
        """Queue every choice, or none: then the terminal record says so before the caller hears it."""
        try:
            for choice in running.plan.choices:
                running.streams.append(self._engine.submit(self._engine_request(running, choice.index)))
        except (QueueFull, EngineStopped) as refusal:
            running.cancel()
            answer = recorded(_turned_away(refusal))
            await self._record_terminal(running, Kind.REQUEST_FAILED, "failed", answer.code)
            raise answer from refusal
        generation = self._generate(running)
        self._tasks[running] = asyncio.create_task(generation, name=f"generate {running.asking.request_id}")
        return running

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

    async def _generate(self, running: Running) -> None:
        """Pump every choice to its end, write the terminal record, and only then let the answer close."""
        try:
            await self._pump_all(running)
        except* Exception as failures:  # noqa: BLE001 - our own fault, this request's alone: it still gets its record
            LOG.error(  # noqa: TRY400 - a traceback could carry a piece of the prompt
                "request_broke", request_id=running.asking.request_id, errors=_class_names(failures)
            )
            running.cancel()
            running.broken = True
        last: Finished | ApplianceError
        try:
            kind, outcome, error = _conclude(running)
            receipt = await self._record_terminal(running, kind, outcome, error.code if error else None)
            last = recorded(error) if error else Finished(running.finishes(), running.usage(), receipt)
        except AuditError as failure:
            last = self.not_recorded(failure)
        self._tasks.pop(running)
        running.close(last)

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
                running.note_tokens(self._trail.clock.monotonic_ns(), len(event.token_ids), self._metrics)
            delta = choice.take(event)
            if delta is not None:
                running.give(delta)
            if choice.has_ended() and event.finish is None:
                stream.cancel()
            if choice.error is not None:
                running.cancel()

    async def _record_terminal(self, running: Running, kind: Kind, outcome: str, code: str | None) -> Receipt:
        total_ns = self._trail.clock.monotonic_ns() - running.started_ns
        timing = Timing(running.queue_ms(), running.first_token_ms(), total_ns // 1_000_000)
        commitments: dict[str, JsonValue] = {}
        if running.allow.obligations.log_level == "commitments":
            output = json.dumps([choice.text for choice in running.choices], ensure_ascii=False).encode()
            commitments["output"] = self._commit(running.asking, "output", output)
        facts = terminal_facts(
            running.asking,
            running.admission.receipt.index,
            running.choices,
            running.usage(),
            timing,
            outcome=outcome,
            code=code,
            commitments=commitments,
        )
        self._metrics.request_ended(running, kind, total_ns / 1e9)
        try:
            return await self._trail.append(kind, running.asking.principal, running.asking.request_id, facts)
        except AuditError:
            self._door.shut(LOG_OBSTACLE)
            raise

    def not_recorded(self, failure: AuditError) -> ApplianceError:
        """Say why there is no answer.  Marked as recorded, because nothing more can be recorded."""
        if isinstance(failure, AuditQueueFull):
            return recorded(Overloaded("too many records are waiting; try again", code="log_busy", retry_after_s=1))
        if isinstance(failure, AuditRefused):
            LOG.error("record_refused", reason=failure.what)
            return recorded(GenerationFailed("this request cannot be recorded", code="record_refused"))
        self._door.shut(LOG_OBSTACLE)
        return recorded(
            Unavailable(
                "the request could not be recorded, so it is not answered; the operator must repair the log",
                code=LOG_OBSTACLE.code,
            )
        )


def _class_names(failures: BaseExceptionGroup[Exception]) -> list[str]:
    # Class names only: a message could carry a piece of the prompt.
    return [type(failure).__name__ for failure in failures.exceptions]


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
    code = next((choice.error or "engine_error" for choice in running.choices if choice.failed), None)
    code = "internal_error" if running.broken else code
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
