"""Fifty mixed requests recorded under load, each run again under load: how many come again, and why not the others."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from live_appliance import LiveAppliance, running_appliance

from appliance.api.openai_chat import ChatCompletionRequest
from appliance.api.openai_completions import CompletionRequest
from appliance.inference import Conversation, InferenceRequest, Message, PlainText, Prompt, PromptTokens

NUM_REQUESTS = 50
AT_ONCE = 10
WORDS = ("pump", "valve", "line", "pressure", "night", "shift", "oil", "filter", "plant", "note", "check", "the", "a")
TIMEOUT_S = 120
CUT_AFTER = 5
"""Events of a stream; the first of a chat has no text."""


@dataclass(frozen=True, slots=True)
class Sent:
    """One request that the appliance recorded."""

    index: int
    documents: dict
    is_cut: bool


@pytest.fixture
def appliance(tmp_path: Path) -> Iterator[LiveAppliance]:
    """An appliance whose log nobody else writes to; a small token budget makes chunks and full batches."""
    with running_appliance(tmp_path / "state", CLOISTER_MAX_NUM_BATCHED_TOKENS="64") as running:
        yield running


async def test_fifty_mixed_requests_under_load_replay_as_reproduced(appliance: LiveAppliance):
    """Streams, choices, prompts of every form, stops, biases, penalties, seeds, cuts: all come again, beside others."""
    draw = random.Random(20261124)
    bodies = [_body(draw, number) for number in range(NUM_REQUESTS)]
    async with _client(appliance, "developer") as developer:
        places = asyncio.Semaphore(AT_ONCE)
        sent = await asyncio.gather(*(_send(developer, places, *body) for body in bodies))
        quiet = asyncio.Event()
        noise = [asyncio.create_task(_make_noise(developer, number, quiet)) for number in range(4)]
        async with _client(appliance, "auditor") as auditor:
            verdicts = [await _replay(auditor, one) for one in sent]
            quiet.set()
            await asyncio.gather(*noise)
            account = (await auditor.get("/audit/reconciliation")).json()
    others = Counter((one["verdict"], one["reason"], one["explanation"]) for one in verdicts)
    assert others == {("reproduced", None, None): NUM_REQUESTS}
    assert account["verdict"] == "balanced", account  # the replays' tokens are accounted for as well
    assert sum(one.is_cut for one in sent) == NUM_REQUESTS // 10
    assert all(verdict["differences"] == [] for verdict in verdicts)


def _client(appliance: LiveAppliance, role: str) -> httpx.AsyncClient:
    headers = {"authorization": f"Bearer {appliance.keys[role]}"}
    return httpx.AsyncClient(base_url=appliance.url, headers=headers, timeout=TIMEOUT_S, trust_env=False)


def _body(draw: random.Random, number: int) -> tuple[str, dict, bool]:
    """Give a route, a body, and whether its reader goes away in the middle."""
    text = " ".join(draw.choices(WORDS, k=draw.randint(2, 60)))
    fields: dict = {"model": "starter", "max_tokens": draw.randint(4, 60), "stream": number % 3 == 0}
    if draw.random() < 0.6:
        fields |= {"temperature": draw.choice([0.0, 0.3, 1.0, 1.7]), "seed": draw.randint(-(2**63), 2**64 - 1)}
    if draw.random() < 0.3:
        fields |= {"n": draw.randint(2, 4)}
    if draw.random() < 0.3:
        fields |= {"top_p": 0.8, "top_k": 20, "min_p": 0.02}
    if draw.random() < 0.3:
        fields |= {"frequency_penalty": 0.7, "presence_penalty": -0.4, "repetition_penalty": 1.2}
    if draw.random() < 0.3:
        fields |= {"stop": draw.choice([".", ["note", "\n"]]), "include_stop_str_in_output": draw.random() < 0.5}
    if draw.random() < 0.2:
        fields |= {"logit_bias": {"5": -10.0, "9": 3.5}, "min_tokens": 3}
    is_cut = number % 10 == 3
    if is_cut:
        fields |= {"stream": True, "max_tokens": 400, "ignore_eos": True, "min_tokens": 400, "stop": None, "n": 1}
    if number % 2:
        turns = [{"role": "system", "content": "Answer in one line."}, {"role": "user", "content": text}]
        return "/v1/chat/completions", {**fields, "messages": turns[draw.randint(0, 1) :]}, is_cut
    prompt = draw.choice([text, [text, text[:20]], [draw.randint(20, 400) for _ in range(12)]])
    return "/v1/completions", {**fields, "prompt": prompt}, is_cut


async def _send(developer: httpx.AsyncClient, places: asyncio.Semaphore, path: str, body: dict, is_cut: bool) -> Sent:
    async with places, developer.stream("POST", path, json=body) as response:
        assert response.status_code == 200, (await response.aread(), body)
        index = int(response.headers["x-cloister-receipt"].partition(":")[0])
        num_events = 0
        async for line in response.aiter_lines():
            num_events += line.startswith("data: ")
            if is_cut and num_events == CUT_AFTER:
                break
    request = (ChatCompletionRequest if "messages" in body else CompletionRequest).model_validate(body).inference()
    return Sent(index, _documents(request), is_cut)


def _documents(request: InferenceRequest) -> dict:
    documents: dict = {"prompts": [_document(prompt) for prompt in request.prompts]}
    return documents | ({"stop": list(request.sampling.stop)} if request.sampling.stop else {})


def _document(prompt: Prompt) -> object:
    match prompt:
        case PlainText(text):
            return text
        case PromptTokens(token_ids):
            return list(token_ids)
        case Conversation(messages):
            return [_turn(message) for message in messages]


def _turn(message: Message) -> dict:
    return {"role": message.role, "content": message.content, "name": message.name}


async def _make_noise(developer: httpx.AsyncClient, number: int, quiet: asyncio.Event) -> None:
    """Keep the engine's batches full of somebody else."""
    draw = random.Random(number)
    while not quiet.is_set():
        prompt = " ".join(draw.choices(WORDS, k=draw.randint(2, 80)))
        body = {"model": "starter", "prompt": prompt, "max_tokens": draw.randint(5, 50), "seed": number}
        response = await developer.post("/v1/completions", json=body)
        assert response.status_code == 200, response.text


async def _replay(auditor: httpx.AsyncClient, one: Sent) -> dict:
    """Replay one; a cut request's end comes within an engine step of its reader's going."""
    while True:
        response = await auditor.post("/audit/replays", json={"index": one.index, **one.documents})
        assert response.status_code == 200, response.text
        verdict: dict = response.json()
        if verdict["reason"] != "not_ended":
            return verdict
