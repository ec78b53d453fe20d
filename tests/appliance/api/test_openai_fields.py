import json

import pytest
from openai.types import completion_create_params as completion_params
from openai.types.chat import (
    ChatCompletionAssistantMessageParam,
    ChatCompletionContentPartTextParam,
    ChatCompletionDeveloperMessageParam,
    ChatCompletionStreamOptionsParam,
    ChatCompletionSystemMessageParam,
    ChatCompletionUserMessageParam,
)
from openai.types.chat import completion_create_params as chat_params
from policy_questions import infer_facts

from appliance.api.body import validate
from appliance.api.openai_chat import ChatCompletionRequest, ChatMessage, TextPart
from appliance.api.openai_completions import CompletionRequest
from appliance.errors import BadRequest
from appliance.inference import Message
from policies.bundle import load_bundle, read_source_bundle
from policies.decision import Allow

CHAT = {"model": "starter", "messages": [{"role": "user", "content": "a"}]}
COMPLETION = {"model": "starter", "prompt": "a"}

# Field -> a value that is not the default, and what the walk must then see.  Dotted names are read from the request.
CHAT_HONOURED = {
    "model": ("other", {"model": "other"}),
    "messages": (
        [{"role": "developer", "content": [{"type": "text", "text": "x"}, {"type": "text", "text": "y"}], "name": "n"}],
        {"prompts.0.messages": (Message("system", "x\ny", "n"),)},
    ),
    "temperature": (0.25, {"sampling.temperature": 0.25}),
    "top_p": (0.5, {"sampling.top_p": 0.5}),
    "n": (3, {"n": 3}),
    "stop": (["x", "y", "x"], {"sampling.stop": ("x", "y")}),
    "max_tokens": (7, {"sampling.max_tokens": 7}),
    "max_completion_tokens": (8, {"sampling.max_tokens": 8}),
    "presence_penalty": (-1.5, {"sampling.presence_penalty": -1.5}),
    "frequency_penalty": (1, {"sampling.frequency_penalty": 1.0}),
    "logit_bias": ({"12": 3, "5": -100}, {"sampling.logit_bias": ((5, -100.0), (12, 3.0))}),
    "logprobs": (True, {"sampling.num_logprobs": 0}),
    "seed": (-1, {"sampling.seed": 2**64 - 1}),
    "stream": (True, {"stream": True}),
    "user": ("u", {"declared": {"user": "u"}}),
    "metadata": ({"k": "v"}, {"declared": {"metadata.k": "v"}}),
    "safety_identifier": ("s", {"declared": {"safety_identifier": "s"}}),
    "prompt_cache_key": ("p", {"declared": {"prompt_cache_key": "p"}}),
}
"""Honoured: the value reaches the walk."""
CHAT_WITH_ANOTHER = {
    "top_logprobs": ({"top_logprobs": 4, "logprobs": True}, {"sampling.num_logprobs": 4}),
    "stream_options": ({"stream_options": {"include_usage": True}, "stream": True}, {"stream": True}),
}
CHAT_ONLY_AS = {
    "response_format": ({"type": "text"}, {"type": "json_object"}),
    "store": (False, True),
    "service_tier": ("auto", "flex"),
    "modalities": (["text"], ["audio"]),
    "tool_choice": ("none", "auto"),
}
"""Taken only where it asks for what is done anyway: (taken, refused)."""
CHAT_REFUSED = {
    "audio": {"format": "wav", "voice": "a"},
    "function_call": "auto",
    "functions": [{"name": "f"}],
    "moderation": {"model": "m"},
    "parallel_tool_calls": True,
    "prediction": {"type": "content", "content": "a"},
    "prompt_cache_options": {},
    "prompt_cache_retention": "24h",
    "reasoning_effort": "low",
    "tools": [],
    "verbosity": "low",
    "web_search_options": {},
}
COMPLETION_HONOURED = {
    **{name: CHAT_HONOURED[name] for name in ("model", "temperature", "top_p", "n", "stop", "max_tokens")},
    **{name: CHAT_HONOURED[name] for name in ("presence_penalty", "frequency_penalty", "logit_bias", "seed")},
    **{name: CHAT_HONOURED[name] for name in ("stream", "user")},
    "prompt": ([3, 4], {"prompts.0.token_ids": (3, 4)}),
    "echo": (True, {"echo": True}),
    "logprobs": (5, {"sampling.num_logprobs": 5}),
}
COMPLETION_WITH_ANOTHER = {
    "stream_options": ({"stream_options": {"include_usage": True}, "stream": True}, {"stream": True}),
    "best_of": ({"best_of": 2, "n": 2}, {"n": 2}),
}
COMPLETION_REFUSED = {"suffix": "after"}
VLLM_HONOURED = {
    "top_k": (9, {"sampling.top_k": 9}),
    "min_p": (0.125, {"sampling.min_p": 0.125}),
    "repetition_penalty": (1.5, {"sampling.repetition_penalty": 1.5}),
    "min_tokens": (2, {"sampling.min_tokens": 2}),
    "ignore_eos": (True, {"sampling.ignore_eos": True}),
    "stop_token_ids": ([4, 3, 4], {"sampling.stop_token_ids": (4, 3)}),
    "include_stop_str_in_output": (True, {"sampling.include_stop_in_output": True}),
}


def _sdk_fields(params):
    return set(params.CompletionCreateParamsBase.__annotations__) | set(
        params.CompletionCreateParamsStreaming.__annotations__
    )


def _inference(model, body):
    # Through JSON, so that the wire type sees what the wire can carry.
    wire = validate(model, json.loads(json.dumps(body)))
    wire.check_stream_options()
    return wire.inference()


def _read(value, path):
    for step in path.split("."):
        value = value[int(step)] if step.isdecimal() else getattr(value, step)
    return value


def _cases():
    for model, base, tables in (
        (ChatCompletionRequest, CHAT, (CHAT_HONOURED, VLLM_HONOURED)),
        (CompletionRequest, COMPLETION, (COMPLETION_HONOURED, VLLM_HONOURED)),
    ):
        for table in tables:
            for name, (value, seen) in table.items():
                yield pytest.param(model, base, {name: value}, seen, id=f"{model.__name__}-{name}")
    for model, base, table in (
        (ChatCompletionRequest, CHAT, CHAT_WITH_ANOTHER),
        (CompletionRequest, COMPLETION, COMPLETION_WITH_ANOTHER),
    ):
        for name, (fields, seen) in table.items():
            yield pytest.param(model, base, fields, seen, id=f"{model.__name__}-{name}")


def _refused_cases():
    for model, base, table in (
        (ChatCompletionRequest, CHAT, CHAT_REFUSED),
        (CompletionRequest, COMPLETION, COMPLETION_REFUSED),
    ):
        for name, value in table.items():
            yield pytest.param(model, base, name, value, id=f"{model.__name__}-{name}")


def test_every_chat_field_of_the_released_client_has_a_place_here():
    """A field that a new client brings breaks this test until somebody decides what becomes of it."""
    decided = {*CHAT_HONOURED, *CHAT_WITH_ANOTHER, *CHAT_ONLY_AS, *CHAT_REFUSED}
    assert _sdk_fields(chat_params) == decided
    assert set(ChatCompletionRequest.model_fields) == decided | set(VLLM_HONOURED)


def test_every_completions_field_of_the_released_client_has_a_place_here():
    """The same for the older dialect."""
    decided = {*COMPLETION_HONOURED, *COMPLETION_WITH_ANOTHER, *COMPLETION_REFUSED}
    assert _sdk_fields(completion_params) == decided
    assert set(CompletionRequest.model_fields) == decided | set(VLLM_HONOURED)


def test_every_message_field_of_the_released_client_is_declared():
    """Also the fields of messages, text parts and stream options."""
    messages = (
        ChatCompletionAssistantMessageParam,
        ChatCompletionDeveloperMessageParam,
        ChatCompletionSystemMessageParam,
        ChatCompletionUserMessageParam,
    )
    assert set().union(*(one.__annotations__ for one in messages)) <= set(ChatMessage.model_fields)
    assert set(ChatCompletionContentPartTextParam.__annotations__) == set(TextPart.model_fields)
    options = ChatCompletionRequest.model_fields["stream_options"].annotation.__args__[0]
    assert set(ChatCompletionStreamOptionsParam.__annotations__) == set(options.model_fields)


@pytest.mark.parametrize(("model", "base", "fields", "seen"), list(_cases()))
def test_an_honoured_field_reaches_the_walk(model, base, fields, seen):
    """The value that the client sent is what the walk sees, and without it the walk sees something else."""
    request = _inference(model, {**base, **fields})
    for path, expected in seen.items():
        assert _read(request, path) == expected
    if "include_usage" not in str(fields):
        plain = _inference(model, base)
        assert any(_read_or_none(plain, path) != expected for path, expected in seen.items())


@pytest.mark.parametrize("said", [{}, {"max_tokens": None}])
def test_a_completion_without_max_tokens_has_the_default_of_openai_and_vllm(said):
    """A text has no end of its own, and policy must see the number; a chat answer ends by itself."""
    assert _inference(CompletionRequest, {**COMPLETION, **said}).sampling.max_tokens == 16
    assert _inference(ChatCompletionRequest, {**CHAT, **said}).sampling.max_tokens is None


def _read_or_none(value, path):
    try:
        return _read(value, path)
    except AttributeError:
        return None


@pytest.mark.parametrize(("model", "base", "name", "value"), list(_refused_cases()))
def test_an_unsupported_field_is_refused_by_name_and_null_is_absent(model, base, name, value):
    """A value is refused with the field's name; null says nothing, so it is taken."""
    with pytest.raises(BadRequest) as refusal:
        _inference(model, {**base, name: value})
    assert (refusal.value.param, refusal.value.code) == (name, "unsupported_parameter")
    assert _inference(model, {**base, name: None}) == _inference(model, base)


@pytest.mark.parametrize("name", sorted(CHAT_ONLY_AS))
def test_a_field_with_one_meaning_here_is_taken_in_that_meaning_only(name):
    """What is done anyway may be asked for; anything else is refused by name."""
    taken, refused = CHAT_ONLY_AS[name]
    assert _inference(ChatCompletionRequest, {**CHAT, name: taken}) == _inference(ChatCompletionRequest, CHAT)
    with pytest.raises(BadRequest) as refusal:
        _inference(ChatCompletionRequest, {**CHAT, name: refused})
    assert refusal.value.param.startswith(name)


@pytest.mark.parametrize(("model", "base"), [(ChatCompletionRequest, CHAT), (CompletionRequest, COMPLETION)])
def test_null_is_absent_for_every_optional_field(model, base):
    """Clients send null for what they do not mean."""
    nulls = {name: None for name in model.model_fields if name not in base}
    assert _inference(model, {**base, **nulls}) == _inference(model, base)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"modle": "a"}, "modle"),
        ({"temperature": 2.5}, "temperature"),
        ({"temperature": -0.1}, "temperature"),
        ({"temperature": "1"}, "temperature"),
        ({"temperature": True}, "temperature"),
        ({"temperature": 10**400}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"top_p": 1.01}, "top_p"),
        ({"n": 17}, "n"),
        ({"n": 0}, "n"),
        ({"n": 16384}, "n"),
        ({"n": 2.0}, "n"),
        ({"n": True}, "n"),
        ({"n": 10**300}, "n"),
        ({"stop": ""}, "stop"),
        ({"stop": []}, "stop"),
        ({"stop": ["a"] * 5}, "stop"),
        ({"stop": ["a", ""]}, "stop[1]"),
        ({"stop": ["a", 3]}, "stop[1]"),
        ({"stop": 3}, "stop"),
        ({"stop": "a" * 257}, "stop"),
        ({"logit_bias": {"a": 1}}, "logit_bias.a"),
        ({"logit_bias": {"01": 1}}, "logit_bias.01"),
        ({"logit_bias": {"-1": 1}}, "logit_bias.-1"),
        ({"logit_bias": {"1": 101}}, "logit_bias.1"),
        ({"logit_bias": {str(i): 1 for i in range(301)}}, "logit_bias"),
        ({"logit_bias": [1]}, "logit_bias"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 10**9}, "max_tokens"),
        ({"min_tokens": -1}, "min_tokens"),
        ({"seed": 2**64}, "seed"),
        ({"seed": 1.5}, "seed"),
        ({"top_k": -2}, "top_k"),
        ({"min_p": 1.5}, "min_p"),
        ({"repetition_penalty": 0}, "repetition_penalty"),
        ({"stop_token_ids": [-1]}, "stop_token_ids[0]"),
        ({"stop_token_ids": ["1"]}, "stop_token_ids[0]"),
        ({"stop_token_ids": list(range(65))}, "stop_token_ids"),
        ({"stream": "true"}, "stream"),
        ({"stream": 1}, "stream"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"stream": True, "stream_options": {"include_usage": 1}}, "stream_options.include_usage"),
        ({"stream": True, "stream_options": {"chunk": 1}}, "stream_options.chunk"),
        ({"stream": True, "stream_options": {"include_obfuscation": True}}, "stream_options.include_obfuscation"),
        ({"user": 3}, "user"),
        ({"user": "u" * 513}, "user"),
        ({"model": ""}, "model"),
        ({"model": None}, "model"),
    ],
)
@pytest.mark.parametrize(("model", "base"), [(ChatCompletionRequest, CHAT), (CompletionRequest, COMPLETION)])
def test_a_bad_value_is_refused_with_the_name_of_its_field(model, base, fields, param):
    """Wrong types are not converted, absurd numbers are refused, and the field at fault is named in both dialects."""
    with pytest.raises(BadRequest) as refusal:
        _inference(model, {**base, **fields})
    assert refusal.value.param == param
    assert refusal.value.message.startswith(param) or param == "stream_options"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"messages": []}, "messages"),
        ({"messages": None}, "messages"),
        ({"messages": "hi"}, "messages"),
        ({"messages": ["hi"]}, "messages[0]"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [{"content": "a"}]}, "messages[0].role"),
        ({"messages": [{"role": "tool", "content": "a"}]}, "messages[0].role"),
        ({"messages": [{"role": "function", "content": "a"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": None}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": 3}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": []}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages[0].content[0].text"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://x/"}}]}]},
            "messages[0].content[0].image_url",
        ),
        ({"messages": [{"role": "assistant", "content": "a", "tool_calls": []}]}, "messages[0].tool_calls"),
        ({"messages": [{"role": "user", "content": "a", "weight": 1}]}, "messages[0].weight"),
        ({"messages": [{"role": "user", "content": "a"}] * 1025}, "messages"),
        ({"logprobs": 3}, "logprobs"),
        ({"top_logprobs": 21, "logprobs": True}, "top_logprobs"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"top_logprobs": 2, "logprobs": False}, "top_logprobs"),
        ({"max_tokens": 3, "max_completion_tokens": 4}, "max_completion_tokens"),
        ({"metadata": {"k": 1}}, "metadata.k"),
        ({"metadata": {str(i): "v" for i in range(17)}}, "metadata"),
        ({"response_format": {"type": "json_schema", "json_schema": {}}}, "response_format.json_schema"),
        ({"store": 0}, "store"),
        ({"prompt": "a"}, "prompt"),
    ],
)
def test_a_bad_chat_value_is_refused_with_the_name_of_its_field(fields, param):
    """The fields that only the chat has."""
    with pytest.raises(BadRequest) as refusal:
        _inference(ChatCompletionRequest, {**CHAT, **fields})
    assert refusal.value.param == param


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"prompt": None}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": [[]]}, "prompt[0]"),
        ({"prompt": [1, "a"]}, "prompt[1]"),
        ({"prompt": ["a", 1]}, "prompt[1]"),
        ({"prompt": [[1], ["a"]]}, "prompt[1][0]"),
        ({"prompt": [-1]}, "prompt[0]"),
        ({"prompt": [1.5]}, "prompt[0]"),
        ({"prompt": [True]}, "prompt[0]"),
        ({"prompt": ["a"] * 17}, "prompt"),
        ({"prompt": [[1]] * 17}, "prompt"),
        ({"prompt": ["a"] * 9, "n": 2}, "n"),
        ({"prompt": ["a"] * 5, "n": 16}, "n"),
        ({"prompt": {"a": 1}}, "prompt"),
        ({"logprobs": 21}, "logprobs"),
        ({"logprobs": True}, "logprobs"),
        ({"echo": True, "logprobs": 0}, "echo"),
        ({"best_of": 2}, "best_of"),
        ({"best_of": 2, "n": 3}, "best_of"),
        ({"messages": []}, "messages"),
    ],
)
def test_a_bad_completions_value_is_refused_with_the_name_of_its_field(fields, param):
    """The fields that only the older dialect has."""
    with pytest.raises(BadRequest) as refusal:
        _inference(CompletionRequest, {**COMPLETION, **fields})
    assert refusal.value.param == param


@pytest.mark.parametrize("num_prompts", [1, 2, 3, 5, 16, 17, 64])
def test_policy_forbids_for_its_number_only_what_the_wire_refuses_first(num_prompts):
    """Up to the limit the delivered policies allow; above it the caller is told the field, and never 'forbidden'."""
    policy = load_bundle(read_source_bundle())
    for n in (1, 2, 3, 8, 16):
        wanted = num_prompts * n
        decision = policy.decide(infer_facts(context={"n": wanted}))
        body = {**COMPLETION, "prompt": ["a"] * num_prompts, "n": n}
        if isinstance(decision, Allow):
            taken = _inference(CompletionRequest, body)
            assert len(taken.prompts) * taken.n == wanted
            continue
        assert decision.policy_ids == ("choices-within-limit",)
        with pytest.raises(BadRequest) as refusal:
            _inference(CompletionRequest, body)
        assert (refusal.value.code, refusal.value.param) == ("bad_value", "prompt" if num_prompts > 16 else "n")


def test_the_words_name_every_type_that_would_do():
    """A human reads what to send, not a library's terms."""
    cases = {
        "temperature must be a number": {"temperature": "1"},
        "n must be at most 16": {"n": 16384},
        "modle is not a field of this request; remove it": {"modle": 1},
        "messages[0].role must be 'system', 'developer', 'user' or 'assistant'": {
            "messages": [{"role": "tool", "content": "a"}]
        },
        "stop[1] must have at least 1 characters": {"stop": ["a", ""]},
    }
    for words, fields in cases.items():
        with pytest.raises(BadRequest) as refusal:
            _inference(ChatCompletionRequest, {**CHAT, **fields})
        assert refusal.value.message == words
