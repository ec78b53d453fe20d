import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance import errors
from appliance.api.client_text import MAX_ECHO_CHARACTERS, shown
from appliance.api.error_bodies import error_body, error_response


def _every_error():
    for kind in errors.HTTP_STATUS:
        extra = {"retry_after_s": 3} if kind is errors.Overloaded else {}
        yield kind("words", code="a_code", **extra)


@pytest.mark.parametrize("error", list(_every_error()), ids=lambda error: type(error).__name__)
def test_every_error_has_the_one_shape(error):
    """Status from the table, a body with exactly OpenAI's four fields, JSON as its type."""
    response = error_response(error)
    status, kind = errors.HTTP_STATUS[type(error)]
    assert response.status_code == status
    assert response.headers["content-type"] == "application/json"
    assert json.loads(response.body) == {"error": {"message": "words", "type": kind, "param": None, "code": "a_code"}}
    assert ("retry-after" in response.headers) == (status in (429, 503))


def test_every_class_of_error_is_in_the_table():
    """A new class without a status would fail only in production."""
    leaves = {kind for kind in errors.ApplianceError.__subclasses__() if not kind.__subclasses__()}
    assert leaves == set(errors.HTTP_STATUS)


@given(st.text(max_size=400))
@settings(deadline=None, max_examples=200)
def test_a_client_s_text_is_shown_short_and_printable(text):
    """Newlines, escapes, bidi marks and half surrogates stay data; nothing is quoted at length."""
    quoted = shown(text)
    assert quoted.isprintable()
    assert len(quoted) <= MAX_ECHO_CHARACTERS + 3
    assert shown(quoted[:MAX_ECHO_CHARACTERS]) == quoted[:MAX_ECHO_CHARACTERS]


def test_control_characters_in_a_message_are_escaped():
    """A log line or terminal that prints the body cannot be moved by it."""
    body = error_body(errors.BadRequest("a\r\n\x1b[2J\u202eb", code="c", param="p\nq"))
    assert body["error"]["message"] == "a\\r\\n\\x1b[2J\\u202eb"
    assert body["error"]["param"] == "p\\nq"
