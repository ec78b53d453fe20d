"""Greedy text over HTTP is transformers' own, token for token, whoever else is being served at the same time."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from live_appliance import LiveAppliance
from tokenizers import Tokenizer
from transformers import LlamaForCausalLM

from appliance.cli.sample import MESSAGES

NUM_TOKENS = 40
TIE = 1e-3
"""Below this distance between the two likeliest tokens, two correct float32 programs may choose differently."""
PROMPTS = (
    "Shift log: unit 7, night shift.",
    "22:10 Pump P-204: small oil leak. Temperature 81 C.",
    "a",
    "The crew replaced the gasket. " * 14,
    "Straße 12: Überdruck am Ventil, 4.2 bar ⚙ заметка",
)
NUM_NEIGHBOURS = 3


@pytest.fixture(scope="module")
def folder(live: LiveAppliance) -> Path:
    """The very folder that is served: signed, and not changed by anybody."""
    return live.state_dir / "models" / "starter"


@pytest.fixture(scope="module")
def oracle(folder: Path) -> LlamaForCausalLM:
    """The reference implementation with the same weights."""
    return LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


@contextmanager
def _neighbours(live: LiveAppliance) -> Iterator[None]:
    """Keep other requests running, hot and long, until the block ends; at least one token of each has come first."""
    leave = threading.Event()
    began = threading.Barrier(NUM_NEIGHBOURS + 1)
    faults: list[BaseException] = []

    def run(seed: int) -> None:
        body = {
            "model": "starter",
            "prompt": f"Neighbour {seed}: " + "pump " * seed,
            "max_tokens": 300,
            "temperature": 1.3,
            "seed": seed,
            "ignore_eos": True,
            "stream": True,
            "logprobs": 2,
        }
        first = True
        try:
            with live.client("developer") as client:
                while not leave.is_set():
                    with client.stream("POST", "/v1/completions", json=body) as response:
                        response.raise_for_status()
                        for _ in response.iter_lines():
                            if first:
                                began.wait(60)
                                first = False
                            if leave.is_set():
                                break
        except BaseException as fault:
            faults.append(fault)
            began.abort()
            raise

    threads = [threading.Thread(target=run, args=(seed,)) for seed in range(1, NUM_NEIGHBOURS + 1)]
    for thread in threads:
        thread.start()
    try:
        began.wait(60)
        yield
    finally:
        leave.set()
        for thread in threads:
            thread.join()
    assert not faults, faults


@torch.inference_mode()
def _expected(oracle: LlamaForCausalLM, token_ids: list[int], *, ignore_eos: bool) -> list[int]:
    """Continue greedily by `generate`, up to the first near tie: from there on the comparison would mean nothing."""
    end = {} if ignore_eos else {"eos_token_id": oracle.config.eos_token_id}
    result = oracle.generate(
        torch.tensor([token_ids]),
        attention_mask=torch.ones(1, len(token_ids), dtype=torch.long),
        max_new_tokens=NUM_TOKENS,
        do_sample=False,
        pad_token_id=oracle.config.eos_token_id,
        output_logits=True,
        return_dict_in_generate=True,
        **({"eos_token_id": -1} if ignore_eos else end),
    )
    likeliest = torch.cat(result.logits).topk(2).values
    clear = (likeliest[:, 0] - likeliest[:, 1] > TIE).tolist()
    num_clear = (*clear, False).index(False)
    return result.sequences[0, len(token_ids) :][:num_clear].tolist()


def test_completions_continue_as_transformers_does(live: LiveAppliance, folder: Path, oracle: LlamaForCausalLM):
    """Prompts of every length together with hot neighbours: the same text as `generate`, decoded by `tokenizers`."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    num_compared = 0
    with live.client("developer") as client, _neighbours(live):
        for prompt in PROMPTS:
            token_ids = tokenizer.encode(prompt, add_special_tokens=False).ids
            continuation = _expected(oracle, token_ids, ignore_eos=True)
            num_compared += len(continuation)
            body = {"model": "starter", "temperature": 0, "max_tokens": len(continuation), "ignore_eos": True}
            expected = tokenizer.decode(continuation, skip_special_tokens=True)
            for same in (prompt, token_ids):
                answer = client.post("/v1/completions", json={**body, "prompt": same}).raise_for_status().json()
                assert answer["choices"][0]["text"] == expected
                assert answer["usage"]["prompt_tokens"] == len(token_ids)
                assert answer["usage"]["completion_tokens"] == len(continuation)
    assert num_compared > len(PROMPTS) * NUM_TOKENS // 2, "too many ties: these prompts prove too little"


def test_a_conversation_is_answered_as_transformers_does(live: LiveAppliance, folder: Path, oracle: LlamaForCausalLM):
    """Template, tokens and answer are those of transformers, token by token, with neighbours and without."""
    from transformers import AutoTokenizer  # noqa: PLC0415 - slow to import, and only here

    tokenizer = AutoTokenizer.from_pretrained(folder)
    token_ids = tokenizer.apply_chat_template(MESSAGES, add_generation_prompt=True, return_dict=False)
    expected = _expected(oracle, token_ids, ignore_eos=False)
    ends = expected[-1] == oracle.config.eos_token_id
    text = tokenizer.decode(expected[:-1] if ends else expected)
    body = {
        "model": "starter",
        "messages": MESSAGES,
        "temperature": 0,
        "logprobs": True,
        "max_tokens": len(expected),
    }
    with live.client("developer") as client:
        alone = client.post("/v1/chat/completions", json=body).raise_for_status().json()
        with _neighbours(live):
            together = client.post("/v1/chat/completions", json=body).raise_for_status().json()
    for answer in (alone, together):
        (choice,) = answer["choices"]
        assert choice["message"]["content"] == text
        assert choice["finish_reason"] == ("stop" if ends else "length")
        assert len(choice["logprobs"]["content"]) == len(expected) - ends
        assert answer["usage"]["completion_tokens"] == len(expected)
        assert answer["usage"]["prompt_tokens"] == len(token_ids)
