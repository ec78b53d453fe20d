"""Token for token against transformers, on awkward random models, the starter and a real story."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny_llama import ODD_SHAPES, engine_config, load_transformers, oracle_greedy, oracle_logits, save_tiny_llama
from tokenizers import Tokenizer

from engine.core import EngineCore
from engine.request import GenerationRequest, SamplingParams, StepEvent
from engine.runner import load_runner
from engine.sampler import Sampler
from engine.weights import llama2c

STORY = (
    "Once upon a time, there was a little girl named Lily. She loved to play outside in the park. One day, she saw a "
    "big, red ball. She wanted to play with it, but it was too high."
)


def generate(folder: Path, prompts: dict[str, list[int]], num_tokens: int, **changes: object) -> dict[str, StepEvent]:
    """Run greedy requests through the real core; give one event per request that holds all of its tokens."""
    config = engine_config(folder, **changes)
    loaded = load_runner(config)
    core = EngineCore(
        config,
        max_model_len=loaded.max_model_len,
        vocab_size=loaded.vocab_size,
        num_pages=loaded.num_pages,
        runner=loaded.runner,
        sampler=Sampler(),
        now=lambda: 0.0,
    )
    params = SamplingParams(max_tokens=num_tokens, temperature=0.0, num_logprobs=2)
    for name, token_ids in prompts.items():
        core.add(GenerationRequest(name, tuple(token_ids), params))
    tokens: dict[str, tuple[int, ...]] = dict.fromkeys(prompts, ())
    logprobs = dict.fromkeys(prompts, ())
    while core.has_work():
        for event in core.step():
            assert event.error is None
            tokens[event.request_id] += event.token_ids
            logprobs[event.request_id] += event.logprobs
    return {name: StepEvent(name, tokens[name], logprobs[name]) for name in prompts}


def assert_logprobs_match(model: object, prompt: list[int], event: StepEvent) -> None:
    """Compare every reported log-probability with the oracle's, one forward pass for the whole sequence."""
    expected = torch.log_softmax(oracle_logits(model, prompt + list(event.token_ids)), dim=-1)
    for step, reported in enumerate(event.logprobs):
        row = expected[len(prompt) - 1 + step]
        assert reported.token_id == event.token_ids[step]
        assert reported.rank == 1
        assert reported.logprob == pytest.approx(float(row[reported.token_id]), abs=1e-4)
        for token_id, logprob in reported.top:
            assert logprob == pytest.approx(float(row[token_id]), abs=1e-4)


@pytest.mark.parametrize("name", ODD_SHAPES)
def test_random_models_continue_as_transformers_does(tmp_path: Path, name: str) -> None:
    """Six prompts together, small chunks, 24 tokens each; the oracle recomputes everything at every step."""
    shape = ODD_SHAPES[name]
    save_tiny_llama(tmp_path, shape, seed=5)
    generator = torch.Generator().manual_seed(11)
    prompts = {
        f"p{length}": torch.randint(shape.vocab_size, (length,), generator=generator).tolist()
        for length in (1, 2, 7, 16, 33, 50)
    }
    model = load_transformers(tmp_path)
    events = generate(tmp_path, prompts, 24, max_num_batched_tokens=19)
    for request_id, prompt in prompts.items():
        assert list(events[request_id].token_ids) == oracle_greedy(model, prompt, 24)
        assert_logprobs_match(model, prompt, events[request_id])


def test_the_starter_continues_as_transformers_does(starter_folder: Path) -> None:
    """The model that the first minute runs on: 64 tokens after real openings."""
    tokenizer = Tokenizer.from_file(str(starter_folder / "tokenizer.json"))
    texts = ["The pump", "Shift log, night: pressure at valve", "Who reported the leak?"]
    prompts = {text: tokenizer.encode(text).ids for text in texts}
    model = load_transformers(starter_folder)
    events = generate(starter_folder, prompts, 64, page_size=16, max_num_batched_tokens=64)
    for text, prompt in prompts.items():
        assert list(events[text].token_ids) == oracle_greedy(model, prompt, 64)
        assert_logprobs_match(model, prompt, events[text])


def test_the_story_comes_out(stories_folder: Path) -> None:
    """A real model, greedily from BOS alone, tells its story word for word."""
    event = generate(stories_folder, {"story": [llama2c.BOS_ID]}, 72)["story"]
    text = Tokenizer.from_file(str(stories_folder / "tokenizer.json")).decode(list(event.token_ids))
    assert text.startswith(STORY)


def test_the_story_model_continues_as_transformers_does(stories_folder: Path) -> None:
    """Prompts of the model's own language, 64 tokens each, together."""
    tokenizer = Tokenizer.from_file(str(stories_folder / "tokenizer.json"))
    texts = ["Tom had a dog", "One day, the sun", "Zoë said:", "Lily's mom said no. Lily was very"]
    prompts = {text: tokenizer.encode(text).ids for text in texts} | {"bos": [llama2c.BOS_ID]}
    model = load_transformers(stories_folder)
    events = generate(stories_folder, prompts, 64, max_num_batched_tokens=13)
    for text, prompt in prompts.items():
        assert list(events[text].token_ids) == oracle_greedy(model, prompt, 64)
        assert_logprobs_match(model, prompt, events[text])
