"""A walk without an engine, and the thinnest perimeter around our endpoints; both enforce the contracts they stand for.

`FakeWalk` gives what its script says for each admitted request: deltas, then exactly one `Finished` or one error.  It
fails the test when an endpoint reads the answers twice, reads on after the end, or abandons without a reason.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import compile_path
from tiny_tokenizers import byte_level_files

from appliance.api.call import Call
from appliance.api.error_bodies import error_response
from appliance.api.openai_routes import OPENAI_ROUTES
from appliance.errors import ApplianceError, GenerationFailed, MethodNotAllowed, NotFound
from appliance.gate import Asking
from appliance.identity.principal import Principal
from appliance.inference import Admission, Answer, ChoiceFinish, Finished, InferenceRequest, PlainText, TextDelta, Usage
from appliance.served_model import ServedModel
from appliance.settings import Settings
from appliance.text.tokenizer import ModelTokenizer
from audit.event import Receipt

CREATED_S = 1_790_000_000
ADMITTED = Receipt(41, "a" * 64, 42)
TERMINAL = Receipt(57, "b" * 64, 58)
USAGE = Usage(prompt_tokens=12, completion_tokens=5, cached_tokens=8)
CALLER = Principal("alice", "User", "plant-1", ("developer",), 2, "k1")
Script = Sequence["TextDelta | Finished | ApplianceError | asyncio.Event"]
"""An event is waited for: so a test holds an answer at a place it chooses."""


def finished(*reasons: str, stop_reason: str | int | None = None, usage: Usage = USAGE) -> Finished:
    """Give an end for as many choices as there are reasons."""
    choices = tuple(ChoiceFinish(index, reason, stop_reason) for index, reason in enumerate(reasons))
    return Finished(choices, usage, TERMINAL)


def served_model() -> ServedModel:
    """Give a model with a real tokenizer."""
    tokenizer = ModelTokenizer(byte_level_files(), nonce="0123456789abcdef" * 2)
    return ServedModel(
        name="starter",
        root="c" * 64,
        approved_until_us=2**62,
        max_label=2,
        tenants=("plant-1",),
        tokenizer=tokenizer,
        max_model_len=2048,
        max_queue_len=256,
        vocab_size=tokenizer.vocab_size,
        dtype="float32",
        quantization="none",
        engine_build="d" * 16,
        created_s=CREATED_S,
        loaded_index=0,
    )


class FakeRunning:
    """One admitted request that follows a script."""

    def __init__(self, admission: Admission, script: Script) -> None:
        self.admission = admission
        self.abandoned: list[str] = []
        self.gone = asyncio.Event()
        self.num_given = 0
        self._script = list(script)
        self._read = False

    async def answers(self) -> AsyncIterator[Answer]:
        """Follow the script."""
        assert not self._read, "the answers were read twice"
        self._read = True
        for step in self._script:
            if isinstance(step, asyncio.Event):
                await self._hold(step)
                continue
            if isinstance(step, ApplianceError):
                raise step
            self.num_given += 1
            yield step
            if isinstance(step, Finished):
                return
        raise AssertionError("the script ends neither with Finished nor with an error")

    def abandon(self, reason: str) -> None:
        """Remember who said what."""
        assert reason, "abandoned without a reason"
        self.abandoned.append(reason)
        self.gone.set()

    async def _hold(self, event: asyncio.Event) -> None:
        waits = [asyncio.ensure_future(event.wait()), asyncio.ensure_future(self.gone.wait())]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        if self.gone.is_set():
            raise GenerationFailed("nobody waited", code="cancelled")


class FakeWalk:
    """Admits what its model serves."""

    def __init__(self, model: ServedModel) -> None:
        self.model = model
        self.script: Script | Callable[[InferenceRequest], Script] = ()
        self.refusal: ApplianceError | None = None
        """Raised by the next admissions."""
        self.requests: list[InferenceRequest] = []
        self.askings: list[Asking] = []
        self.running: list[FakeRunning] = []

    async def admit(self, asking: Asking, request: InferenceRequest) -> FakeRunning:
        """Admit, or refuse as told."""
        self.require_model(request.model)
        if self.refusal is not None:
            raise self.refusal
        self.askings.append(asking)
        self.requests.append(request)
        texts = (
            tuple(one.text if isinstance(one, PlainText) else "?" for one in request.prompts) if request.echo else ()
        )
        admission = Admission(asking.request_id, ADMITTED, CREATED_S, self.model.name, self.model.fingerprint, texts)
        script = self.script(request) if callable(self.script) else self.script
        self.running.append(FakeRunning(admission, script))
        return self.running[-1]

    def require_model(self, name: str) -> None:
        """Know one model."""
        if name != self.model.name:
            raise NotFound("no such model", code="model_not_found", param="model")


@dataclass
class FakeAppliance:
    """What endpoints use of the appliance."""

    model: ServedModel = field(default_factory=served_model)
    settings: Settings = field(default_factory=lambda: Settings(max_body_bytes=64 * 1024))
    walk: FakeWalk = field(init=False)

    def __post_init__(self) -> None:
        self.walk = FakeWalk(self.model)


class FakePerimeter:
    """The ASGI application: routes and error bodies, without credentials and policy."""

    def __init__(self, appliance: FakeAppliance) -> None:
        self.appliance = appliance
        self._routes = [(compile_path(route.path)[0], route) for route in OPENAI_ROUTES]
        self._num_requests = 0

    async def __call__(self, scope, receive, send) -> None:
        """Answer one request."""
        assert scope["type"] == "http", scope["type"]
        request = Request(scope, receive)
        try:
            response = await self._answer(request)
        except ApplianceError as refusal:
            response = error_response(refusal)
        await response(scope, receive, send)

    async def _answer(self, request: Request) -> Response:
        self._num_requests += 1
        found = False
        for pattern, route in self._routes:
            match = pattern.match(request.url.path)
            if match is None:
                continue
            found = True
            if route.method == request.method:
                request.scope["path_params"] = match.groupdict()
                request_id = f"req-{self._num_requests}"
                return await route.endpoint(Call(CALLER, request, request_id, "127.0.0.1", 1, self.appliance))
        if found:
            raise MethodNotAllowed("not by this method", code="method_not_allowed", allowed=("POST",))
        raise NotFound("no such path", code="route_not_found")
