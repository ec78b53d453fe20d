"""The bytes that each commitment is made over, in one place: who checks a text later must come to the very same ones.

Pure.  Phases: `prompt`, `stop`, `declared` of a request; `output` and `tokens` of its answer.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from appliance.inference import Conversation, PlainText, Prompt

MAX_MARKS = 32
"""Marks that one answer has, over all its choices: 4 characters of its leaf each."""


def prompt_content(prompts: Sequence[Prompt]) -> bytes:
    """Give one JSON array, an element per prompt: a text, a list of token ids, or a list of turns."""
    return _json([_prompt_json(prompt) for prompt in prompts])


def stop_content(stop: Sequence[str]) -> bytes:
    """Give the JSON array of the request's stop strings."""
    return _json(list(stop))


def declared_content(declared: Mapping[str, str]) -> bytes:
    """Give the JSON object of what the caller said of its request, keys sorted."""
    return json.dumps(dict(declared), sort_keys=True, ensure_ascii=False).encode()


def output_content(texts: Sequence[str]) -> bytes:
    """Give the JSON array of the choices' texts."""
    return json.dumps(list(texts), ensure_ascii=False).encode()


def tokens_phase(choice: int) -> str:
    """Name the phase of one choice's marks."""
    return f"tokens/{choice}"


def mark_every(num_tokens: Sequence[int]) -> int:
    """Give the tokens from one mark to the next: one, or as many as keep the marks of all choices few."""
    every = 1
    while sum(-(-number // every) for number in num_tokens) > MAX_MARKS + len(num_tokens):
        every *= 2
    return every


def token_spans(token_ids: Sequence[int], every: int) -> list[bytes]:
    """Cut one choice's tokens where its marks stand."""
    return [_json(list(token_ids[first : first + every])) for first in range(0, len(token_ids), every)]


def _prompt_json(prompt: Prompt) -> object:
    if isinstance(prompt, Conversation):
        return [{"role": turn.role, "content": turn.content, "name": turn.name} for turn in prompt.messages]
    return prompt.text if isinstance(prompt, PlainText) else list(prompt.token_ids)


def _json(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode(errors="surrogatepass")
