import asyncio
import json
import sys
import threading

import pytest
from unicode_texts import FORGERIES

from appliance.api.openai_routes import OPENAI_ROUTES
from appliance.prompting import MAX_CHARACTERS_PER_TOKEN
from appliance.settings import Settings
from policies.actions import ACTIONS


async def _post(http, path, body):
    answer = await http.post(path, json=body)
    return answer.status_code, answer.json()


async def test_a_text_goes_to_ids_and_back(http, appliance):
    """The ids are those a request would use; detokenize is the way back; the count and the length are given."""
    text = "Pumpe 3: \U0001f6e0 «läuft»\n"
    status, body = await _post(http, "/tokenize", {"model": "starter", "prompt": text})
    assert status == 200
    assert body["tokens"] == appliance.model.tokenizer.encode(text)
    assert (body["count"], body["max_model_len"], body["token_strs"]) == (len(body["tokens"]), 2048, None)
    assert await _post(http, "/detokenize", {"tokens": body["tokens"]}) == (200, {"prompt": text})


async def test_a_conversation_shows_what_the_model_would_see(http):
    """Messages go through the chat template; token by token they are the rendered prompt."""
    messages = [{"role": "user", "content": "hi"}]
    _, body = await _post(http, "/tokenize", {"messages": messages, "return_token_strs": True})
    assert "".join(body["token_strs"]).startswith("<|im_start|>user\nhi<|im_end|>")
    _, bare = await _post(http, "/tokenize", {"messages": messages, "add_generation_prompt": False})
    assert body["tokens"][: bare["count"]] == bare["tokens"]
    assert body["count"] > bare["count"]


@pytest.mark.parametrize("text", FORGERIES)
async def test_special_token_text_stays_text(http, appliance, text):
    """What looks like a control token in a prompt is letters, and comes back as the same letters."""
    _, body = await _post(http, "/tokenize", {"prompt": text})
    assert appliance.model.tokenizer.special_token_ids.isdisjoint(body["tokens"])
    assert await _post(http, "/detokenize", {"tokens": body["tokens"]}) == (200, {"prompt": text})


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/tokenize", {}, "prompt"),
        ("/tokenize", {"prompt": "a", "messages": [{"role": "user", "content": "a"}]}, "prompt"),
        ("/tokenize", {"prompt": "a", "add_generation_prompt": True}, "add_generation_prompt"),
        (
            "/tokenize",
            {"messages": [{"role": "user", "content": "a"}], "add_special_tokens": True},
            "add_special_tokens",
        ),
        ("/tokenize", {"prompt": "a", "chat_template": "{{ 1 }}"}, "chat_template"),
        ("/detokenize", {}, "tokens"),
        ("/detokenize", {"tokens": [1, 10**6]}, "tokens[1]"),
        ("/detokenize", {"tokens": [-1]}, "tokens[0]"),
        ("/detokenize", {"tokens": ["1"]}, "tokens[0]"),
    ],
)
async def test_what_cannot_be_meant_is_refused(http, path, body, param):
    """Contradictions, a client's own template, and ids that are none."""
    status, answer = await _post(http, path, body)
    assert (status, answer["error"]["param"]) == (400, param)


LIMIT = 2048 * MAX_CHARACTERS_PER_TOKEN


def _turns(*lengths):
    return [{"role": "user", "content": "a" * length} for length in lengths]


@pytest.fixture
def roomy(appliance):
    """A body limit above the length limit, so that the latter is what answers."""
    appliance.settings = Settings(max_body_bytes=2**20)
    return appliance


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/tokenize", {"prompt": "a" * (LIMIT + 1)}, "prompt"),
        ("/tokenize", {"messages": _turns(LIMIT + 1)}, "messages"),
        ("/tokenize", {"messages": _turns(LIMIT // 2, LIMIT // 2 + 1)}, "messages"),
        ("/detokenize", {"tokens": [1] * (LIMIT + 1)}, "tokens"),
    ],
)
async def test_more_than_a_prompt_can_have_is_refused_unread(http, roomy, monkeypatch, path, body, param):
    """One character or id above the bound is 400 by name, and the tokenizer never sees it."""
    for name in ("encode", "encode_conversation", "decode"):
        monkeypatch.setattr(roomy.model.tokenizer, name, _must_not_be_called)
    status, answer = await _post(http, path, body)
    error = answer["error"]
    assert (status, error["code"], error["param"]) == (400, "context_length_exceeded", param)
    assert str(LIMIT) in error["message"]


def _must_not_be_called(*_given, **_named):
    raise AssertionError("the tokenizer was given what is too long")


async def test_all_that_a_prompt_can_have_goes_to_ids_and_back(http, roomy):
    """At the bound both ways work, and give what they give for short texts."""
    text = "pump " * (LIMIT // 5) + "p" * (LIMIT % 5)
    status, body = await _post(http, "/tokenize", {"prompt": text})
    assert (status, body["tokens"]) == (200, roomy.model.tokenizer.encode(text))
    assert await _post(http, "/detokenize", {"tokens": body["tokens"]}) == (200, {"prompt": text})
    status, body = await _post(http, "/tokenize", {"messages": _turns(LIMIT)})
    assert status == 200


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("encode", "/tokenize", {"prompt": "a" * 5000}),
        ("encode_conversation", "/tokenize", {"messages": _turns(5000)}),
        ("decode", "/detokenize", {"tokens": [1] * 5000}),
    ],
)
async def test_a_long_text_holds_up_nobody(http, appliance, monkeypatch, method, path, body):
    """While one long text is worked on, another caller is answered: only then may the work end."""
    tokenizer = appliance.model.tokenizer
    real = getattr(tokenizer, method)
    started, may_end = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def slow(given, **named):
        if threading.current_thread() is threading.main_thread():
            assert len(given) < 100, "a long text is worked on by the event loop's own thread"
            return real(given, **named)
        loop.call_soon_threadsafe(started.set)
        assert may_end.wait(60), "nobody else was answered"
        return real(given, **named)

    monkeypatch.setattr(tokenizer, method, slow)
    long = asyncio.create_task(_post(http, path, body))
    begun = asyncio.create_task(started.wait())
    try:
        await asyncio.wait([long, begun], return_when=asyncio.FIRST_COMPLETED)
        assert begun.done(), long.result()
        assert (await _post(http, "/tokenize", {"prompt": "short"}))[0] == 200
        assert not long.done()
    finally:
        may_end.set()
        begun.cancel()
    assert (await long)[0] == 200


def test_encoding_gives_other_threads_their_turn(appliance):
    """A thread helps nobody if the library keeps Python's lock: here the lock moves only when it is given away."""
    tokenizer, may_run, ran = appliance.model.tokenizer, threading.Lock(), []
    interval = sys.getswitchinterval()
    may_run.acquire()
    other = threading.Thread(target=lambda: ran.append(may_run.acquire()))
    other.start()
    try:
        sys.setswitchinterval(3600)
        may_run.release()
        tokenizer.encode("Pumpe 3 läuft " * 60_000)
        ran_meanwhile = bool(ran)
    finally:
        sys.setswitchinterval(interval)
        other.join()
    assert ran_meanwhile


async def test_another_model_is_not_found(http):
    """A name that is not served is 404 here as everywhere."""
    status, answer = await _post(http, "/tokenize", {"model": "other", "prompt": "a"})
    assert (status, answer["error"]["code"]) == (404, "model_not_found")


def test_every_route_names_a_known_action_and_a_schema_that_can_be_published():
    """The router refuses an unknown action at start; the OpenAPI document needs the schemas of all bodies."""
    for route in OPENAI_ROUTES:
        assert route.action in ACTIONS
        assert (route.request_model is None) == (route.method == "GET")
        if route.request_model is not None:
            schema = route.request_model.model_json_schema()
            assert schema["additionalProperties"] is False
            assert json.loads(json.dumps(schema)) == schema
