"""`POST /tokenize` and `/detokenize`, in vLLM's shape: what the model would see, and what ids stand for.

Invariants: no more is tokenized than a prompt could have, the same bound as for an answer; a long text is worked on in
a thread, so that it holds up nobody else's tokens.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from typing import Annotated, Any, TypeVar

from pydantic import Field
from starlette.responses import Response

from appliance.api.body import read_wire
from appliance.api.call import Call
from appliance.api.generation_fields import TokenId
from appliance.api.openai_chat import MAX_MESSAGES, ChatMessage
from appliance.api.route_spec import RouteSpec
from appliance.api.wire import WireModel
from appliance.errors import BadRequest
from appliance.inference import Message
from appliance.prompting import MAX_CHARACTERS_PER_TOKEN
from appliance.served_model import ServedModel

W = TypeVar("W", "TokenizeRequest", "DetokenizeRequest")
MAX_SIZE_ON_THE_LOOP = 4096
"""Characters or token ids that are worked on in a millisecond or so; a thread would cost more than it spares."""
ModelName = Annotated[str, Field(min_length=1, max_length=256)]


class TokenizeRequest(WireModel):
    """The body; exactly one of `prompt` and `messages`."""

    model: ModelName | None = None
    prompt: str | None = None
    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=MAX_MESSAGES)] | None = None
    add_special_tokens: bool | None = None
    """Around a prompt; by default yes.  A conversation's come from its template alone."""
    add_generation_prompt: bool | None = None
    """After a conversation; by default yes."""
    return_token_strs: bool | None = None


class DetokenizeRequest(WireModel):
    """The body."""

    model: ModelName | None = None
    tokens: Annotated[list[TokenId], Field(fail_fast=True)]


async def tokenize(call: Call) -> Response:
    """Give the token ids of a prompt or a conversation, exactly as a request for an answer would use them."""
    wire = await _read(call, TokenizeRequest)
    _check_combination(wire)
    model = call.appliance.model
    if wire.messages is not None:
        messages = [turn.message() for turn in wire.messages]
        num_characters = sum(len(one.content) + len(one.name or "") for one in messages)
        _check_size(num_characters, "characters", "messages", model)
    else:
        messages = []
        num_characters = len(wire.prompt or "")
        _check_size(num_characters, "characters", "prompt", model)
    return await _answer(num_characters, lambda: _tokenized(wire, messages, model))


async def detokenize(call: Call) -> Response:
    """Give the text of token ids; control tokens show their names."""
    wire = await _read(call, DetokenizeRequest)
    model = call.appliance.model
    _check_size(len(wire.tokens), "tokens", "tokens", model)
    return await _answer(len(wire.tokens), lambda: _detokenized(wire.tokens, model))


def _check_combination(wire: TokenizeRequest) -> None:
    if (wire.prompt is None) == (wire.messages is None):
        raise BadRequest("send either prompt or messages", code="bad_value", param="prompt")
    if wire.messages is not None and wire.add_special_tokens:
        raise BadRequest(
            "add_special_tokens is for a prompt: a conversation's tokens come from the chat template",
            code="bad_value",
            param="add_special_tokens",
        )
    if wire.messages is None and wire.add_generation_prompt is not None:
        raise BadRequest("add_generation_prompt is for messages", code="bad_value", param="add_generation_prompt")


def _check_size(size: int, unit: str, param: str, model: ServedModel) -> None:
    limit = model.max_model_len * MAX_CHARACTERS_PER_TOKEN
    if size > limit:
        raise BadRequest(
            f"{param} has {size} {unit}; for a model of {model.max_model_len} tokens at most {limit} are taken",
            code="context_length_exceeded",
            param=param,
        )


async def _answer(size: int, work: Callable[[], dict[str, Any]]) -> Response:
    """Work out the body here if that is quick, else in a thread: everybody's tokens go through this event loop."""

    def body() -> bytes:
        return json.dumps(work(), ensure_ascii=False).encode()

    content = body() if size <= MAX_SIZE_ON_THE_LOOP else await asyncio.to_thread(body)
    return Response(content, media_type="application/json")


def _tokenized(wire: TokenizeRequest, messages: Sequence[Message], model: ServedModel) -> dict[str, Any]:
    tokenizer = model.tokenizer
    if wire.prompt is None:
        token_ids = tokenizer.encode_conversation(
            messages, add_generation_prompt=wire.add_generation_prompt is not False
        )
    else:
        token_ids = tokenizer.encode(wire.prompt, add_special_tokens=wire.add_special_tokens is not False)
    return {
        "count": len(token_ids),
        "max_model_len": model.max_model_len,
        "tokens": token_ids,
        "token_strs": [tokenizer.token_text(one) for one in token_ids] if wire.return_token_strs else None,
    }


def _detokenized(token_ids: Sequence[int], model: ServedModel) -> dict[str, Any]:
    for position, token_id in enumerate(token_ids):
        if token_id >= model.vocab_size:
            raise BadRequest(
                f"token id {token_id} is outside 0 to {model.vocab_size - 1}",
                code="bad_token_id",
                param=f"tokens[{position}]",
            )
    return {"prompt": model.tokenizer.decode(token_ids)}


async def _read(call: Call, model: type[W]) -> W:
    settings = call.appliance.settings
    wire = await read_wire(call.request, model, max_bytes=settings.max_body_bytes, deadline_s=settings.body_deadline_s)
    name = wire.model
    if name is not None:
        call.appliance.walk.require_model(name)
    return wire


TOKENIZE_ROUTES = (
    RouteSpec("/tokenize", "POST", "tokenize", TokenizeRequest, tokenize, "Give the token ids of a text"),
    RouteSpec("/detokenize", "POST", "tokenize", DetokenizeRequest, detokenize, "Give the text of token ids"),
)
