"""The perimeter of a live appliance: who gets in, what a stranger hears, what a bad request costs."""

from __future__ import annotations

import json
import socket
import time

import httpx
import pytest
from live_appliance import LiveAppliance

from appliance.api.route_spec import RouteSpec
from appliance.api.routes import ROUTES
from appliance.api.routing import OPEN_ROUTES, RouteTable, RouteTableRefused

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "TRACE", "BREW")
STRANGE_PATHS = (
    "/",
    "/v1",
    "/v1/",
    "//v1/models",
    "/v1/models/..",
    "/admin",
    "/docs",
    "/invocations",
    "/livez/",
    "/%2e",
    "/livez%0A",
    "/live%09z",
    "/readyz%0D",
    "/v1/models%0A",
)


def _entries(live: LiveAppliance, **query: str | int) -> list[dict]:
    with live.client("auditor") as auditor:
        rows = auditor.get("/audit/entries", params={"order": "desc", "limit": 50, **query}).json()["data"]
    return [row["entry"] for row in rows]


@pytest.mark.parametrize("method", METHODS)
def test_every_route_and_method_and_unknown_path_needs_a_credential(live: LiveAppliance, method: str):
    """DESIGN 7.1: without credentials everything is 401 but the two routes that are listed as open."""
    paths = [route.path.replace("{id}", "x").replace("{index}", "0") for route in ROUTES]
    with httpx.Client(base_url=live.url, trust_env=False) as stranger:
        for path in (*paths, *STRANGE_PATHS, *OPEN_ROUTES):
            response = stranger.request(method, path)
            is_open = method == "GET" and path in OPEN_ROUTES
            assert response.status_code == (200 if is_open else 401), f"{method} {path}: {response.status_code}"
            if not is_open and method != "HEAD":
                assert response.json()["error"]["code"] == "missing_credential"


def test_a_route_without_a_known_action_stops_the_start():
    """DESIGN 7.2: each route names its policy action, or the table is refused."""

    async def endpoint(_call):
        raise AssertionError("never called")

    with pytest.raises(RouteTableRefused, match="no known policy action"):
        RouteTable([RouteSpec("/new", "GET", "", None, endpoint, "A route nobody thought through")])
    with pytest.raises(RouteTableRefused, match="stands twice"):
        RouteTable([ROUTES[0], ROUTES[0]])


@pytest.mark.parametrize("carrier", ["two headers", "header and x-api-key", "query", "cookie"])
def test_two_credentials_or_a_wrong_carrier_are_refused(live: LiveAppliance, carrier: str):
    """DESIGN 7.3: exactly one credential, in one header."""
    key = live.keys["developer"]
    headers = [("authorization", f"Bearer {key}")]
    path = "/v1/models"
    if carrier == "two headers":
        headers.append(("authorization", f"Bearer {live.keys['auditor']}"))
    elif carrier == "header and x-api-key":
        headers.append(("x-api-key", key))
    elif carrier == "query":
        path += f"?api_key={key}"
    else:
        headers.append(("cookie", "session=1"))
    response = httpx.get(live.url + path, headers=headers, trust_env=False)
    assert response.status_code == 401
    assert key not in response.text


@pytest.mark.parametrize("role", ["operator", "auditor"])
def test_no_other_role_infers(live: LiveAppliance, role: str):
    """Operator and auditor never infer, and the refusal is in the log with the policies that decided."""
    with live.client(role) as client:
        response = client.post("/v1/completions", json={"model": "starter", "prompt": "x", "max_tokens": 1})
    assert response.status_code == 403
    denied = _entries(live, kind="request:denied", actor=role)[0]
    assert denied["facts"]["policy_ids"]
    assert response.headers["x-request-id"] == denied["subject"]


def test_a_developer_cannot_read_the_log_or_the_metrics(live: LiveAppliance):
    """The log and the metrics are not the developer's."""
    with live.client("developer") as developer:
        for path in (
            "/audit/entries",
            "/audit/entries/0",
            "/audit/entries/0/proof",
            "/audit/checkpoint",
            "/metrics",
            "/keys",
        ):
            assert developer.get(path).status_code == 403, path


def test_every_read_of_the_log_is_recorded_before_it_is_answered(live: LiveAppliance):
    """A read leaves `log:read` with what was read, and stands in the very page that it returns or before it."""
    with live.client("auditor") as auditor:
        response = auditor.get("/audit/entries", params={"kind": "log:read", "order": "desc", "limit": 1})
    newest = response.json()["data"][0]["entry"]
    assert newest["subject"] == response.headers["x-request-id"]
    assert newest["facts"]["filter"] == "kind=log:read"


def test_a_wrong_key_is_one_answer_and_a_record_with_the_reason(live: LiveAppliance):
    """The client never learns why a key is not valid; the auditor does."""
    key = live.keys["developer"]
    wrong = key[:20] + ("A" if key[20] != "A" else "B") + key[21:]
    deadline = time.monotonic() + 60
    while True:  # other tests knock too, and beyond a small rate a refusal is only counted
        response = httpx.get(f"{live.url}/v1/models", headers={"authorization": f"Bearer {wrong}"}, trust_env=False)
        assert response.status_code == 401
        assert response.json()["error"]["code"] == "invalid_api_key"
        if records := _entries(live, kind="auth:refused", subject=response.headers["x-request-id"]):
            break
        assert time.monotonic() < deadline, "no refusal was recorded"
    assert records[0]["facts"]["reason"] in {"malformed", "wrong_secret", "unknown"}


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"{", 400, "invalid_json"),
        (b"\xff\xfe", 400, "invalid_utf8"),
        (b'{"model": "starter", "prompt": "x", "temperature": NaN}', 400, "invalid_number"),
        (b'{"model": "starter", "prompt": "x", "prompt": "y"}', 400, "duplicate_key"),
        (b"[" * 200 + b"]" * 200, 400, "nested_too_deeply"),
        (json.dumps({"model": "nobody", "prompt": "x"}).encode(), 404, "model_not_found"),
        (json.dumps({"model": "starter", "prompt": "word " * 20000}).encode(), 400, "context_length_exceeded"),
        (b'"' + b"x" * (3 * 2**20) + b'"', 413, "body_too_large"),
    ],
)
def test_a_bad_request_is_one_clear_error_and_a_record(live: LiveAppliance, body: bytes, status: int, code: str):
    """What cannot be honoured is refused by name, and `request:refused` says which rule."""
    with live.client("developer") as developer:
        response = developer.post("/v1/completions", content=body, headers={"content-type": "application/json"})
    assert response.status_code == status, response.text
    assert response.json()["error"]["code"] == code
    refused = _entries(live, kind="request:refused", subject=response.headers["x-request-id"])
    assert [entry["facts"]["code"] for entry in refused] == [code]


def test_a_head_that_is_too_large_or_no_http_is_answered_in_our_body(live: LiveAppliance):
    """Whatever arrives on the socket, the answer is an OpenAI error body and the server lives on."""
    port = int(live.url.rsplit(":", 1)[1])
    for attack in (b"GET / HTTP/1.1\r\nx: " + b"a" * 200_000 + b"\r\n\r\n", b"\x16\x03\x01\x02\x00" * 10 + b"\r\n\r\n"):
        with socket.create_connection(("127.0.0.1", port), 30) as connection:
            connection.sendall(attack)
            answer = connection.recv(65536)
        assert answer.startswith(b"HTTP/1.1 400")
        assert b'"code":"bad_http"' in answer
    assert httpx.get(f"{live.url}/livez", trust_env=False).status_code == 200


def test_a_foreign_host_header_is_refused(live: LiveAppliance):
    """DNS rebinding: a page under another name does not reach the loopback API."""
    response = httpx.get(f"{live.url}/livez", headers={"host": "evil.example"}, trust_env=False)
    assert response.status_code == 400
    assert response.json()["error"]["code"] == "host_not_allowed"


def test_secrets_and_prompts_are_nowhere_but_where_they_belong(live: LiveAppliance):
    """DESIGN 7.9: a canary prompt and every key are in no log line, metric, record or error body."""
    canary = "canary-7f3a9c"
    with live.client("developer") as developer:
        answered = developer.post("/v1/completions", json={"model": "starter", "prompt": canary, "max_tokens": 4})
        refused = developer.post("/v1/completions", json={"model": "starter", "prompt": canary, canary: 1})
    assert answered.status_code == 200, answered.text
    assert refused.status_code == 400
    with live.client("operator") as operator:
        metrics = operator.get("/metrics").text
    places = {
        "metrics": metrics,
        "log of the operator": (live.state_dir.parent / f"{live.state_dir.name}.stderr").read_text(),
        "records": json.dumps(_entries(live, limit=1000)),
        "database": (live.state_dir / "log" / "audit.db-wal").read_bytes().decode("latin-1"),
    }
    for place, text in places.items():
        assert canary not in text, place
        for role, key in live.keys.items():
            assert key not in text, f"{role}'s key in the {place}"


def test_ready_says_whose_trust_it_is(live: LiveAppliance):
    """Development trust is said in the banner, in `/readyz` and in every record."""
    ready = httpx.get(f"{live.url}/readyz", trust_env=False).json()
    assert ready["status"] == "ready"
    assert ready["trust"] == "development"
    assert "DEVELOPMENT TRUST" in live.banner
    assert {entry["facts"]["trust"] for entry in _entries(live)} == {"development"}


def test_a_client_that_vanishes_frees_the_engine_and_leaves_a_record(live: LiveAppliance):
    """A closed connection cancels the sequence; its record says `client_closed`."""
    body = {"model": "starter", "prompt": "The", "max_tokens": 900, "ignore_eos": True, "stream": True}
    with live.client("developer") as developer, developer.stream("POST", "/v1/completions", json=body) as response:
        request_id = response.headers["x-request-id"]
        next(response.iter_lines())
    deadline = time.monotonic() + 60
    while not (ends := _entries(live, kind="request:cancelled", subject=request_id)):
        assert time.monotonic() < deadline, "no terminal record"
    assert ends[0]["facts"]["code"] == "client_closed"


def test_a_made_up_method_is_no_label_and_no_log_line(live: LiveAppliance):
    """Without a key, on an open route too: what a stranger makes up never becomes a metric series (PYSEC-2026-4325)."""
    with httpx.Client(base_url=live.url, trust_env=False) as stranger:
        for number in range(20):
            assert stranger.request(f"MADEUP{number}", "/livez").status_code == 401
    with live.client("operator") as operator:
        assert "MADEUP" not in operator.get("/metrics").text
    assert "MADEUP" not in (live.state_dir.parent / f"{live.state_dir.name}.stderr").read_text()
