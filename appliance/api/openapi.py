"""The route table as an OpenAPI document: made from the same values that answer, so it cannot say something else."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from appliance.api.head import LABEL_HEADER, LABELS, REQUEST_ID_HEADER, REQUEST_ID_PATTERN
from appliance.api.route_spec import RouteSpec
from policies.actions import ACTIONS

REFERENCE = "#/components/schemas/{model}"
ERROR_STATUSES = {
    "400": "The request cannot be honoured as it stands.",
    "401": "No valid credential, or more than one.",
    "403": "Policy does not allow it.",
    "404": "No such thing for this caller.",
    "408": "The request came too slowly.",
    "409": "Not possible as things stand.",
    "413": "The request is too large.",
    "429": "The queue is full.",
    "500": "The model could not continue this request.",
    "503": "Nothing is admitted now.",
}
ERROR_SCHEMA = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
        }
    },
}


def describe(routes: Sequence[RouteSpec], version: str) -> dict[str, Any]:
    """Give the OpenAPI 3.1 document of a route table."""
    models = sorted({route.request_model for route in routes if route.request_model}, key=lambda model: model.__name__)
    _, definitions = models_json_schema([(model, "validation") for model in models], ref_template=REFERENCE)
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Cloister", "version": version},
        "security": [{"key": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
            "schemas": {**definitions.get("$defs", {}), "Error": ERROR_SCHEMA},
        },
    }


def _operation(route: RouteSpec) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "summary": route.summary,
        "operationId": route.endpoint.__name__,
        "x-cloister-action": route.action,
        "responses": {
            "200": {"description": "The answer."},
            **{status: _error(text) for status, text in ERROR_STATUSES.items()},
        },
    }
    if parameters := _parameters(route):
        operation["parameters"] = parameters
    if route.request_model is not None:
        operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": _ref(route)}}}
    return operation


def _parameters(route: RouteSpec) -> list[dict[str, Any]]:
    names = re.findall(r"\{(\w+)(?::\w+)?\}", route.path)
    return [
        *({"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names),
        *({"name": name, "in": "query", "schema": dict(schema)} for name, schema in route.query.items()),
        *({"name": name, "in": "header", "schema": schema} for name, schema in _headers(route.action).items()),
    ]


def _headers(action: str) -> dict[str, dict[str, Any]]:
    """Give the headers that mean something to an action; policy's table says where the label does."""
    headers: dict[str, dict[str, Any]] = {}
    if "label" in ACTIONS[action].context:
        headers[LABEL_HEADER] = {"type": "string", "enum": list(LABELS), "default": LABELS[0]}
    if action == "infer":
        headers[REQUEST_ID_HEADER] = {"type": "string", "pattern": f"^{REQUEST_ID_PATTERN}$"}
    return headers


def _ref(route: RouteSpec) -> dict[str, str]:
    model: type[BaseModel] | None = route.request_model
    assert model is not None, f"{route.path} has no body"
    return {"$ref": REFERENCE.format(model=model.__name__)}


def _error(text: str) -> dict[str, Any]:
    return {"description": text, "content": {"application/json": {"schema": REF_ERROR}}}


REF_ERROR = {"$ref": REFERENCE.format(model="Error")}
