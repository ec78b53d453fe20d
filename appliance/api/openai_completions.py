"""`POST /v1/completions`: continue a text or token ids; every field is honoured, or refused by name."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Discriminator, Field, Tag
from starlette.responses import Response

from appliance.api.answering import answer
from appliance.api.body import read_wire
from appliance.api.call import Call
from appliance.api.generation_fields import MAX_CHOICES, MAX_TOP_LOGPROBS, GenerationFields, TokenId
from appliance.api.openai_completions_answer import CompletionsAnswer
from appliance.api.route_spec import RouteSpec
from appliance.api.wire import Unsupported
from appliance.errors import BadRequest
from appliance.inference import InferenceRequest, PlainText, Prompt, PromptTokens

ROUTE: Literal["/v1/completions"] = "/v1/completions"
MAX_SEQUENCES = MAX_CHOICES
"""Prompts times n: policy sees the product as `n`, and `choices-within-limit` forbids more."""

DEFAULT_MAX_TOKENS = 16
"""OpenAI's and vLLM's, for a request that does not say: a text has no end of its own, as a turn of a chat has."""


def prompt_kind(value: object) -> str:
    """Tell the four forms of a prompt apart by their first entry, so that only one of them is tried."""
    if not isinstance(value, list):
        return "text"
    first = value[0] if value else None
    if isinstance(first, list):
        return "token_lists"
    return "tokens" if isinstance(first, int) else "texts"


TokenIds = Annotated[list[TokenId], Field(min_length=1, fail_fast=True)]
PromptField = Annotated[
    Annotated[str, Tag("text")]
    | Annotated[list[str], Field(min_length=1, max_length=MAX_SEQUENCES, fail_fast=True), Tag("texts")]
    | Annotated[TokenIds, Tag("tokens")]
    | Annotated[list[TokenIds], Field(min_length=1, max_length=MAX_SEQUENCES, fail_fast=True), Tag("token_lists")],
    Discriminator(prompt_kind),
]


class CompletionRequest(GenerationFields):
    """The body."""

    prompt: PromptField
    logprobs: Annotated[int, Field(ge=0, le=MAX_TOP_LOGPROBS)] | None = None
    echo: bool | None = None
    best_of: Annotated[int, Field(ge=1, le=MAX_CHOICES)] | None = None
    suffix: Unsupported = None

    def inference(self) -> InferenceRequest:
        """Give the request in the walk's terms.

        Raises:
            BadRequest: fields that contradict one another, or more sequences than one request may have.
        """
        prompts = self._prompts()
        n = self.n or 1
        max_tokens = DEFAULT_MAX_TOKENS if self.max_tokens is None else self.max_tokens
        self._check_combinations(len(prompts), n)
        return InferenceRequest(
            route=ROUTE,
            model=self.model,
            prompts=prompts,
            n=n,
            sampling=self.sampling(max_tokens=max_tokens, num_logprobs=self.logprobs),
            echo=bool(self.echo),
            stream=bool(self.stream),
            declared={} if self.user is None else {"user": self.user},
        )

    def _check_combinations(self, num_prompts: int, n: int) -> None:
        if num_prompts * n > MAX_SEQUENCES:
            raise BadRequest(
                f"{num_prompts} prompts times n = {n} is more than {MAX_SEQUENCES} answers", code="bad_value", param="n"
            )
        if self.best_of not in (None, n):
            raise BadRequest(
                "best_of is not supported by this server unless it equals n",
                code="unsupported_parameter",
                param="best_of",
            )
        if self.echo and self.logprobs is not None:
            raise BadRequest(
                "echo cannot be combined with logprobs: prompts have no log-probabilities here",
                code="unsupported_parameter",
                param="echo",
            )

    def _prompts(self) -> tuple[Prompt, ...]:
        prompt = self.prompt
        if isinstance(prompt, str):
            return (PlainText(prompt),)
        if prompt_kind(prompt) == "tokens":
            return (PromptTokens(tuple(one for one in prompt if isinstance(one, int))),)
        return tuple(
            PlainText(one) if isinstance(one, str) else PromptTokens(tuple(one))
            for one in prompt
            if not isinstance(one, int)
        )


async def completions(call: Call) -> Response:
    """Continue one or more prompts."""
    settings = call.appliance.settings
    wire = await read_wire(
        call.request, CompletionRequest, max_bytes=settings.max_body_bytes, deadline_s=settings.body_deadline_s
    )
    wire.check_stream_options()
    request = call.declaring(wire.inference())
    return await answer(
        call,
        request,
        lambda admission: CompletionsAnswer(
            admission,
            num_prompts=len(request.prompts),
            n=request.n,
            echo=request.echo,
            logprobs=request.sampling.num_logprobs is not None,
            include_usage=wire.wants_usage,
        ),
    )


COMPLETIONS_ROUTE = RouteSpec(ROUTE, "POST", "infer", CompletionRequest, completions, "Continue a text")
