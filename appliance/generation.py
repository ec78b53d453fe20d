"""An admitted request inside the engine: every choice queued, or none; each pumped to its end.

Promise: what goes wrong here is kept in the request for its terminal record, and reaches no other request; a choice
whose text has ended is cancelled in the engine.  A cached prefix is shared inside one tenant and label only, whatever
the client sends.

Never: runs before the admission is durable; lets what went wrong out as an exception.  Owner of a request's state is
`Running`; here only the secret that salts the prefix cache lives, and it dies with the process.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
from typing import Protocol

import structlog

from appliance.audit_trail import Clock
from appliance.errors import MORE_THAN_ONE_REQUEST, ApplianceError, GenerationFailed, Overloaded, Unavailable
from appliance.gate import Asking
from appliance.logs import class_names
from appliance.prompting import PlannedChoice
from appliance.running import GenerationStream, Running, TokenMetrics
from engine.errors import EngineStopped, QueueFull
from engine.health import EngineHealth
from engine.request import GenerationRequest

LOG = structlog.get_logger("cloister.generation")


class GenerationEngine(Protocol):
    """What generation needs of the engine; `engine.service.EngineService` is the one there is."""

    def submit(self, request: GenerationRequest) -> GenerationStream:
        """Queue a request.  Raises QueueFull or EngineStopped; then the engine keeps nothing of it."""
        ...

    def health(self) -> EngineHealth:
        """Give the state as of now."""
        ...


class Generation:
    """Hands requests to the engine and their events back.  On the event loop."""

    def __init__(
        self, engine: GenerationEngine, clock: Clock, metrics: TokenMetrics, cache_secret: bytes, *, priority: int = 0
    ) -> None:
        """Prepare.

        Args:
            engine: takes the requests.
            clock: times the tokens.
            metrics: are told of the tokens' times.
            cache_secret: salts the prefix cache; whoever has another one shares nothing.
            priority: of every sequence, the higher the sooner.
        """
        self._engine = engine
        self._priority = priority
        self._clock = clock
        self._metrics = metrics
        self._cache_secret = cache_secret

    def check_progress(self) -> None:
        """Raise `Unavailable` while the engine has work and makes no step."""
        health = self._engine.health()
        if health.state == "ready" and not health.is_healthy:
            raise Unavailable("the engine makes no progress; the operator must restart it", code="engine_stalled")

    async def run(self, running: Running) -> None:
        """Take an admitted request to the end of its last choice, or to what ended it before."""
        try:
            if running.abandoned is None:
                for choice in running.plan.choices:
                    running.streams.append(self._engine.submit(self._engine_request(running.asking, choice)))
                running.open()
                await self._pump_all(running)
        except (QueueFull, EngineStopped) as refusal:
            running.fail(_turned_away(refusal))
        except MORE_THAN_ONE_REQUEST:
            raise
        except BaseException as failure:  # noqa: BLE001 - our own fault or a library's panic, this request's alone
            LOG.error(  # noqa: TRY400 - a traceback could carry a piece of the prompt
                "request_broke", request_id=running.asking.request_id, errors=class_names(failure)
            )
            running.fail(GenerationFailed("the appliance failed on this request", code="internal_error"))

    def _engine_request(self, asking: Asking, choice: PlannedChoice) -> GenerationRequest:
        return GenerationRequest(
            request_id=f"{asking.request_id}/{choice.index}",
            token_ids=choice.token_ids,
            params=choice.params,
            cache_salt=self._cache_salt(asking),
            fairness_key=asking.principal.tenant,
            priority=self._priority,
        )

    def _cache_salt(self, asking: Asking) -> bytes:
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
                running.note_tokens(index, self._clock.monotonic_ns(), len(event.token_ids), self._metrics)
            delta = choice.take(event)
            if delta is not None:
                running.give(delta)
            if choice.has_ended() and event.finish is None:
                stream.cancel()
            if choice.error is not None:
                running.cancel()


def _turned_away(refusal: QueueFull | EngineStopped) -> ApplianceError:
    if isinstance(refusal, QueueFull):
        return Overloaded(
            "too many requests are waiting; try again after the time in Retry-After",
            code="queue_full",
            retry_after_s=1,
        )
    return Unavailable("the engine does not run now; see /readyz", code="engine_stopped")
