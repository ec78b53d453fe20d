"""The released `openai` client against a live appliance: what an application sees, from the first call to the proof.

Nothing here asks for a particular answer of the model but the banner's sample: texts are compared with one another.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from types import SimpleNamespace

import httpx
import openai
import pytest
from live_appliance import LiveAppliance

from appliance.cli.sample import MESSAGES
from audit.checkpoint import LogVerifier
from audit.proof import EntryProof

CHAT = {"model": "starter", "messages": MESSAGES, "temperature": 0, "max_tokens": 24}
TEXT = {"model": "starter", "prompt": "Shift log: unit 7, night shift. Pump", "temperature": 0, "max_tokens": 24}
UNIQUE = itertools.count()


@pytest.fixture(scope="module")
def client(live: LiveAppliance) -> Iterator[openai.OpenAI]:
    """The developer's client, as its makers ship it; without retries, so that nothing is papered over."""
    with _client(live, live.keys["developer"]) as made:
        yield made


@pytest.fixture(scope="module")
def eos(live: LiveAppliance) -> int:
    """The token by which the starter ends its answer."""
    return json.loads((live.state_dir / "models/starter/config.json").read_text())["eos_token_id"]


def _client(live: LiveAppliance, key: str) -> openai.OpenAI:
    return openai.OpenAI(
        base_url=f"{live.url}/v1", api_key=key, max_retries=0, timeout=60, http_client=httpx.Client(trust_env=False)
    )


def _post(live: LiveAppliance, path: str, body: dict) -> dict:
    with live.client("developer") as developer:
        return developer.post(path, json=body).raise_for_status().json()


def _streamed_chat(client: openai.OpenAI, **asked: object) -> dict[int, SimpleNamespace]:
    """Put a stream back together, per choice; the order of the protocol is checked on the way."""
    found: dict[int, SimpleNamespace] = {}
    for chunk in client.chat.completions.create(stream=True, **asked):
        for choice in chunk.choices:
            if choice.index not in found:
                assert choice.delta.role == "assistant"
                found[choice.index] = SimpleNamespace(text="", finish=None, logprobs=[])
            one = found[choice.index]
            assert one.finish is None, "something came after the finish reason"
            one.text += choice.delta.content or ""
            one.finish = choice.finish_reason
            one.logprobs += choice.logprobs.content if choice.logprobs else []
    return found


def _streamed_text(client: openai.OpenAI, **asked: object) -> dict[int, SimpleNamespace]:
    found: dict[int, SimpleNamespace] = {}
    for chunk in client.completions.create(stream=True, **asked):
        for choice in chunk.choices:
            one = found.setdefault(choice.index, SimpleNamespace(text="", finish=None))
            assert one.finish is None, "something came after the finish reason"
            one.text += choice.text
            one.finish = choice.finish_reason
    return found


def test_a_chat_is_the_same_streamed_and_whole(client: openai.OpenAI):
    """Greedy text, finish reason and usage do not depend on how the answer travels."""
    whole = client.chat.completions.create(**CHAT)
    assert whole.object == "chat.completion"
    assert whole.model == "starter"
    assert whole.choices[0].message.role == "assistant"
    assert whole.usage.total_tokens == whole.usage.prompt_tokens + whole.usage.completion_tokens
    assert 1 <= whole.usage.completion_tokens <= CHAT["max_tokens"]
    streamed = _streamed_chat(client, **CHAT)[0]
    assert (streamed.text, streamed.finish) == (whole.choices[0].message.content, whole.choices[0].finish_reason)


def test_the_sample_of_the_banner_is_answered_from_its_note(client: openai.OpenAI):
    """The one question that every newcomer sees: who reported the fault stands in the note."""
    answer = client.chat.completions.create(model="starter", messages=MESSAGES, temperature=0)
    assert "Ivo Hartmann" in answer.choices[0].message.content
    assert answer.choices[0].finish_reason == "stop"


def test_a_completion_is_the_same_streamed_and_whole(client: openai.OpenAI):
    """As for chat; and without an end of its own it stops by length, with exactly so many tokens."""
    whole = client.completions.create(**TEXT, extra_body={"ignore_eos": True})
    assert whole.choices[0].finish_reason == "length"
    assert whole.usage.completion_tokens == TEXT["max_tokens"]
    streamed = _streamed_text(client, **TEXT, extra_body={"ignore_eos": True})[0]
    assert (streamed.text, streamed.finish) == (whole.choices[0].text, "length")


def test_choice_k_has_the_seed_of_the_request_plus_k(client: openai.OpenAI):
    """`n` choices are exactly the answers of single requests with the seeds that follow one another."""
    asked = {**TEXT, "temperature": 1.5, "extra_body": {"ignore_eos": True}}
    pair = client.completions.create(**asked, n=2, seed=41)
    assert [choice.index for choice in pair.choices] == [0, 1]
    singles = [client.completions.create(**asked, seed=seed).choices[0].text for seed in (41, 42)]
    assert [choice.text for choice in pair.choices] == singles
    assert singles[0] != singles[1]
    streamed = _streamed_text(client, **asked, n=2, seed=41)
    assert [streamed[0].text, streamed[1].text] == singles
    chat = client.chat.completions.create(**{**CHAT, "temperature": 1.5}, n=2, seed=41)
    streamed_chat = _streamed_chat(client, **{**CHAT, "temperature": 1.5}, n=2, seed=41)
    assert {one.index: one.message.content for one in chat.choices} == {k: v.text for k, v in streamed_chat.items()}


def test_without_a_seed_answers_differ_and_the_recorded_seed_repeats_one(client: openai.OpenAI, live: LiveAppliance):
    """The appliance draws the seed that the client did not give, records it, and it reproduces the answer."""
    asked = {**TEXT, "temperature": 1.5, "extra_body": {"ignore_eos": True}}
    first, second = (client.completions.with_raw_response.create(**asked) for _ in range(2))
    assert first.parse().choices[0].text != second.parse().choices[0].text
    index = first.headers["x-cloister-receipt"].split(":")[0]
    with live.client("auditor") as auditor:
        facts = auditor.get(f"/audit/entries/{index}").json()["entry"]["facts"]
    seed = int(facts["sampling"]["seed"])
    assert client.completions.create(**asked, seed=seed).choices[0].text == first.parse().choices[0].text


def test_chat_logprobs_explain_the_greedy_text(client: openai.OpenAI):
    """Tokens and bytes add up to the text, the chosen token is the likeliest, streamed the same as whole."""
    asked = {**CHAT, "logprobs": True, "top_logprobs": 5}
    choice = client.chat.completions.create(**asked).choices[0]
    entries = choice.logprobs.content
    assert "".join(entry.token for entry in entries) == choice.message.content
    assert bytes(byte for entry in entries for byte in entry.bytes).decode() == choice.message.content
    for entry in entries:
        assert len(entry.top_logprobs) == 5
        values = [one.logprob for one in entry.top_logprobs]
        assert values == sorted(values, reverse=True)
        assert entry.logprob == values[0]
        assert values[0] <= 0
    assert _streamed_chat(client, **asked)[0].logprobs == entries


def test_logprobs_without_alternatives(client: openai.OpenAI):
    """`logprobs` alone gives the chosen tokens and no others; without it there is nothing."""
    entries = client.chat.completions.create(**CHAT, logprobs=True).choices[0].logprobs.content
    assert entries
    assert all(entry.top_logprobs == [] for entry in entries)
    assert client.chat.completions.create(**CHAT).choices[0].logprobs is None


def test_completion_logprobs_have_places_in_the_text(client: openai.OpenAI):
    """Offsets point at each token's text, and the chosen token is always among the named ones."""
    choice = client.completions.create(**TEXT, logprobs=3).choices[0]
    logprobs = choice.logprobs
    assert "".join(logprobs.tokens) == choice.text
    for token, offset, logprob, top in zip(
        logprobs.tokens, logprobs.text_offset, logprobs.token_logprobs, logprobs.top_logprobs, strict=True
    ):
        assert choice.text[offset:].startswith(token)
        assert len(top) == 3
        assert max(top.values()) == logprob


def test_a_stop_string_ends_the_text_before_it(client: openai.OpenAI, eos: int):
    """The text is cut before the first occurrence, nothing of it leaks in a stream, and it is named."""
    asked = {**TEXT, "logit_bias": {str(eos): -100}}
    full = client.completions.create(**asked).choices[0].text
    stop = full[9:12]
    expected = full[: full.index(stop)]
    cut = client.completions.create(**asked, stop=[stop, "never to be seen"]).choices[0]
    assert (cut.text, cut.finish_reason, cut.stop_reason) == (expected, "stop", stop)
    assert _streamed_text(client, **asked, stop=stop)[0].text == expected
    kept = client.completions.create(**asked, stop=stop, extra_body={"include_stop_str_in_output": True}).choices[0]
    assert kept.text == expected + stop


def test_a_bias_forces_a_token_and_a_stop_token_id_ends_on_it(client: openai.OpenAI, live: LiveAppliance):
    """+100 makes every token that one; named as a stop token it ends the answer and is no part of it."""
    token_id = _post(live, "/tokenize", {"prompt": "pump"})["tokens"][0]
    forced = {**TEXT, "max_tokens": 6, "logit_bias": {str(token_id): 100}}
    answer = client.completions.create(**forced)
    assert answer.choices[0].text == _post(live, "/detokenize", {"tokens": [token_id] * 6})["prompt"]
    stopped = client.completions.create(**forced, extra_body={"stop_token_ids": [token_id]})
    assert (stopped.choices[0].text, stopped.choices[0].finish_reason) == ("", "stop")
    assert stopped.choices[0].stop_reason == token_id
    assert stopped.usage.completion_tokens == 1


def test_min_tokens_holds_the_end_back(client: openai.OpenAI, live: LiveAppliance):
    """Before `min_tokens` the stop token cannot be chosen, however much it is wanted; right after it is."""
    token_id = _post(live, "/tokenize", {"prompt": "pump"})["tokens"][0]
    answer = client.completions.create(
        **{**TEXT, "logit_bias": {str(token_id): 100}}, extra_body={"stop_token_ids": [token_id], "min_tokens": 3}
    )
    assert answer.usage.completion_tokens == 4
    assert answer.choices[0].stop_reason == token_id


def test_ignore_eos_goes_on_where_the_model_ends(client: openai.OpenAI, eos: int):
    """With the model's own end forced, the answer is over at once; with `ignore_eos` it fills its length."""
    forced = {**TEXT, "max_tokens": 5, "logit_bias": {str(eos): 100}}
    ended = client.completions.create(**forced)
    assert (ended.choices[0].finish_reason, ended.usage.completion_tokens) == ("stop", 1)
    assert ended.choices[0].text == ""
    filled = client.completions.create(**forced, extra_body={"ignore_eos": True})
    assert (filled.choices[0].finish_reason, filled.usage.completion_tokens) == ("length", 5)


def test_the_second_identical_request_rides_on_cached_tokens(client: openai.OpenAI):
    """The usage chunk of a stream is its last, every other has null, and it says how many tokens were cached."""
    messages = [{"role": "user", "content": f"Note {next(UNIQUE)}-7c1f: " + "the pump was inspected again. " * 12}]
    asked = {**CHAT, "messages": messages, "stream": True, "stream_options": {"include_usage": True}}
    usages = []
    for _ in range(2):
        chunks = list(client.chat.completions.create(**asked))
        assert all(chunk.usage is None for chunk in chunks[:-1])
        assert chunks[-1].choices == []
        usages.append(chunks[-1].usage)
    assert usages[0].prompt_tokens == usages[1].prompt_tokens
    assert usages[0].completion_tokens == usages[1].completion_tokens
    assert usages[1].prompt_tokens_details.cached_tokens > usages[0].prompt_tokens_details.cached_tokens
    assert usages[1].prompt_tokens_details.cached_tokens < usages[1].prompt_tokens


def test_all_forms_of_a_prompt_give_the_same_text(client: openai.OpenAI, live: LiveAppliance):
    """A text, its token ids, and both in lists: the same answers, in order."""
    prompts = [TEXT["prompt"], "23:45 Valve V-310:"]
    asked = {**TEXT, "extra_body": {"ignore_eos": True}}
    singles = [client.completions.create(**{**asked, "prompt": prompt}).choices[0].text for prompt in prompts]
    token_ids = [_post(live, "/tokenize", {"prompt": prompt})["tokens"] for prompt in prompts]
    assert client.completions.create(**{**asked, "prompt": token_ids[0]}).choices[0].text == singles[0]
    for many in (prompts, token_ids):
        answer = client.completions.create(**{**asked, "prompt": many})
        assert [choice.text for choice in answer.choices] == singles
        assert answer.usage.prompt_tokens == sum(map(len, token_ids))
        assert answer.usage.completion_tokens == 2 * TEXT["max_tokens"]


def test_echo_gives_the_prompt_back_first(client: openai.OpenAI):
    """The echoed prompt stands in front of the same continuation, streamed and whole."""
    plain = client.completions.create(**TEXT).choices[0].text
    echoed = client.completions.create(**TEXT, echo=True).choices[0].text
    assert echoed == TEXT["prompt"] + plain
    assert _streamed_text(client, **TEXT, echo=True)[0].text == echoed


def test_a_control_tokens_spelling_is_text(client: openai.OpenAI, live: LiveAppliance):
    """DESIGN 7.4: text that looks like the end of a turn costs several tokens and ends nothing; its id is refused."""
    spelled = _post(live, "/tokenize", {"prompt": "<|end|>"})
    assert spelled["count"] > 1
    assert _post(live, "/detokenize", {"tokens": spelled["tokens"]})["prompt"] == "<|end|>"
    with pytest.raises(openai.BadRequestError) as refusal:
        client.completions.create(**{**TEXT, "prompt": [0, 5, 6]})
    assert refusal.value.code == "control_token"


def test_models_are_listed_and_found(client: openai.OpenAI):
    """The one model is listed with its signed root, and found by its name."""
    (model,) = client.models.list().data
    assert model.id == "starter"
    assert len(bytes.fromhex(model.root.removeprefix("sha256:"))) == 32
    assert client.models.retrieve("starter") == model


@pytest.mark.parametrize(
    ("change", "error", "code"),
    [
        ({"model": "nobody"}, openai.NotFoundError, "model_not_found"),
        ({"temperature": 3}, openai.BadRequestError, "bad_value"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, openai.BadRequestError, "unsupported_parameter"),
        ({"extra_body": {"repetition_penalty": 5e-324}}, openai.BadRequestError, "bad_value"),
        ({"extra_body": {"made_up": 1}}, openai.BadRequestError, "unknown_parameter"),
        ({"max_tokens": 4000}, openai.BadRequestError, "context_length_exceeded"),
        ({"messages": []}, openai.BadRequestError, "bad_value"),
    ],
)
def test_a_request_that_cannot_be_honoured(client: openai.OpenAI, change: dict, error: type, code: str):
    """Each refusal is the client's own exception class, with a code, the field and a request id."""
    with pytest.raises(error) as refusal:
        client.chat.completions.create(**{**CHAT, **change})
    assert refusal.value.code == code
    assert refusal.value.param
    assert refusal.value.request_id


def test_keys_that_are_wrong_or_not_entitled(live: LiveAppliance):
    """A wrong key is an authentication error, an auditor's key a permission error, an unknown model not found."""
    with _client(live, "sk-not-ours") as stranger, pytest.raises(openai.AuthenticationError) as refusal:
        stranger.chat.completions.create(**CHAT)
    assert refusal.value.code == "invalid_api_key"
    with _client(live, live.keys["auditor"]) as auditor:
        assert [model.id for model in auditor.models.list()] == ["starter"]
        with pytest.raises(openai.PermissionDeniedError):
            auditor.chat.completions.create(**CHAT)
        with pytest.raises(openai.NotFoundError):
            auditor.models.retrieve("nobody")


@pytest.mark.parametrize("stream", [False, True])
def test_the_receipt_in_the_head_is_proven_with_the_public_key_alone(
    client: openai.OpenAI, live: LiveAppliance, *, stream: bool
):
    """`<index>:<leaf hash>` names the admission's leaf, whose inclusion under a signed head anybody can check."""
    headers = {"x-request-id": "mine-1"}
    raw = client.chat.completions.with_raw_response.create(**CHAT, stream=stream, extra_headers=headers)
    parsed = raw.parse()
    if stream:
        assert list(parsed)[-1].choices[0].finish_reason
    request_id, receipt = raw.headers["x-request-id"], raw.headers["x-cloister-receipt"]
    assert request_id.startswith("req-")
    index, leaf_hash = receipt.split(":")
    verifier = LogVerifier.from_vkey((live.state_dir / "log" / "verifier.vkey").read_text().strip())
    with live.client("auditor") as auditor:
        entry = auditor.get(f"/audit/entries/{index}").json()
        proof = EntryProof.from_text(auditor.get(f"/audit/entries/{index}/proof").text)
        ends = auditor.get("/audit/entries", params={"subject": request_id, "kind": "request:completed"}).json()["data"]
    assert entry["leaf_hash"] == leaf_hash
    assert (entry["entry"]["kind"], entry["entry"]["subject"]) == ("request:admitted", request_id)
    assert "mine-1" not in entry["leaf"]
    assert "declared" in entry["entry"]["facts"]["commitments"]
    assert proof.index == int(index)
    assert proof.verify(entry["leaf"].encode(), [verifier]).size > int(index)
    assert [end["entry"]["facts"]["admitted_index"] for end in ends] == [int(index)]
    if not stream:
        assert raw.headers["x-cloister-terminal-receipt"] == f"{ends[0]['index']}:{ends[0]['leaf_hash']}"
