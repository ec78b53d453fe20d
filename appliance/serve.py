"""THE WALK of a request, free of any dialect: authorize, admit, generate, complete.

Invariants:
- The engine never sees a prompt whose `request:admitted` leaf is not durable.
- An admitted request gets exactly one terminal leaf, whoever goes away: a task of the walk writes it, not the
  connection.
- Nothing that says "finished" is given out before the terminal leaf is durable.
"""

from __future__ import annotations

import asyncio

from appliance.admission import AdmissionDoor
from appliance.audit_trail import Clock
from appliance.errors import MORE_THAN_ONE_REQUEST, ApplianceError, NotFound
from appliance.gate import Asking, PolicyGate
from appliance.generation import Generation
from appliance.inference import Finished, InferenceRequest
from appliance.prompting import PromptPlan, SeedSource, plan_prompts, prompt_size
from appliance.recorder import RequestRecorder
from appliance.running import Running
from appliance.served_model import ServedModel
from audit.errors import AuditError
from policies.decision import Allow

CANCEL_GRACE_S = 5.0
"""From the cancellation of what outlived the drain to the end of the engine that does not answer it."""
SHORT_PROMPT = 4096
"""Characters or token ids that are planned on the event loop: about a millisecond's work."""


class Walk:
    """Takes requests from authorized to recorded.  Owned by the event loop."""

    def __init__(
        self,
        *,
        model: ServedModel,
        door: AdmissionDoor,
        gate: PolicyGate,
        recorder: RequestRecorder,
        generation: Generation,
        clock: Clock,
        draw_seed: SeedSource,
    ) -> None:
        self.model = model
        self._door = door
        self._gate = gate
        self._recorder = recorder
        self._generation = generation
        self._clock = clock
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
                caller owes the record, by `RequestRecorder.refusal`.
        """
        self._door.check()
        self._generation.check_progress()
        started_ns = self._clock.monotonic_ns()
        self.require_model(request.model)
        allow = await self._authorize(asking, request)
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

    async def _live(self, running: Running) -> None:
        """Record the admission, generate, record the end: the one task that owes a request its two leaves."""
        try:
            admission = await self._recorder.admission(running, self.model)
        except MORE_THAN_ONE_REQUEST:
            raise
        except BaseException as failure:  # noqa: BLE001 - whatever it was, the engine hears nothing of this request
            self._tasks.pop(running)
            running.refuse(self._recorder.not_admitted(running, failure))
            return
        running.admit(admission)
        last: Finished | ApplianceError
        try:
            await self._generation.run(running)
            last = await self._recorder.end(running)
        except AuditError as failure:
            last = self._recorder.not_recorded(failure)
        finally:
            self._tasks.pop(running)
        running.close(last)

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

    def require_model(self, name: str) -> None:
        """Raise NotFound unless `name` is the model served here."""
        if name != self.model.name:
            raise NotFound(
                f"no model of that name is served here; the model is {self.model.name}",
                code="model_not_found",
                param="model",
            )

    async def _authorize(self, asking: Asking, request: InferenceRequest) -> Allow:
        """Ask policy.  Raises Forbidden, or why a denial could not be recorded."""
        context = {
            "n": request.n * len(request.prompts),
            "max_tokens": request.sampling.max_tokens or 0,
            "stream": request.stream,
            "logprobs": request.sampling.num_logprobs is not None,
        }
        target = self.model.target_at(self._clock.utc_us())
        try:
            return await self._gate.authorize(asking, "infer", target, context)
        except AuditError as failure:
            raise self._recorder.not_recorded(failure) from failure

    async def _plan(self, request: InferenceRequest, allow: Allow) -> PromptPlan:
        """Tokenize and fix every parameter; a long prompt beside the event loop, so that nobody waits for it."""
        arguments = (request, self.model, allow.obligations, self._draw_seed)
        if prompt_size(request) <= SHORT_PROMPT:
            return plan_prompts(*arguments)
        return await asyncio.to_thread(plan_prompts, *arguments)

    async def _wait(self, timeout_s: float | None) -> None:
        if self._tasks:
            await asyncio.wait(self._tasks.values(), timeout=timeout_s)
