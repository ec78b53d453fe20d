"""`GET /v1/models`: the one model that is served, in a shape that OpenAI's and Anthropic's clients both read."""

from __future__ import annotations

import datetime as dt
import json
from typing import Any

from starlette.responses import Response

from appliance.api.call import Call
from appliance.api.route_spec import RouteSpec
from appliance.served_model import ServedModel

OWNER = "cloister"


def model_body(model: ServedModel) -> dict[str, Any]:
    """Describe one model; `root` is the digest over its signed files, `max_model_len` is vLLM's field."""
    return {
        "id": model.name,
        "object": "model",
        "created": model.created_s,
        "owned_by": OWNER,
        "root": model.root,
        "max_model_len": model.max_model_len,
        "type": "model",
        "display_name": model.name,
        "created_at": dt.datetime.fromtimestamp(model.created_s, tz=dt.UTC).isoformat(),
    }


async def list_models(call: Call) -> Response:
    """`GET /v1/models`."""
    model = call.appliance.model
    return _json(
        {
            "object": "list",
            "data": [model_body(model)],
            "has_more": False,
            "first_id": model.name,
            "last_id": model.name,
        }
    )


async def show_model(call: Call) -> Response:
    """`GET /v1/models/{id}`."""
    call.appliance.walk.require_model(call.request.path_params["id"])
    return _json(model_body(call.appliance.model))


def _json(body: dict[str, Any]) -> Response:
    return Response(json.dumps(body), media_type="application/json")


MODEL_ROUTES = (
    RouteSpec("/v1/models", "GET", "listModels", None, list_models, "List the models served here"),
    RouteSpec("/v1/models/{id}", "GET", "listModels", None, show_model, "Describe a model"),
)
