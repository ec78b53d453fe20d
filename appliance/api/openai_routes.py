"""The routes of the inference API as one list, for the router and the OpenAPI document."""

from __future__ import annotations

from appliance.api.models import MODEL_ROUTES
from appliance.api.openai_chat import CHAT_ROUTE
from appliance.api.openai_completions import COMPLETIONS_ROUTE
from appliance.api.route_spec import RouteSpec
from appliance.api.tokenize import TOKENIZE_ROUTES

OPENAI_ROUTES: tuple[RouteSpec, ...] = (CHAT_ROUTE, COMPLETIONS_ROUTE, *MODEL_ROUTES, *TOKENIZE_ROUTES)
