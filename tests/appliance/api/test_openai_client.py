import asyncio

import openai
import pytest
from fake_walk import ADMITTED, CREATED_S, TERMINAL, finished

from appliance.errors import GenerationFailed, Overloaded, Unavailable
from appliance.inference import Conversation, PlainText, PromptTokens, TextDelta, TokenText

ASK = {"model": "starter", "messages": [{"role": "user", "content": "What stopped?"}]}
HANG_S = 20
"""A fault must fail the test, not hang it."""
PUMP = (TextDelta(0, "The pu"), TextDelta(0, "mp ⚙"), finished("stop"))
TOKENS = (
    TokenText("The", b"The", -0.25, (("The", b"The", -0.25), ("A", b"A", -1.5))),
    TokenText("", b"\xe2\x9a", -0.5, (("\ufffd", b"\xe2\x9a", -0.5), ("\ufffd", b"\xe2\x9b", -2.0))),
    TokenText("⚙", b"\x99", -0.125, (("x", b"x", -0.0625), ("\ufffd", b"\x99", -0.125))),
)


async def _chunks(stream):
    return [chunk async for chunk in stream]


async def _abandoned(running):
    async with asyncio.timeout(HANG_S):
        await running.gone.wait()


async def test_a_chat_answer_is_whole_with_receipts_and_usage(client, walk):
    """The client's own type is filled: text, end, usage with cached tokens, fingerprint, both receipts."""
    walk.script = PUMP
    raw = await client.chat.completions.with_raw_response.create(**ASK)
    answer = raw.parse()
    assert answer.object == "chat.completion"
    assert answer.id == "chatcmpl-req-1"
    assert (answer.created, answer.model, answer.system_fingerprint) == (CREATED_S, "starter", walk.model.fingerprint)
    (choice,) = answer.choices
    assert (choice.index, choice.finish_reason, choice.logprobs) == (0, "stop", None)
    assert (choice.message.role, choice.message.content) == ("assistant", "The pump ⚙")
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (12, 5, 17)
    assert answer.usage.prompt_tokens_details.cached_tokens == 8
    assert raw.headers["x-cloister-receipt"] == f"41:{ADMITTED.leaf_hash}"
    assert raw.headers["x-cloister-terminal-receipt"] == f"57:{TERMINAL.leaf_hash}"
    assert isinstance(walk.requests[0].prompts[0], Conversation)
    assert walk.askings[0].route == "/v1/chat/completions"
    assert walk.askings[0].label == 1
    assert walk.running[0].abandoned == []


async def test_a_chat_stream_is_what_the_client_expects(client, walk):
    """Role first and once, then content, then the end, then usage without choices; the head never varies."""
    walk.script = PUMP
    chunks = await _chunks(
        await client.chat.completions.create(**ASK, stream=True, stream_options={"include_usage": True})
    )
    assert {(one.id, one.object, one.created, one.model, one.system_fingerprint) for one in chunks} == {
        ("chatcmpl-req-1", "chat.completion.chunk", CREATED_S, "starter", walk.model.fingerprint)
    }
    first, *middle, last, usage = chunks
    assert (first.choices[0].delta.role, first.choices[0].delta.content) == ("assistant", "")
    assert [one.choices[0].delta.to_dict() for one in middle] == [{"content": "The pu"}, {"content": "mp ⚙"}]
    assert [one.choices[0].finish_reason for one in chunks[:-1]] == [None, None, None, "stop"]
    assert last.choices[0].delta.to_dict() == {}
    assert [one.to_dict()["usage"] for one in chunks[:-1]] == [None] * 4
    assert usage.choices == []
    assert usage.usage.total_tokens == 17
    assert usage.usage.prompt_tokens_details.cached_tokens == 8


async def test_a_stream_carries_both_receipts_and_ends_with_done(http, walk):
    """The first receipt is in the head, the second in a comment before `[DONE]`; usage is absent unless asked for."""
    walk.script = PUMP
    answer = await http.post("/v1/chat/completions", json={**ASK, "stream": True})
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.headers["x-cloister-receipt"] == f"41:{ADMITTED.leaf_hash}"
    blocks = answer.text.split("\n\n")
    assert blocks[-3:] == [f": x-cloister-terminal-receipt 57:{TERMINAL.leaf_hash}", "data: [DONE]", ""]
    assert "usage" not in answer.text


async def test_nothing_says_finished_before_the_terminal_record(client, walk):
    """While the record is not durable, the client has the text and no finish reason."""
    durable = asyncio.Event()
    walk.script = (TextDelta(0, "all of it"), durable, finished("length"))
    stream = await client.chat.completions.create(**ASK, stream=True)
    seen = [await anext(stream), await anext(stream)]
    assert [one.choices[0].delta.content for one in seen] == ["", "all of it"]
    assert all(one.choices[0].finish_reason is None for one in seen)
    durable.set()
    rest = await _chunks(stream)
    assert [one.choices[0].finish_reason for one in rest] == ["length"]


async def test_several_choices_keep_apart(client, walk):
    """Interleaved deltas of two choices come out as two answers, streamed and whole."""
    script = (TextDelta(1, "b"), TextDelta(0, "a"), TextDelta(1, "B"), finished("stop", "length"))
    walk.script = script
    answer = await client.chat.completions.create(**ASK, n=2)
    assert [(one.index, one.message.content, one.finish_reason) for one in answer.choices] == [
        (0, "a", "stop"),
        (1, "bB", "length"),
    ]
    texts, roles, ends = {0: "", 1: ""}, [], {}
    async for chunk in await client.chat.completions.create(**ASK, n=2, stream=True):
        (choice,) = chunk.choices
        texts[choice.index] += choice.delta.content or ""
        roles += [choice.index] if choice.delta.role else []
        if choice.finish_reason:
            ends[choice.index] = choice.finish_reason
    assert (texts, sorted(roles), ends) == ({0: "a", 1: "bB"}, [0, 1], {0: "stop", 1: "length"})


async def test_chat_logprobs_add_up_to_the_text(client, walk):
    """Tokens concatenate to the content and bytes to its UTF-8, streamed and whole."""
    walk.script = (TextDelta(0, "The", TOKENS[:1]), TextDelta(0, "⚙", TOKENS[1:]), finished("stop"))
    answer = await client.chat.completions.create(**ASK, logprobs=True, top_logprobs=2)
    entries = answer.choices[0].logprobs.content
    assert "".join(one.token for one in entries) == answer.choices[0].message.content == "The⚙"
    assert bytes(byte for one in entries for byte in one.bytes).decode() == "The⚙"
    assert [(one.token, one.logprob) for one in entries[0].top_logprobs] == [("The", -0.25), ("A", -1.5)]
    assert walk.requests[0].sampling.num_logprobs == 2
    streamed = []
    async for chunk in await client.chat.completions.create(**ASK, logprobs=True, top_logprobs=2, stream=True):
        if chunk.choices[0].logprobs:
            streamed += chunk.choices[0].logprobs.content
    assert streamed == entries


async def test_a_completion_has_its_own_logprobs_shape(client, walk):
    """Offsets are places in the text; a part of a character is named by its bytes, so no two tokens share a name."""
    walk.script = (TextDelta(0, "The", TOKENS[:1]), TextDelta(0, "⚙", TOKENS[1:]), finished("stop"))
    answer = await client.completions.create(model="starter", prompt="Say", logprobs=2)
    assert answer.object == "text_completion"
    assert answer.choices[0].text == "The⚙"
    logprobs = answer.choices[0].logprobs
    assert logprobs.tokens == ["The", "", "⚙"]
    assert logprobs.text_offset == [0, 3, 3]
    assert logprobs.token_logprobs == [-0.25, -0.5, -0.125]
    assert logprobs.top_logprobs == [
        {"The": -0.25, "A": -1.5},
        {"bytes:\\xe2\\x9a": -0.5, "bytes:\\xe2\\x9b": -2.0},
        {"x": -0.0625, "bytes:\\x99": -0.125},
    ]
    offsets, tokens = [], []
    async for chunk in await client.completions.create(model="starter", prompt="Say", logprobs=2, stream=True):
        if chunk.choices[0].logprobs:
            offsets += chunk.choices[0].logprobs.text_offset
            tokens += chunk.choices[0].logprobs.tokens
    assert (tokens, offsets) == (["The", "", "⚙"], [0, 3, 3])


async def test_echo_gives_each_choice_its_prompt(client, walk):
    """Two prompts by two choices: choice k belongs to prompt k // n, and starts with that prompt."""
    walk.script = (*(TextDelta(index, f"-{index}") for index in range(4)), finished(*["stop"] * 4))
    asked = {"model": "starter", "prompt": ["left", "right"], "n": 2, "echo": True}
    answer = await client.completions.create(**asked)
    expected = ["left-0", "left-1", "right-2", "right-3"]
    assert [one.text for one in answer.choices] == expected
    texts = dict.fromkeys(range(4), "")
    async for chunk in await client.completions.create(**asked, stream=True):
        texts[chunk.choices[0].index] += chunk.choices[0].text
    assert list(texts.values()) == expected


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("a", (PlainText("a"),)),
        (["a", "b"], (PlainText("a"), PlainText("b"))),
        ([1, 2], (PromptTokens((1, 2)),)),
        ([[1, 2], [3]], (PromptTokens((1, 2)), PromptTokens((3,)))),
    ],
)
async def test_all_four_forms_of_a_prompt(client, walk, prompt, expected):
    """Text, texts, token ids, lists of token ids."""
    walk.script = lambda request: (finished(*["stop"] * len(request.prompts)),)
    await client.completions.create(model="starter", prompt=prompt)
    assert walk.requests[0].prompts == expected


async def test_what_stopped_it_is_named(client, walk):
    """A stop string of the request is in `stop_reason`, as vLLM has it."""
    walk.script = (TextDelta(0, "a"), finished("stop", stop_reason="###"))
    answer = await client.chat.completions.create(**ASK, stop="###")
    assert answer.choices[0].finish_reason == "stop"
    assert answer.choices[0].stop_reason == "###"


async def test_a_refusal_names_the_field(client, walk):
    """The client's exception carries the field, the code and our words."""
    with pytest.raises(openai.BadRequestError) as refusal:
        await client.chat.completions.create(**ASK, tools=[{"type": "function", "function": {"name": "f"}}])
    assert (refusal.value.param, refusal.value.code) == ("tools", "unsupported_parameter")
    assert refusal.value.body["message"] == "tools is not supported by this server; leave it out"
    assert walk.requests == []


async def test_an_unknown_model_is_not_found(client):
    """By the client's own exception class."""
    with pytest.raises(openai.NotFoundError) as refusal:
        await client.chat.completions.create(model="gpt-4", messages=ASK["messages"])
    assert refusal.value.code == "model_not_found"


async def test_a_full_queue_says_when_to_come_back(client, walk):
    """429 with Retry-After; unavailable is 503 with one."""
    walk.refusal = Overloaded("the queue is full", code="queue_full", retry_after_s=7)
    with pytest.raises(openai.RateLimitError) as refusal:
        await client.chat.completions.create(**ASK)
    assert refusal.value.response.headers["retry-after"] == "7"
    walk.refusal = Unavailable("the log cannot be written", code="log_unavailable")
    with pytest.raises(openai.InternalServerError) as refusal:
        await client.chat.completions.create(**ASK)
    assert refusal.value.status_code == 503
    assert int(refusal.value.response.headers["retry-after"]) > 0


async def test_a_failure_in_mid_stream_reaches_the_client(client, http, walk):
    """What was generated stays; then one error event, and neither a finish reason nor `[DONE]`."""
    walk.script = (TextDelta(0, "half"), GenerationFailed("the engine died", code="engine_died"))
    stream = await client.chat.completions.create(**ASK, stream=True)
    seen = [await anext(stream), await anext(stream)]
    with pytest.raises(openai.APIError, match="the engine died"):
        await anext(stream)
    assert [one.choices[0].delta.content for one in seen] == ["", "half"]
    raw = await http.post("/v1/chat/completions", json={**ASK, "stream": True})
    assert raw.text.endswith('"code":"engine_died"}}\n\n')
    assert "[DONE]" not in raw.text
    assert 'finish_reason":"' not in raw.text


async def test_a_failure_after_admission_keeps_its_receipt(client, walk):
    """An answer that failed is an error, with the receipt of its admission and none of an end."""
    walk.script = (TextDelta(0, "half"), GenerationFailed("the engine died", code="engine_died"))
    with pytest.raises(openai.InternalServerError) as failure:
        await client.chat.completions.create(**ASK)
    assert failure.value.response.headers["x-cloister-receipt"] == f"41:{ADMITTED.leaf_hash}"
    assert "x-cloister-terminal-receipt" not in failure.value.response.headers
    assert "half" not in failure.value.response.text


async def test_an_end_without_a_word_for_it_is_a_failure(client, walk):
    """A cancelled choice never poses as a finished one, streamed or not."""
    walk.script = (TextDelta(0, "half"), finished("cancelled"))
    with pytest.raises(openai.APIError, match="given up"):
        await client.chat.completions.create(**ASK)
    stream = await client.chat.completions.create(**ASK, stream=True)
    with pytest.raises(openai.APIError, match="given up"):
        await _chunks(stream)


async def test_a_client_that_leaves_a_stream_ends_the_request(client, walk):
    """Closing the connection in mid-stream abandons the request, with the reason that the record will carry."""
    walk.script = (TextDelta(0, "half"), asyncio.Event(), finished("stop"))
    stream = await client.chat.completions.create(**ASK, stream=True)
    await anext(stream)
    await stream.close()
    await _abandoned(walk.running[0])
    assert walk.running[0].abandoned == ["client_closed"]


async def test_a_client_that_leaves_before_a_whole_answer_ends_the_request(base_url, walk):
    """Also without a stream, nobody generates for a connection that is gone."""
    admitted = asyncio.Event()
    walk.script = lambda _request: (admitted.set(), (asyncio.Event(), finished("stop")))[1]
    host, port = base_url.removeprefix("http://").split(":")
    _, writer = await asyncio.open_connection(host, int(port))
    body = b'{"model":"starter","prompt":"a"}'
    head = b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
    writer.write(head % len(body) + body)
    await admitted.wait()
    writer.close()
    await writer.wait_closed()
    await _abandoned(walk.running[0])
    assert walk.running[0].abandoned == ["client_closed"]


async def test_models_are_listed_and_found(client, walk):
    """The list and the single model are the client's own types, with the signed root and the length."""
    (model,) = (await client.models.list()).data
    assert (model.id, model.object, model.owned_by, model.created) == ("starter", "model", "cloister", CREATED_S)
    assert (model.root, model.max_model_len) == (walk.model.root, 2048)
    assert await client.models.retrieve("starter") == model
    with pytest.raises(openai.NotFoundError):
        await client.models.retrieve("other")
