"""`POST /audit/replays`: run a recorded request again, for a verdict and nothing else.

Invariant: no text comes back, neither the recorded one nor what came this time.  A caller that goes away ends its
replay, which is recorded as cancelled.
"""

from __future__ import annotations

import json
from typing import Annotated, Literal

from pydantic import Discriminator, Field, Tag, TypeAdapter
from starlette.responses import Response

from appliance.api.answering import watched
from appliance.api.audit_log import JSON, MAX_INDEX
from appliance.api.body import read_wire
from appliance.api.call import Call
from appliance.api.generation_fields import MAX_CHOICES
from appliance.api.keeping_fields import EntryIndex
from appliance.api.openai_chat import MAX_MESSAGES
from appliance.api.openai_completions import TokenIds
from appliance.api.route_spec import RouteSpec
from appliance.api.unsealings import take_unsealed
from appliance.api.wire import WireModel
from appliance.errors import BadRequest
from appliance.gate import Asking
from appliance.inference import Conversation, Message, PlainText, Prompt, PromptTokens
from appliance.replay.content import ReplayContent
from appliance.replay.recorded import RecordedRequest
from appliance.replay.telling import verdict_facts
from policies.decision import TargetFacts

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


RECORDED_PROMPTS: TypeAdapter[list[RecordedPrompt]] = TypeAdapter(list[RecordedPrompt])


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
    unsealing: EntryIndex | None = None
    """Instead of the texts: the approved proposal to unseal what lies beside the admission."""

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


class SealedRequest:
    """What lies sealed beside an admission, opened once on the word of two people; it is shown to nobody."""

    def __init__(self, call: Call, proposal_index: int) -> None:
        self._call = call
        self._proposal_index = proposal_index

    async def open(self, request: RecordedRequest) -> ReplayContent | None:
        """Use the approval up, with its record, and open prompt and stop strings; None: no prompt is among it.

        Raises:
            Forbidden, Conflict, NotFound: this caller may not have them opened, or not by this proposal.
        """
        call = self._call
        asking = Asking(call.principal, call.request_id, ROUTE, call.source, call.label)
        await call.appliance.gate.authorize(asking, "readUnsealed", TargetFacts("AuditLog", "local"))
        contents = await take_unsealed(call, self._proposal_index, request.index, used_for="replay")
        prompts = contents.get("prompt")
        if prompts is None:
            return None
        given = RECORDED_PROMPTS.validate_json(prompts)
        return ReplayContent(tuple(map(_prompt, given)), tuple(json.loads(contents.get("stop", "[]"))))


async def replay(call: Call) -> Response:
    """Run one recorded request again and tell the verdict."""
    settings = call.appliance.settings
    wire = await read_wire(
        call.request, ReplayRequest, max_bytes=settings.max_body_bytes, deadline_s=settings.body_deadline_s
    )
    asking = Asking(call.principal, call.request_id, ROUTE, call.source, call.label)
    replayer = call.appliance.replayer
    content = wire.content()
    if content is not None and wire.unsealing is not None:
        raise BadRequest("send prompts or unsealing, not both", code="bad_value", param="unsealing")
    source = content if wire.unsealing is None else SealedRequest(call, wire.unsealing)
    async with watched(call.request, lambda reason: replayer.abandon(asking, reason)):
        replayed = await replayer.replay(asking, wire.index, source)
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
