"""`POST /v1/chat/completions`: every field of OpenAI's request is honoured, or refused by name.

A test reads the fields of the released client's own types, so that a new one there breaks it here.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Discriminator, Field, Tag
from starlette.responses import Response

from appliance.api.answering import answer
from appliance.api.body import read_wire
from appliance.api.call import Call
from appliance.api.generation_fields import MAX_TOKENS, MAX_TOP_LOGPROBS, GenerationFields
from appliance.api.openai_chat_answer import ChatAnswer
from appliance.api.route_spec import RouteSpec
from appliance.api.wire import Label, OnlyFalse, Unsupported, WireModel
from appliance.errors import BadRequest
from appliance.inference import Conversation, InferenceRequest, Message

ROUTE: Literal["/v1/chat/completions"] = "/v1/chat/completions"
MAX_MESSAGES = 1024
MAX_PARTS = 256
PART_SEPARATOR = "\n"
"""Between the text parts of one message, as vLLM does for templates that take text."""


class TextPart(WireModel):
    """One part of a message; text is the only kind."""

    type: Literal["text"]
    text: str
    prompt_cache_breakpoint: Unsupported = None


def _content_kind(value: object) -> str:
    return "parts" if isinstance(value, list) else "text"


Content = Annotated[
    Annotated[str, Tag("text")] | Annotated[list[TextPart], Field(min_length=1, max_length=MAX_PARTS), Tag("parts")],
    Discriminator(_content_kind),
]


class ChatMessage(WireModel):
    """One turn."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Content
    name: Annotated[str, Field(min_length=1, max_length=64)] | None = None
    refusal: Unsupported = None
    tool_calls: Unsupported = None
    tool_call_id: Unsupported = None
    function_call: Unsupported = None
    audio: Unsupported = None

    def message(self) -> Message:
        """Give the turn in the walk's terms."""
        content = self.content
        text = content if isinstance(content, str) else PART_SEPARATOR.join(part.text for part in content)
        return Message("system" if self.role == "developer" else self.role, text, self.name)


class TextFormat(WireModel):
    """`response_format`; free text is the only one."""

    type: Literal["text"]


MetadataKey = Annotated[str, Field(min_length=1, max_length=64)]


class ChatCompletionRequest(GenerationFields):
    """The body."""

    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=MAX_MESSAGES)]
    max_completion_tokens: Annotated[int, Field(ge=1, le=MAX_TOKENS)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=MAX_TOP_LOGPROBS)] | None = None
    response_format: TextFormat | None = None
    # Recorded, believed nowhere.
    metadata: Annotated[dict[MetadataKey, Label], Field(max_length=16)] | None = None
    safety_identifier: Label | None = None
    prompt_cache_key: Label | None = None
    # Taken only where they ask for what is done anyway.
    store: OnlyFalse | None = None
    service_tier: Literal["auto", "default"] | None = None
    modalities: Annotated[list[Literal["text"]], Field(min_length=1, max_length=1)] | None = None
    tool_choice: Literal["none"] | None = None
    # OpenAI's, not honoured here.
    audio: Unsupported = None
    function_call: Unsupported = None
    functions: Unsupported = None
    moderation: Unsupported = None
    parallel_tool_calls: Unsupported = None
    prediction: Unsupported = None
    prompt_cache_options: Unsupported = None
    prompt_cache_retention: Unsupported = None
    reasoning_effort: Unsupported = None
    tools: Unsupported = None
    verbosity: Unsupported = None
    web_search_options: Unsupported = None

    def inference(self) -> InferenceRequest:
        """Give the request in the walk's terms.

        Raises:
            BadRequest: fields that contradict one another.
        """
        return InferenceRequest(
            route=ROUTE,
            model=self.model,
            prompts=(Conversation(tuple(turn.message() for turn in self.messages)),),
            n=self.n or 1,
            sampling=self.sampling(max_tokens=self._max_tokens(), num_logprobs=self._num_logprobs()),
            stream=bool(self.stream),
            declared=self._declared(),
        )

    def _max_tokens(self) -> int | None:
        if None not in (self.max_tokens, self.max_completion_tokens) and self.max_tokens != self.max_completion_tokens:
            raise BadRequest(
                "max_tokens and max_completion_tokens differ; send one of them",
                code="bad_value",
                param="max_completion_tokens",
            )
        return self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens

    def _num_logprobs(self) -> int | None:
        if self.logprobs:
            return self.top_logprobs or 0
        if self.top_logprobs is not None:
            raise BadRequest("top_logprobs needs logprobs to be true", code="bad_value", param="top_logprobs")
        return None

    def _declared(self) -> dict[str, str]:
        named = {
            "user": self.user,
            "safety_identifier": self.safety_identifier,
            "prompt_cache_key": self.prompt_cache_key,
            **{f"metadata.{key}": value for key, value in (self.metadata or {}).items()},
        }
        return {name: value for name, value in named.items() if value is not None}


async def chat_completions(call: Call) -> Response:
    """Answer a conversation."""
    settings = call.appliance.settings
    wire = await read_wire(
        call.request,
        ChatCompletionRequest,
        max_bytes=settings.max_body_bytes,
        deadline_s=settings.body_deadline_s,
    )
    wire.check_stream_options()
    request = call.declaring(wire.inference())
    return await answer(
        call,
        request,
        lambda admission: ChatAnswer(
            admission,
            num_choices=request.n,
            logprobs=request.sampling.num_logprobs is not None,
            include_usage=wire.wants_usage,
        ),
    )


CHAT_ROUTE = RouteSpec(ROUTE, "POST", "infer", ChatCompletionRequest, chat_completions, "Answer a conversation")
