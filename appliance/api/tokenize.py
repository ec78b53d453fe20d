"""`POST /tokenize` and `/detokenize`, in vLLM's shape: what the model would see, and what ids stand for."""

from __future__ import annotations

import json
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

W = TypeVar("W", "TokenizeRequest", "DetokenizeRequest")
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
    tokenizer = call.appliance.model.tokenizer
    token_ids = _encode(call, wire)
    body: dict[str, Any] = {
        "count": len(token_ids),
        "max_model_len": call.appliance.model.max_model_len,
        "tokens": token_ids,
        "token_strs": [tokenizer.token_text(one) for one in token_ids] if wire.return_token_strs else None,
    }
    return _json(body)


async def detokenize(call: Call) -> Response:
    """Give the text of token ids; control tokens show their names."""
    wire = await _read(call, DetokenizeRequest)
    vocab_size = call.appliance.model.vocab_size
    for position, token_id in enumerate(wire.tokens):
        if token_id >= vocab_size:
            raise BadRequest(
                f"token id {token_id} is outside 0 to {vocab_size - 1}",
                code="bad_token_id",
                param=f"tokens[{position}]",
            )
    return _json({"prompt": call.appliance.model.tokenizer.decode(wire.tokens)})


def _encode(call: Call, wire: TokenizeRequest) -> list[int]:
    tokenizer = call.appliance.model.tokenizer
    if (wire.prompt is None) == (wire.messages is None):
        raise BadRequest("send either prompt or messages", code="bad_value", param="prompt")
    if wire.messages is not None:
        if wire.add_special_tokens:
            raise BadRequest(
                "add_special_tokens is for a prompt: a conversation's tokens come from the chat template",
                code="bad_value",
                param="add_special_tokens",
            )
        return tokenizer.encode_conversation(
            [turn.message() for turn in wire.messages], add_generation_prompt=wire.add_generation_prompt is not False
        )
    if wire.add_generation_prompt is not None:
        raise BadRequest("add_generation_prompt is for messages", code="bad_value", param="add_generation_prompt")
    assert wire.prompt is not None, "one of the two was given"
    return tokenizer.encode(wire.prompt, add_special_tokens=wire.add_special_tokens is not False)


async def _read(call: Call, model: type[W]) -> W:
    settings = call.appliance.settings
    wire = await read_wire(call.request, model, max_bytes=settings.max_body_bytes, deadline_s=settings.body_deadline_s)
    name = wire.model
    if name is not None:
        call.appliance.walk.require_model(name)
    return wire


def _json(body: dict[str, Any]) -> Response:
    return Response(json.dumps(body, ensure_ascii=False), media_type="application/json")


TOKENIZE_ROUTES = (
    RouteSpec("/tokenize", "POST", "tokenize", TokenizeRequest, tokenize, "Give the token ids of a text"),
    RouteSpec("/detokenize", "POST", "tokenize", DetokenizeRequest, detokenize, "Give the text of token ids"),
)
