"""The document describes what the perimeter takes: a parameter that is not in it is refused."""

from __future__ import annotations

import pytest

from appliance.api.openapi import describe
from appliance.api.route_spec import RouteSpec
from appliance.api.routes import ROUTES
from policies.actions import ACTIONS

DOCUMENT = describe(ROUTES, "0")


def _parameters(route: RouteSpec, place: str) -> set[str]:
    operation = DOCUMENT["paths"][route.path][route.method.lower()]
    return {one["name"] for one in operation.get("parameters", ()) if one["in"] == place}


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")
def test_every_parameter_that_is_taken_is_described(route: RouteSpec):
    """The query from the route's own table; the label where policy decides on it; the caller's id where it is kept."""
    assert _parameters(route, "query") == set(route.query)
    headers = set()
    if "label" in ACTIONS[route.action].context:
        headers.add("x-cloister-label")
    if route.action == "infer":
        headers.add("x-request-id")
    assert _parameters(route, "header") == headers


def test_the_log_s_query_and_the_inference_headers_are_there():
    """The law above is not satisfied by describing nothing."""
    by_path = {route.path: route for route in ROUTES}
    assert {"after", "limit", "order", "kind", "label"} <= _parameters(by_path["/audit/entries"], "query")
    assert _parameters(by_path["/v1/completions"], "header") == {"x-cloister-label", "x-request-id"}
    assert "x-cloister-label" in _parameters(by_path["/tokenize"], "header")
