"""One route as a value: what the router, the policy check and the OpenAPI document all read."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from pydantic import BaseModel
from starlette.responses import Response

from appliance.api.call import Call

Endpoint: TypeAlias = Callable[[Call], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class RouteSpec:
    """A path and a method, the policy action they need, and what answers."""

    path: str
    """With `{name}` for path parameters."""
    method: Literal["GET", "POST", "DELETE"]
    action: str
    """Name of a policy action; a route without a known one stops the start."""
    request_model: type[BaseModel] | None
    """The wire type of the body; None for a route without a body."""
    endpoint: Endpoint
    summary: str
    query: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Name -> JSON schema of each query parameter; any other is refused."""
