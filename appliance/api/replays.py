"""`POST /audit/replays`: run a recorded request again, for a verdict and nothing else.

Invariant: no text comes back, neither the recorded one nor what came this time.  A caller that goes away ends its
replay, which is recorded as cancelled.
"""

from __future__ import annotations

import json
from typing import Annotated, Literal

from pydantic import Discriminator, Field, Tag
from starlette.responses import Response

from appliance.api.answering import watched
from appliance.api.audit_log import JSON, MAX_INDEX
from appliance.api.body import read_wire
from appliance.api.call import Call
from appliance.api.generation_fields import MAX_CHOICES
from appliance.api.openai_chat import MAX_MESSAGES
from appliance.api.openai_completions import TokenIds
from appliance.api.route_spec import RouteSpec
from appliance.api.wire import WireModel
from appliance.errors import BadRequest
from appliance.gate import Asking
from appliance.inference import Conversation, Message, PlainText, Prompt, PromptTokens
from appliance.replay.content import ReplayContent
from appliance.replay.telling import verdict_facts

ROUTE = "/audit/replays"


class RecordedTurn(WireModel):
    """One turn of a conversation, as the commitment's document has it."""

    role: Literal["system", "user", "assistant"]
    content: str
    name: str | None = None


def _prompt_kind(value: object) -> str:
    if not isinstance(value, list):
        return "text"
    return "tokens" if value and isinstance(value[0], int) else "turns"


RecordedPrompt = Annotated[
    Annotated[str, Tag("text")]
    | Annotated[TokenIds, Tag("tokens")]
    | Annotated[list[RecordedTurn], Field(min_length=1, max_length=MAX_MESSAGES), Tag("turns")],
    Discriminator(_prompt_kind),
]


class ReplayRequest(WireModel):
    """The body: which entry, and the texts that its commitments are to."""

    index: Annotated[int, Field(ge=0, le=MAX_INDEX)]
    """Of the admission or of the end."""
    prompts: Annotated[list[RecordedPrompt], Field(min_length=1, max_length=MAX_CHOICES)] | None = None
    """The document that `commitments.prompt` is to."""
    stop: Annotated[list[str], Field(max_length=4)] | None = None
    """The document that `commitments.stop` is to."""
    outputs: Annotated[list[str], Field(min_length=1, max_length=MAX_CHOICES)] | None = None
    """The document that `commitments.output` is to; with it, a difference is told to the character."""

    def content(self) -> ReplayContent | None:
        """Give the texts in the replay's terms.

        Raises:
            BadRequest: texts that are of no use without the prompts.
        """
        if self.prompts is None:
            if self.stop is not None or self.outputs is not None:
                raise BadRequest("stop and outputs go with prompts", code="bad_value", param="prompts")
            return None
        outputs = None if self.outputs is None else tuple(self.outputs)
        return ReplayContent(tuple(map(_prompt, self.prompts)), tuple(self.stop or ()), outputs)


async def replay(call: Call) -> Response:
    """Run one recorded request again and tell the verdict."""
    settings = call.appliance.settings
    wire = await read_wire(
        call.request, ReplayRequest, max_bytes=settings.max_body_bytes, deadline_s=settings.body_deadline_s
    )
    asking = Asking(call.principal, call.request_id, ROUTE, call.source, call.label)
    replayer = call.appliance.replayer
    async with watched(call.request, lambda reason: replayer.abandon(asking, reason)):
        replayed = await replayer.replay(asking, wire.index, wire.content())
    call.receipts.extend((replayed.started, replayed.ended))
    body = {
        "object": "replay",
        "index": replayed.index,
        **verdict_facts(replayed.verdict),
        "num_runs": replayed.num_runs,
    }
    return Response(json.dumps(body), media_type=JSON, headers={"cache-control": "no-store"})


def _prompt(given: RecordedPrompt) -> Prompt:
    if isinstance(given, str):
        return PlainText(given)
    turns = tuple(Message(one.role, one.content, one.name) for one in given if isinstance(one, RecordedTurn))
    return Conversation(turns) if turns else PromptTokens(tuple(one for one in given if isinstance(one, int)))


REPLAY_ROUTES = (RouteSpec(ROUTE, "POST", "replayRequest", ReplayRequest, replay, "Run a recorded request again"),)
