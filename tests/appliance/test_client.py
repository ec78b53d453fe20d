"""How the command's client verbs find the appliance."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import httpx
import pytest

from appliance.cli.client import ApplianceClient, ClientRefused, base_url, read_key, text_of
from appliance.settings import Settings
from appliance.state.layout import StateLayout


@pytest.mark.parametrize(
    ("host", "url", "peer"),
    [
        ("127.0.0.1", "http://127.0.0.1:8611", "127.0.0.1"),
        ("127.0.0.2", "http://127.0.0.2:8611", "127.0.0.2"),
        ("localhost", "http://localhost:8611", "localhost"),
        ("::1", "http://[::1]:8611", "::1"),
        ("0:0:0:0:0:0:0:1", "http://[::1]:8611", "::1"),
    ],
)
def test_the_client_calls_where_the_appliance_listens(host: str, url: str, peer: str):
    """Every address that may be listened on makes a URL that leads there, and a Host header that is served."""
    settings = Settings(host=host, port=8611)
    assert base_url(settings) == url
    request = httpx.Request("GET", base_url(settings))
    assert (request.url.host, request.url.port) == (peer, 8611)
    assert request.headers["host"].rpartition(":")[0] in settings.served_hosts


@contextmanager
def answering(status: int, headers: dict[str, str], body: bytes) -> Iterator[str]:
    """Some server on a port of this machine that says one thing to everyone; gives its URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            for name, value in {**headers, "content-length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StateLayout:
    """A state folder with development keys, and no key in the environment."""
    monkeypatch.delenv("CLOISTER_API_KEY", raising=False)
    layout = StateLayout(tmp_path)
    layout.dev_keys.parent.mkdir(parents=True)
    layout.dev_keys.write_text(json.dumps({"auditor": "ck-dev-1"}))
    return layout


OUR_HEADERS = {"content-type": "application/json", "x-request-id": "1"}
STRANGERS = {
    "a web page": (200, {"content-type": "text/html"}, b"<html>"),
    "a web page that is missing": (404, {"content-type": "text/html"}, b"<html>"),
    "JSON of another form": (200, {"content-type": "application/json"}, b'{"data": []}'),
    "a list": (200, OUR_HEADERS, b"[]"),
    "no JSON": (200, OUR_HEADERS, b"\xff"),
    "an error of another form": (404, OUR_HEADERS, b'{"detail": "Not Found"}'),
    "an error that is text": (404, OUR_HEADERS, b'{"error": "Not Found"}'),
    "an error without a body": (502, {}, b""),
}


@pytest.mark.parametrize("stranger", STRANGERS)
def test_another_server_on_the_port_is_named_as_one(
    state: StateLayout, stranger: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever it says, it is refused by its address, and nothing of it is read as an answer."""
    with answering(*STRANGERS[stranger]) as url:
        monkeypatch.setenv("CLOISTER_URL", url)
        with pytest.raises(ClientRefused, match=f"what answers at {url} is no appliance"):
            ApplianceClient("auditor", Settings(state_dir=state.root)).get("/audit/entries")


@pytest.mark.parametrize(("status", "exit_code"), [(401, 1), (403, 3), (404, 1)])
def test_an_appliances_own_refusal_keeps_its_words(
    state: StateLayout, status: int, exit_code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Code and message, and policy's no by its own exit code."""
    body = json.dumps({"error": {"code": "not_so", "message": "no"}}).encode()
    with answering(status, OUR_HEADERS, body) as url:
        monkeypatch.setenv("CLOISTER_URL", url)
        with pytest.raises(ClientRefused, match=f"{status} not_so: no") as refused:
            ApplianceClient("auditor", Settings(state_dir=state.root)).get("/audit/entries")
    assert refused.value.exit_code == exit_code


@pytest.mark.parametrize("url", ["http://host:port", "http://a..b"])
def test_an_address_that_is_none_is_refused(state: StateLayout, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The setting is named."""
    monkeypatch.setenv("CLOISTER_URL", url)
    with pytest.raises(ClientRefused, match="CLOISTER_URL") as refused:
        ApplianceClient("auditor", Settings(state_dir=state.root)).get("/audit/entries")
    assert refused.value.exit_code == 2


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"\xff\xfe", b"[]", b"7", b"{}", b'{"auditor": 7}', b'{"auditor": ""}', b'{"auditor": "a\\nb"}'],
)
def test_a_broken_file_of_keys_is_refused_by_its_name(state: StateLayout, content: bytes) -> None:
    """Cut short, of another form, without the role, or with what no header can carry."""
    state.dev_keys.write_bytes(content)
    with pytest.raises(ClientRefused, match=str(state.dev_keys)):
        read_key("auditor", state)


@pytest.mark.parametrize("key", ["kéy", "a b", "a\nb"])
def test_a_key_that_no_header_can_carry_is_refused_unsaid(
    state: StateLayout, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the name of the variable alone."""
    monkeypatch.setenv("CLOISTER_API_KEY", key)
    with pytest.raises(ClientRefused, match="CLOISTER_API_KEY") as refused:
        read_key("auditor", state)
    assert key not in str(refused.value)


@pytest.mark.parametrize("line", ["data: {", "data: []", "data: 7", 'data: {"choices": [{}]}', 'data: {"error": "no"}'])
def test_a_line_of_another_form_is_refused(line: str) -> None:
    """A stream of somebody else's."""
    with pytest.raises(ClientRefused, match="form"):
        text_of(line)
