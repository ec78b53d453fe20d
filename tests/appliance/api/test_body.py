import asyncio
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.requests import Request

from appliance.api.body import MAX_DEPTH, parse_json, read_body, read_wire, validate
from appliance.api.openai_chat import ChatCompletionRequest
from appliance.api.openai_completions import CompletionRequest
from appliance.errors import ApplianceError, BadRequest, SlowClient, TooLarge

GOOD = b'{"model":"starter","prompt":"a"}'
JSON_TYPE = [(b"content-type", b"application/json")]


def _request(*messages, headers=JSON_TYPE):
    """A request whose body comes as the given ASGI messages; after them nothing comes any more."""
    left = list(messages)

    async def receive():
        if left:
            return left.pop(0)
        return await asyncio.get_running_loop().create_future()

    return Request({"type": "http", "method": "POST", "path": "/", "headers": headers}, receive)


def _part(body, *, more=False):
    return {"type": "http.request", "body": body, "more_body": more}


async def _read(request, *, max_bytes=1000, deadline_s=60.0):
    return await read_wire(request, CompletionRequest, max_bytes=max_bytes, deadline_s=deadline_s)


async def test_a_body_in_parts_is_read():
    """The wire type comes out, however the bytes were cut."""
    wire = await _read(_request(_part(GOOD[:5], more=True), _part(GOOD[5:])))
    assert (wire.model, wire.prompt) == ("starter", "a")


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "invalid_json"),
        (b"{", "invalid_json"),
        (b'{"a": 1,}', "invalid_json"),
        (b"{'a': 1}", "invalid_json"),
        (b'{"a": 1} {"b": 2}', "invalid_json"),
        (b'\xef\xbb\xbf{"a": 1}', "invalid_json"),
        (b'{"a": "tab\there"}', "invalid_json"),
        (b'{"a": NaN}', "invalid_number"),
        (b'{"a": -Infinity}', "invalid_number"),
        (b'{"a": 1e999}', "invalid_number"),
        (b'{"a": ' + b"9" * 5000 + b"}", "invalid_number"),
        (b'{"a": 1, "a": 2}', "duplicate_key"),
        (b'{"a": {"b": 1, "\\u0062": 2}}', "duplicate_key"),
        (b'{"a": "\xff"}', "invalid_utf8"),
        (b'{"a": "\xed\xa0\x80"}', "invalid_utf8"),
        (b'{"a": "\xc0\xaf"}', "invalid_utf8"),
        (b'{"a": "\\ud800"}', "invalid_unicode"),
        (b'{"\\udfff": 1}', "invalid_unicode"),
        (b'{"a": ["\\ude00\\ud83d"]}', "invalid_unicode"),
        (b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1), "nested_too_deeply"),
        (b"[" * 100_000 + b"]" * 100_000, "nested_too_deeply"),
        (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "nested_too_deeply"),
        (b"[" * 100_000, "nested_too_deeply"),
    ],
    ids=lambda value: value if isinstance(value, str) else repr(value[:24]),
)
def test_what_is_not_strict_json_is_refused(body, code):
    """Two parsers must not be able to read a body differently, and none may be exhausted by it."""
    with pytest.raises(BadRequest) as refusal:
        parse_json(body)
    assert refusal.value.code == code


def test_a_surrogate_pair_is_a_character():
    """Only half a pair is refused."""
    assert parse_json(b'"\\ud83d\\ude00"') == "\U0001f600"


def test_depth_is_allowed_up_to_its_limit():
    """One level less than too deep is taken."""
    body = b"[" * MAX_DEPTH + b"]" * MAX_DEPTH
    assert json.dumps(parse_json(body)).encode() == body


@pytest.mark.parametrize("value", [[], "a", 1, None, True])
def test_a_body_that_is_no_object_is_refused(value):
    """Valid JSON of another type."""
    with pytest.raises(BadRequest, match="the body must be an object") as refusal:
        validate(CompletionRequest, value)
    assert refusal.value.param is None


async def test_a_declared_size_is_refused_before_a_byte_is_read():
    """413 at once; the body is not even asked for."""
    request = _request(headers=[*JSON_TYPE, (b"content-length", b"1001")])
    with pytest.raises(TooLarge):
        await _read(request)


async def test_a_body_without_declared_size_is_counted():
    """A chunked or lying client is stopped where the limit is."""
    parts = [_part(b" " * 400, more=True) for _ in range(3)]
    request = _request(*parts, headers=[*JSON_TYPE, (b"content-length", b"5")])
    with pytest.raises(TooLarge) as refusal:
        await _read(request)
    assert refusal.value.code == "body_too_large"


async def test_the_limit_itself_is_allowed():
    """Exactly the limit is read."""
    assert len(await read_body(_request(_part(b"x" * 1000)), max_bytes=1000, deadline_s=60)) == 1000


async def test_a_slow_body_is_refused():
    """A client that stops in the middle of its body gets 408."""
    with pytest.raises(SlowClient) as refusal:
        await _read(_request(_part(GOOD[:5], more=True)), deadline_s=0.01)
    assert refusal.value.code == "body_timeout"


async def test_a_client_that_leaves_in_its_body_is_no_fault():
    """The call ends as a slow one does; nothing else breaks."""
    with pytest.raises(SlowClient) as refusal:
        await _read(_request(_part(GOOD[:5], more=True), {"type": "http.disconnect"}))
    assert refusal.value.code == "client_closed"


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [(b"content-type", b"text/plain")],
        [(b"content-type", b"application/jsonp")],
        [(b"content-type", b"application/json; charset=utf-16")],
        [(b"content-type", b"multipart/form-data")],
        [*JSON_TYPE, (b"content-encoding", b"gzip")],
    ],
)
async def test_another_media_type_or_encoding_is_refused(headers):
    """A form that a browser can send across sites, or a compressed bomb, is not read."""
    with pytest.raises(BadRequest) as refusal:
        await _read(_request(_part(GOOD), headers=headers))
    assert refusal.value.param in ("content-type", "content-encoding")


@pytest.mark.parametrize("value", [b"application/json", b"Application/JSON; charset=UTF-8"])
async def test_the_media_type_is_read_as_http_means_it(value):
    """Letters of any size, and the one charset that JSON has."""
    wire = await _read(_request(_part(GOOD), headers=[(b"content-type", value)]))
    assert wire.prompt == "a"


any_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(sorted(ChatCompletionRequest.model_fields)) | st.text(max_size=6), inner)
    ),
    max_leaves=12,
)


def _refusal_of(model, value):
    try:
        validate(model, parse_json(json.dumps(value).encode())).inference()
    except ApplianceError as refusal:
        return refusal
    return None


@given(any_json)
@settings(deadline=None, max_examples=200)
def test_any_json_is_taken_or_refused_with_a_reason(value):
    """No JSON value makes the schemas do anything but answer: accepted, or refused in short, printable words."""
    for model in (ChatCompletionRequest, CompletionRequest):
        refusal = _refusal_of(model, value)
        if refusal is not None:
            assert refusal.message.isprintable()
            assert refusal.param is None or len(refusal.param) <= 103
            assert len(refusal.message) <= 300


@given(st.binary(max_size=60))
@settings(deadline=None, max_examples=200)
def test_any_bytes_are_json_or_refused(body):
    """The parser's own errors never come through."""
    try:
        value = parse_json(body)
    except BadRequest:
        return
    assert value == json.loads(body)
