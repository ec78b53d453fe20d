"""Which bytes a commitment may have been made over, from the text that somebody has.

A commitment is over one JSON array (docs/audit.md).  Few people have that; they have the text itself, or the body of
the request as it was sent.  Each form is tried; a commitment that holds for one of them is to this text and no other.
Pure.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, TypeAlias

from appliance.api.body import parse_json, validate
from appliance.api.openai_chat import ChatCompletionRequest
from appliance.api.openai_completions import CompletionRequest
from appliance.committed import output_content, prompt_content, stop_content
from appliance.errors import BadRequest
from appliance.inference import PlainText

Phase: TypeAlias = Literal["declared", "output", "prompt", "stop"]


def committed_forms(phase: Phase, text: str) -> Iterator[tuple[str, bytes]]:
    """Give each form's name and bytes, the most literal first."""
    yield "as_committed", text.encode()
    if phase == "declared":
        return
    yield "one_text", _one(phase, text)
    if text.endswith("\n"):  # an editor's, where the text itself had none
        yield "one_text_without_its_last_line_end", _one(phase, text.removesuffix("\n"))
    if phase == "prompt":
        content = _of_request_body(text)
        if content is not None:
            yield "request_body", content


def _one(phase: Phase, text: str) -> bytes:
    match phase:
        case "prompt":
            return prompt_content([PlainText(text)])
        case "stop":
            return stop_content([text])
        case _:
            return output_content([text])


def _of_request_body(text: str) -> bytes | None:
    """Read the text as the body of a request, or as a chat's list of messages, in the very way a request is read."""
    try:
        body = parse_json(text.encode())
        if isinstance(body, list):
            body = {"model": "unnamed", "messages": body}
        if not isinstance(body, dict):
            return None
        if "messages" in body:
            return prompt_content(validate(ChatCompletionRequest, body).inference().prompts)
        return prompt_content(validate(CompletionRequest, body).inference().prompts)
    except BadRequest:  # it is no such body: one form less, not a fault
        return None
