"""Every call's way in: host, credential, route, policy, endpoint - in this order, for every path and method.

Invariants:
- Without a valid credential every route, method and unknown path answers 401; the two open routes are listed here.
- Each route names a policy action that exists, or the table is refused at start.
- For every action but `infer` policy is asked here; `infer` is asked inside the walk, once the body is known.
- The id of a call in records, logs and answers is ours; what the caller sent is never written down in the clear.
- A query parameter that the route does not name is refused, on the open routes too.
- Whatever goes wrong, the caller gets an OpenAI error body and the log gets a record where an inference was tried.
"""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import structlog
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import compile_path
from starlette.types import Message, Receive, Scope, Send

from appliance.api.call import Call
from appliance.api.error_bodies import error_response
from appliance.api.head import checked_query, declared_label, declared_request_id
from appliance.api.health import livez, readyz
from appliance.api.route_spec import RouteSpec
from appliance.errors import (
    MORE_THAN_ONE_REQUEST,
    ApplianceError,
    BadRequest,
    GenerationFailed,
    MethodNotAllowed,
    NotFound,
    Unavailable,
    recorded,
)
from appliance.gate import Asking
from appliance.identity.errors import KeyStoreError
from appliance.receipt_text import RECEIPT_HEADER, shown_receipt
from audit.errors import AuditError, EntryNotFound
from audit.event import Receipt
from policies.actions import ACTIONS
from policies.decision import TargetFacts

if TYPE_CHECKING:
    from appliance.app import Appliance

LOG = structlog.get_logger("cloister.http")
OPEN_ROUTES: Mapping[str, Callable[[Appliance], JSONResponse]] = {"/livez": livez, "/readyz": readyz}
"""GET only; nothing else answers without a credential."""
HOST_PORT = re.compile(r":\d{1,5}$", re.ASCII)
WALK_ACTION = "infer"


class RouteTableRefused(Exception):
    """A route without a known action, or two routes in one place: the appliance does not start."""


class RouteTable:
    """The closed list of routes."""

    def __init__(self, routes: Sequence[RouteSpec]) -> None:
        self._routes = [(compile_path(route.path)[0], route) for route in routes]
        seen: set[tuple[str, str]] = set()
        for route in routes:
            if route.action not in ACTIONS:
                raise RouteTableRefused(f"{route.method} {route.path} names no known policy action: {route.action!r}")
            if (route.method, route.path) in seen or route.path in OPEN_ROUTES:
                raise RouteTableRefused(f"{route.method} {route.path} stands twice")
            seen.add((route.method, route.path))

    def find(self, method: str, path: str) -> tuple[RouteSpec, dict[str, str]]:
        """Give the route and its path parameters.

        Raises:
            NotFound, MethodNotAllowed: no such path, or not by this method.
        """
        allowed: list[str] = []
        for pattern, route in self._routes:
            match = pattern.fullmatch(path)  # `$` alone would let a final newline by
            if match is None:
                continue
            if route.method == method:
                return route, match.groupdict()
            allowed.append(route.method)
        if allowed:
            names = tuple(sorted(allowed))
            raise MethodNotAllowed(f"this path takes {', '.join(names)} only", code="method_not_allowed", allowed=names)
        raise NotFound("there is no such path; GET /openapi.json lists those that exist", code="route_not_found")

    def handler(self, method: str, path: str) -> str:
        """Give the route's template for logs and metrics, which must never hold a path that a client made up."""
        if path in OPEN_ROUTES:
            return path if method == "GET" else "unknown"
        try:
            return self.find(method, path)[0].path
        except (NotFound, MethodNotAllowed):
            return "unknown"


class Perimeter:
    """The ASGI application."""

    def __init__(self, appliance: Appliance, routes: RouteTable) -> None:
        self._appliance = appliance
        self._routes = routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one HTTP request; nothing else is spoken here."""
        if scope["type"] != "http":
            raise RuntimeError(f"this server speaks HTTP only, not {scope['type']}")
        body = _WatchedReceive(receive)
        request = Request(scope, body)
        request_id = f"req-{secrets.token_hex(12)}"
        handler = self._routes.handler(scope["method"], scope["path"])
        watched = _WatchedSend(send, request_id)
        started_ns = time.monotonic_ns()
        response = await self._answer(request, request_id, handler)
        try:
            await response(scope, body, watched)
        finally:
            method = scope["method"] if handler != "unknown" else "unknown"
            self._appliance.metrics.http_answered(
                handler,
                method,
                watched.status,
                seconds=(time.monotonic_ns() - started_ns) / 1e9,
                request_bytes=body.num_bytes,
                response_bytes=watched.num_body_bytes,
            )
            LOG.info(
                "http_request",
                handler=handler,
                method=method,
                ms=(time.monotonic_ns() - started_ns) // 1_000_000,
                request_id=request_id,
                status=watched.status,
            )

    async def _answer(self, request: Request, request_id: str, handler: str) -> Response:
        try:
            self._check_host(request)
            if request.scope["path"] in OPEN_ROUTES and request.method == "GET":
                checked_query(request, ())
                return OPEN_ROUTES[request.scope["path"]](self._appliance)
            return await self._answer_call(request, request_id, handler)
        except MORE_THAN_ONE_REQUEST:
            raise
        except BaseException as fault:  # noqa: BLE001 - one call's fault is its own
            return error_response(self._refusal(fault, request_id))

    def _refusal(self, fault: BaseException, request_id: str) -> ApplianceError:
        """Say in the caller's terms what went wrong."""
        match fault:
            case ApplianceError():
                return fault
            case EntryNotFound():
                return NotFound(f"{fault.what}; see GET /audit/entries", code="entry_not_found")
            case AuditError():
                return self._appliance.recorder.not_recorded(fault)
            case KeyStoreError():
                LOG.error("key_store_failed", error=str(fault))
                return Unavailable("keys cannot be checked now", code="key_store_unavailable")
        # The class only: a message or traceback could carry a piece of the prompt.
        LOG.error("request_broke", request_id=request_id, error=type(fault).__name__)
        return GenerationFailed("the appliance failed on this request", code="internal_error")

    async def _answer_call(self, request: Request, request_id: str, handler: str) -> Response:
        source = request.client.host if request.client else ""
        principal = await self._appliance.doorkeeper.admit(
            request.headers.raw,
            request.scope["query_string"],
            request_id=request_id,
            handler=handler,
            source=source,
        )
        route, request.scope["path_params"] = self._routes.find(request.method, request.scope["path"])
        asking = Asking(principal, request_id, route.path, source)
        receipts: list[Receipt] = []
        try:
            asking = replace(asking, label=declared_label(request))
            call = Call(
                principal,
                request,
                request_id,
                source,
                asking.label,
                self._appliance,
                query=checked_query(request, route.query),
                declared_id=declared_request_id(request),
                receipts=receipts,
            )
            if route.action != WALK_ACTION:
                await self._appliance.gate.authorize(asking, route.action, self._target(route))
            response = await route.endpoint(call)
        except MORE_THAN_ONE_REQUEST:
            raise
        except BaseException as fault:
            refusal = self._refusal(fault, request_id)
            if receipts and refusal.receipt is None:
                recorded(refusal, receipts[-1])
            if route.action == WALK_ACTION and not refusal.recorded:
                param = _known_field(route, refusal.param)
                await self._appliance.recorder.refusal(asking, refusal, param=param)
            raise refusal from fault
        if receipts:
            response.headers.setdefault(RECEIPT_HEADER, shown_receipt(receipts[-1]))
        return response

    def _target(self, route: RouteSpec) -> TargetFacts:
        kind = ACTIONS[route.action].target
        if kind == "Model":
            return self._appliance.model.target_at(self._appliance.trail.clock.utc_us())
        return TargetFacts(kind, "local")

    def _check_host(self, request: Request) -> None:
        # DNS rebinding: a page in a browser must not reach a loopback server under a name of its own.
        host = request.headers.get("host", "")
        name = HOST_PORT.sub("", host)
        if name.lower() not in self._appliance.settings.served_hosts:
            raise BadRequest(
                "this Host is not served here; see CLOISTER_ALLOWED_HOSTS", code="host_not_allowed", param="host"
            )


class _WatchedReceive:
    """Counts the bytes of the request's body that were read."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self.num_bytes = 0

    async def __call__(self) -> Message:
        message = await self._receive()
        self.num_bytes += len(message.get("body", b""))
        return message


class _WatchedSend:
    """Adds the request id to the head, remembers the status and counts the bytes of the body."""

    def __init__(self, send: Send, request_id: str) -> None:
        self._send = send
        self._request_id = request_id
        self.status = 0
        """0 until the head went out."""
        self.num_body_bytes = 0

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = [pair for pair in message.get("headers", []) if pair[0].lower() != b"x-request-id"]
            message = {**message, "headers": [*headers, (b"x-request-id", self._request_id.encode())]}
        await self._send(message)
        self.num_body_bytes += len(message.get("body", b""))


def _known_field(route: RouteSpec, param: str | None) -> str:
    # The log holds no text of a client; the name of a field that does not exist is such text.
    name = re.split(r"[.\[]", param or "", maxsplit=1)[0]
    return name if route.request_model is not None and name in route.request_model.model_fields else ""
