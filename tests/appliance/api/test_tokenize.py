import json

import pytest
from unicode_texts import FORGERIES

from appliance.api.openai_routes import OPENAI_ROUTES
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
