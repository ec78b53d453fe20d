"""Clients that are slow, gone, absurd or no HTTP at all: each gets one clear end, and the appliance serves on.

One appliance with short deadlines for the whole file.  Every test ends by what the server does, never by a clock.
"""

from __future__ import annotations

import json
import re
import select
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
from live_appliance import LiveAppliance, running_appliance

from appliance.api.openai_completions import MAX_SEQUENCES
from appliance.prompting import MAX_ANSWER_LOGPROBS

HANG_S = 90
"""Nothing here may take so long; a socket that waits longer fails the test."""
TCP_TABLE, ESTABLISHED = Path("/proc/net/tcp"), "01"
SEND_BUFFER = Path("/proc/sys/net/ipv4/tcp_wmem")
NUM_LOGPROBS = 20
MOST_TOKENS = MAX_ANSWER_LOGPROBS // (MAX_SEQUENCES * (1 + NUM_LOGPROBS))
"""Of each answer, when a request asks for the largest body there is."""
BODY_DEADLINE_S = "1.5"
WRITE_DEADLINE_S = "1.5"


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveAppliance]:
    """An appliance that is quick to lose patience."""
    state_dir = tmp_path_factory.mktemp("strict") / "state"
    settings = {"CLOISTER_BODY_DEADLINE_S": BODY_DEADLINE_S, "CLOISTER_WRITE_DEADLINE_S": WRITE_DEADLINE_S}
    with running_appliance(state_dir, **settings) as appliance:
        yield appliance


@pytest.fixture(autouse=True)
def serves_on(strict: LiveAppliance) -> Iterator[None]:
    """After every attack the appliance is ready, its engine never died, and it answers."""
    yield
    ready = httpx.get(f"{strict.url}/readyz", trust_env=False)
    assert ready.status_code == 200, ready.text
    assert ready.json()["engine"]["restarts"] == 0
    with strict.client("developer") as developer:
        body = {"model": "starter", "prompt": "still there?", "max_tokens": 1}
        assert developer.post("/v1/completions", json=body).status_code == 200


def _connect(live: LiveAppliance, receive_bytes: int | None = None) -> socket.socket:
    connection = socket.socket()
    connection.settimeout(HANG_S)
    if receive_bytes is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
    connection.connect(("127.0.0.1", int(live.url.rsplit(":", 1)[1])))
    return connection


def _head(live: LiveAppliance, *lines: str, method: str = "POST", path: str = "/v1/completions") -> bytes:
    fixed = (
        f"{method} {path} HTTP/1.1",
        "host: 127.0.0.1",
        f"authorization: Bearer {live.keys['developer']}",
        "content-type: application/json",
    )
    return "\r\n".join((*fixed, *lines, "", "")).encode()


def _request(live: LiveAppliance, body: dict, *lines: str) -> bytes:
    content = json.dumps(body).encode()
    return _head(live, f"content-length: {len(content)}", *lines) + content


def _read_to_end(connection: socket.socket) -> bytes:
    received = b""
    while chunk := connection.recv(65536):
        received += chunk
    return received


def _read_until(connection: socket.socket, mark: bytes) -> bytes:
    received = b""
    while mark not in received:
        chunk = connection.recv(65536)
        assert chunk, f"closed before {mark!r}: {received!r}"
        received += chunk
    return received


def _header(answer: bytes, name: str) -> str:
    lines = answer.split(b"\r\n\r\n")[0].decode().split("\r\n")
    return next(line.split(": ", 1)[1] for line in lines if line.lower().startswith(f"{name}: "))


def _error_code(answer: bytes) -> str:
    return json.loads(answer.rsplit(b"\r\n\r\n", 1)[1])["error"]["code"]


def _terminal(live: LiveAppliance, subject: str) -> dict:
    """Wait for the one terminal record of a request; between two looks the log is asked, so this does not spin idly."""
    deadline = time.monotonic() + HANG_S
    with live.client("auditor") as auditor:
        while time.monotonic() < deadline:
            rows = auditor.get("/audit/entries", params={"subject": subject}).json()["data"]
            if len(rows) > 1:
                assert [row["entry"]["kind"] for row in rows[:-1]] == ["request:admitted"]
                return rows[-1]["entry"]
    raise AssertionError(f"no terminal record of {subject}")


def _newest_index(live: LiveAppliance) -> int:
    with live.client("auditor") as auditor:
        return auditor.get("/audit/entries", params={"order": "desc", "limit": 1}).json()["data"][0]["index"]


def _first_after(live: LiveAppliance, index: int, kind: str) -> dict:
    """Wait for the next record of a kind; for a client that never sees the id of its request."""
    deadline = time.monotonic() + HANG_S
    query = {"kind": kind, "after": index, "limit": 1}
    with live.client("auditor") as auditor:
        while not (rows := auditor.get("/audit/entries", params=query).json()["data"]):
            assert time.monotonic() < deadline, f"no {kind}"
    return rows[0]["entry"]


def _refused(live: LiveAppliance, subject: str) -> str:
    with live.client("auditor") as auditor:
        rows = auditor.get("/audit/entries", params={"subject": subject, "kind": "request:refused"}).json()["data"]
    (row,) = rows
    return row["entry"]["facts"]["code"]


@pytest.mark.parametrize(
    ("framing", "part"),
    [
        ("content-length: 1000", b'{"model": "star'),
        ("transfer-encoding: chunked", b'f\r\n{"model": "star\r\n'),
        ("transfer-encoding: chunked", b"ffff\r\nhalf a chunk"),
        ("content-length: 5", b""),
    ],
)
def test_a_body_that_does_not_come_is_408(strict: LiveAppliance, framing: str, part: bytes):
    """A body without an end costs the deadline and no more; the refusal is recorded."""
    with _connect(strict) as connection:
        connection.sendall(_head(strict, framing) + part)
        answer = _read_until(connection, b"}}")
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert _error_code(answer) == "body_timeout"
    assert _refused(strict, _header(answer, "x-request-id")) == "body_timeout"


def test_a_head_that_does_not_end_is_closed_and_so_is_an_idle_or_refused_connection(strict: LiveAppliance):
    """Nothing sent, half a head, a head that drips, and a body that drips on after its 408: the server closes each."""
    with ExitStack() as opened:
        silent, half, dripping, refused = (opened.enter_context(_connect(strict)) for _ in range(4))
        half.sendall(b"GET /livez HTTP/1.1\r\nhost: 127.0")
        refused.sendall(_head(strict, "content-length: 100000") + b"{")
        assert _read_until(refused, b"}}").startswith(b"HTTP/1.1 408 ")
        open_ones = {silent, half, dripping, refused}
        deadline = time.monotonic() + HANG_S
        while open_ones:
            assert time.monotonic() < deadline, f"{len(open_ones)} connections are still open"
            for connection in (dripping, refused):
                try:
                    connection.send(b"x")
                except OSError:
                    open_ones.discard(connection)
            for connection in select.select(open_ones, [], [], 0.2)[0] if open_ones else ():
                try:
                    if not connection.recv(65536):
                        open_ones.discard(connection)
                except ConnectionError:
                    open_ones.discard(connection)


def test_a_client_that_stops_reading_a_stream_is_cancelled(strict: LiveAppliance):
    """Once the sockets are full the write deadline runs: the request ends as cancelled, with `client_stalled`."""
    body = {
        "model": "starter",
        "prompt": "The pump",
        "n": MAX_SEQUENCES,
        "max_tokens": MOST_TOKENS,
        "ignore_eos": True,
        "stream": True,
        "logprobs": NUM_LOGPROBS,
    }
    with _connect(strict, receive_bytes=4096) as connection:
        connection.sendall(_request(strict, body))
        head = _read_until(connection, b"\r\n\r\n")
        end = _terminal(strict, _header(head, "x-request-id"))
    assert end["kind"] == "request:cancelled"
    assert end["facts"]["code"] == "client_stalled"
    assert end["facts"]["completion_tokens"] < MAX_SEQUENCES * MOST_TOKENS


def test_a_client_that_vanishes_before_a_whole_answer_is_cancelled(strict: LiveAppliance):
    """Also without a stream: the closed connection ends the request, and the record says why."""
    body = {"model": "starter", "prompt": "The", "n": 8, "max_tokens": 1500, "ignore_eos": True}
    newest = _newest_index(strict)
    with _connect(strict) as connection:
        connection.sendall(_request(strict, body))
        admitted = _first_after(strict, newest, "request:admitted")
    end = _terminal(strict, admitted["subject"])
    assert (end["kind"], end["facts"]["code"]) == ("request:cancelled", "client_closed")


def test_garbage_behind_a_good_request_spoils_only_itself(strict: LiveAppliance):
    """The good one is answered, the garbage gets one 400, and the connection is closed."""
    with _connect(strict) as connection:
        connection.sendall(b"GET /livez HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n\x00\x01garbage\r\n\r\n")
        answer = _read_to_end(connection)
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert answer.count(b"HTTP/1.1 400 ") == 1
    assert _error_code(answer) == "bad_http"


def test_pipelined_requests_are_answered_in_order(strict: LiveAppliance):
    """Three at once on one connection: three answers, each under an id of its own."""
    requests = [_request(strict, {"model": "starter", "prompt": "a", "max_tokens": number}) for number in (1, 2, 3)]
    last = _head(strict, "connection: close", method="GET", path="/livez")
    with _connect(strict) as connection:
        connection.sendall(b"".join(requests) + last)
        answer = _read_to_end(connection)
    assert answer.count(b"HTTP/1.1 200 ") == 4
    assert re.findall(rb'"completion_tokens":(\d+),', answer) == [b"1", b"2", b"3"]
    assert len(set(re.findall(rb"x-request-id: (req-\w+)", answer))) == 4


@pytest.mark.parametrize(
    "lines",
    [
        ("content-length: -1",),
        ("content-length: 5", "content-length: 7"),
        ("content-length: 1e3",),
        ("content-length: 99999999999999999999999999",),
        ("transfer-encoding: gzip, chunked",),
        ("transfer-encoding: chunked, chunked",),
        ("content-length: 2", "no colon here"),
        ("content-length: 2", "bad\x00name: x"),
    ],
)
def test_a_head_that_lies_about_its_body_is_no_http(strict: LiveAppliance, lines: tuple[str, ...]):
    """Whatever two parsers could read differently is 4xx and the end of the connection, never a wait."""
    with _connect(strict) as connection:
        connection.sendall(_head(strict, *lines) + b"{}")
        answer = _read_until(connection, b"}}")
    assert answer.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 413 "))
    assert _error_code(answer) in {"bad_http", "body_too_large"}


def test_a_length_that_is_too_short_cuts_the_body_and_the_rest_is_no_request(strict: LiveAppliance):
    """The cut JSON is refused; what follows is not taken for a request of its own."""
    with _connect(strict) as connection:
        connection.sendall(_head(strict, "content-length: 10") + b'{"model": "starter", "prompt": "x"}\r\n\r\n')
        answer = _read_to_end(connection)
    assert answer.count(b"HTTP/1.1 400 ") == 2
    assert b'"invalid_json"' in answer
    assert _error_code(answer) == "bad_http"


def test_a_length_that_is_too_long_is_refused_when_the_client_closes(strict: LiveAppliance):
    """A connection that ends inside its body leaves a refusal in the log."""
    newest = _newest_index(strict)
    with _connect(strict) as connection:
        connection.sendall(_head(strict, "content-length: 1000") + b'{"model"')
    assert _first_after(strict, newest, "request:refused")["facts"]["code"] == "client_closed"


def test_http_1_0_is_answered_and_closed(strict: LiveAppliance):
    """An old client gets whole answers and streams, ended by the end of the connection."""
    body = {"model": "starter", "prompt": "a", "max_tokens": 3, "ignore_eos": True}
    for stream in (False, True):
        request = _request(strict, {**body, "stream": stream}).replace(b"HTTP/1.1", b"HTTP/1.0")
        with _connect(strict) as connection:
            connection.sendall(request)
            answer = _read_to_end(connection)
        assert answer.split(b" ", 2)[1] == b"200"
        assert b"transfer-encoding" not in answer.lower()
        assert answer.endswith(b"data: [DONE]\n\n") if stream else b'"completion_tokens":3' in answer


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"n": 10**9}, "n"),
        ({"n": 0}, "n"),
        ({"n": 10**400}, None),
        ({"max_tokens": 2**63}, "max_tokens"),
        ({"logit_bias": {str(one): 1 for one in range(100_000)}}, "logit_bias"),
        ({"logit_bias": {"5": 1e300}}, "logit_bias.5"),
        ({"stop": [f"stop {number}" for number in range(10_000)]}, "stop"),
        ({"stop": ["x" * 100_000]}, "stop[0]"),
        ({"stop_token_ids": list(range(10_000))}, "stop_token_ids"),
        ({"prompt": ["a"] * (MAX_SEQUENCES // 8 + 1), "n": 8}, "n"),
        ({"prompt": [[5] * 100_000]}, "prompt"),
        ({"prompt": ["a"] * 100_000}, "prompt"),
        ({"logprobs": 10**6}, "logprobs"),
        ({"user": "u" * 1_000_000}, "user"),
        ({"x" * 100_000: 1}, "x" * 100),
    ],
)
def test_absurd_numbers_are_refused_by_name(strict: LiveAppliance, change: dict, param: str | None):
    """What multiplies work is bounded at the door: 400, the field's name, a short body."""
    body = {"model": "starter", "prompt": "a", "max_tokens": 1, **change}
    with strict.client("developer") as developer:
        content = json.dumps(body) if change.get("n") != 10**400 else '{"n": 1' + "0" * 5000 + "}"
        headers = {"content-type": "application/json"}
        response = developer.post("/v1/completions", content=content, headers=headers)
    assert response.status_code == 400, response.text
    error = response.json()["error"]
    assert len(response.content) < 2000
    if param is None:
        assert error["code"] == "invalid_number"
    elif param.startswith("xxx"):
        assert error["code"] == "unknown_parameter"
        assert len(error["param"]) < 200
    else:
        assert error["param"] == param


def _big_answer(live: LiveAppliance) -> bytes:
    """A request whose whole answer is far larger than what the kernel's socket buffers hold."""
    body = {
        "model": "starter",
        "messages": [{"role": "user", "content": "The pump"}],
        "n": MAX_SEQUENCES,
        "max_tokens": MOST_TOKENS // 2,
        "ignore_eos": True,
        "logprobs": True,
        "top_logprobs": NUM_LOGPROBS,
    }
    content = json.dumps(body).encode()
    lines = (f"content-length: {len(content)}", "connection: close")
    return _head(live, *lines, path="/v1/chat/completions") + content


def test_a_client_that_never_reads_a_whole_answer_is_dropped(strict: LiveAppliance):
    """Without a stream too: the server lets go of an answer that nobody takes; the kernel's own copy is small."""
    if not TCP_TABLE.exists():
        pytest.skip("seeing the server's end of a connection needs /proc")
    with _connect(strict, receive_bytes=4096) as connection:
        connection.sendall(_big_answer(strict))
        head = _read_until(connection, b"\r\n\r\n")
        deadline = time.monotonic() + HANG_S
        while _is_held(strict, connection):
            assert time.monotonic() < deadline, "the server still holds the answer"
    most_in_kernel = int(SEND_BUFFER.read_text().split()[2])
    assert int(_header(head, "content-length")) > most_in_kernel + 2**20, "the kernel took all of it: nothing was held"


def _is_held(live: LiveAppliance, connection: socket.socket) -> bool:
    """Whether the server's end is still established."""
    ends = f"{int(live.url.rsplit(':', 1)[1]):04X}", f"{connection.getsockname()[1]:04X}"
    rows = [line.split() for line in TCP_TABLE.read_text().splitlines()[1:]]
    return any((row[1].split(":")[1], row[2].split(":")[1]) == ends and row[3] == ESTABLISHED for row in rows)
