"""A seeded fuzz over our own OpenAPI document, once per role: no 5xx, no hang, one error body, no undocumented status.

What schemathesis draws is sent as drawn but for two things.  The answer's length is lowered to at most 8 tokens, or the
round would take hours.  And in three of four bodies the model's name is the served one and token ids lie in its
vocabulary and a prompt is not empty, or nearly all would be refused at the door.  Nothing of the document is excluded.
"""

from __future__ import annotations

import json
import warnings
from collections import Counter
from typing import Any

import httpx
import pytest
import requests
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from live_appliance import LiveAppliance

from appliance.api.audit_filter import FILTERS
from appliance.api.openai_routes import OPENAI_ROUTES
from appliance.api.routes import ROUTES

ROLES = ("developer", "operator", "auditor", "privacy", "peer")
SERVED = {
    "developer": {f"POST {route.path}" for route in OPENAI_ROUTES if route.method == "POST"},
    "operator": {"GET /keys", "GET /metrics", "GET /audit/checkpoint", "GET /openapi.json"},
    "auditor": {"GET /audit/entries", "GET /audit/checkpoint", "GET /keys"},
    "privacy": {"GET /audit/entries", "GET /audit/checkpoint", "GET /audit/holds"},
    "peer": set(),  # its one route cosigns nothing here: this appliance witnesses no log
}
"""What each role's round must have reached, or the round proved nothing about it."""
NUM_EXAMPLES = 30
NUM_EXAMPLES_SLOW = 600
MAX_TOKENS = 8
FIRST_TEXT_TOKEN, NUM_TEXT_TOKENS = 16, 900
"""Ids of the starter's vocabulary that are no control tokens."""
HANG_S = 60
"""A call without an answer for so long is a hang, and fails as `requests.Timeout`."""


@pytest.mark.parametrize("role", ROLES)
def test_no_request_of_our_own_document_breaks_the_appliance(live: LiveAppliance, role: str):
    """The default round."""
    _fuzz(live, role, NUM_EXAMPLES if role == "developer" else NUM_EXAMPLES // 3)


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("role", ROLES)
def test_no_request_of_our_own_document_breaks_the_appliance_for_long(live: LiveAppliance, role: str):
    """The long round."""
    _fuzz(live, role, NUM_EXAMPLES_SLOW)


def test_no_query_of_the_log_breaks_the_appliance(live: LiveAppliance):
    """Filters and pages of the log take any text; what cannot be meant is a 400 by name."""
    names = st.sampled_from((*FILTERS, "filter", "after", "limit", "order")) | st.text(max_size=8)
    texts = st.text(max_size=40) | st.integers(-(2**70), 2**70).map(str) | st.sampled_from(("asc", "desc", "0", "1"))

    @_settings(100)
    @given(st.lists(st.tuples(names, texts), max_size=4), st.sampled_from(("", "/0", "/0/proof", "/x", "/-1", "/²")))
    def ask(query: list[tuple[str, str]], rest: str) -> None:
        response = auditor.get(f"/audit/entries{rest}", params=query)
        assert response.status_code in (200, 400, 401, 404), response.text
        _check_body(response.status_code, response.headers, response.text)

    with live.client("auditor") as auditor:
        ask()


def _fuzz(live: LiveAppliance, role: str, num_examples: int) -> None:
    headers = {"authorization": f"Bearer {live.keys[role]}"}
    operations = _operations(live)
    assert {(one.method.upper(), one.path) for one in operations} == {(route.method, route.path) for route in ROUTES}
    seen: Counter[tuple[str, int]] = Counter()
    with requests.Session() as session:
        session.trust_env = False
        for operation in operations:
            _fuzz_operation(operation, session, live.url, headers, num_examples, seen)
    served = {label for label, status in seen if status == 200}
    assert served >= SERVED[role], f"never served, so hardly tried: {SERVED[role] - served} of {seen}"
    ready = httpx.get(f"{live.url}/readyz", trust_env=False)
    assert ready.status_code == 200, ready.text
    assert ready.json()["engine"]["restarts"] == 0
    print(f"{role}: {dict(sorted(seen.items()))}")


def _operations(live: LiveAppliance) -> list[Any]:
    """Read the document as a developer does; schemathesis makes operations of it."""
    import schemathesis  # noqa: PLC0415 - slow to import, and only here

    with live.client("developer") as developer:
        document = developer.get("/openapi.json").raise_for_status().json()
    schema = schemathesis.openapi.from_dict(document)
    schema.config.generation.update(with_security_parameters=False)
    return [result.ok() for result in schema.get_all_operations()]


def _fuzz_operation(
    operation: Any,
    session: requests.Session,
    url: str,
    headers: dict[str, str],
    num_examples: int,
    seen: Counter[tuple[str, int]],
) -> None:
    documented = {int(status) for status in operation.definition.raw["responses"]}

    def ask(case: Any, *, steer: bool) -> None:
        _bound(case.body, steer=steer)
        response = case.call(base_url=url, session=session, headers=headers, timeout=HANG_S)
        text = response.text
        shown = f"{operation.label} {json.dumps(case.body, default=str)[:2000]} -> {response.status_code} {text[:2000]}"
        assert response.status_code < 500, shown
        assert response.status_code in documented, shown
        _check_body(response.status_code, {k: v[0] for k, v in response.headers.items()}, text)
        seen[operation.label, response.status_code] += 1

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # schemathesis' own, about what it could not generate
        for cases in _cases(operation):
            _settings(num_examples)(given(case=cases, steer=st.integers(0, 3).map(bool))(ask))()


def _cases(operation: Any) -> list[st.SearchStrategy[Any]]:
    """Draw what the document allows, and, where there is something to break, what it does not."""
    from schemathesis import GenerationMode  # noqa: PLC0415 - slow to import, and only here

    allowed = operation.as_strategy(GenerationMode.POSITIVE)
    if not operation.body:
        return [allowed]
    return [allowed, operation.as_strategy(GenerationMode.NEGATIVE)]


def _bound(body: object, *, steer: bool) -> None:
    if not isinstance(body, dict):
        return
    if steer:
        _steer(body)
    if "prompt" not in body and "messages" not in body:
        return
    lengths = [name for name in ("max_tokens", "max_completion_tokens") if type(body.get(name)) is int]
    for name in lengths:
        body[name] = min(body[name], MAX_TOKENS)
    if not lengths and body.get("max_tokens") is None and body.get("model") == "starter":
        body["max_tokens"] = MAX_TOKENS


def _steer(body: dict[str, Any]) -> None:
    if isinstance(body.get("model"), str):
        body["model"] = "starter"
    if "prompt" in body:
        body["prompt"] = body["prompt"] or "pump"
    for name in ("prompt", "tokens", "stop_token_ids"):
        if isinstance(body.get(name), list):
            body[name] = _in_vocabulary(body[name])
    if isinstance(body.get("logit_bias"), dict):
        body["logit_bias"] = {
            str(FIRST_TEXT_TOKEN + int(key) % NUM_TEXT_TOKENS) if key.isdecimal() and len(key) < 10 else key: bias
            for key, bias in body["logit_bias"].items()
        }
    if type(body.get("min_tokens")) is int and body["min_tokens"] > MAX_TOKENS:
        body["min_tokens"] %= MAX_TOKENS


def _in_vocabulary(value: Any) -> Any:
    if isinstance(value, list):
        return [_in_vocabulary(one) for one in value]
    return FIRST_TEXT_TOKEN + value % NUM_TEXT_TOKENS if type(value) is int and value >= 0 else value


def _check_body(status: int, headers: Any, text: str) -> None:
    if status == 200:
        return
    assert headers["content-type"] == "application/json"
    error = json.loads(text)["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"]
    assert error["type"]
    assert error["code"]
    assert error["param"] is None or isinstance(error["param"], str)


def _settings(num_examples: int) -> settings:
    return settings(
        max_examples=num_examples,
        derandomize=True,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
