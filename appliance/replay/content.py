"""The texts of a recorded request, supplied or opened for the replay, held against their commitments.

Law: nothing is run, and nothing is compared, that is not known to be what was recorded: a replay that took any text
would be a way to ask the model, and one that compared with any text a way to read its answer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from appliance.committed import output_content, prompt_content, stop_content
from appliance.inference import Prompt
from appliance.replay.recorded import HmacFacts, RecordedEnd, RecordedRequest
from appliance.replay.verdict import NotReproducibleHere, Why
from audit.errors import KeyRefused, SubjectErased
from audit.subject_keys.commitment import Commitment

CheckCommitment = Callable[[Commitment, str, str, bytes], bool]
"""(commitment, request id, phase, content) -> whether it is to this content; `SubjectKeyring.check`."""


@dataclass(frozen=True, slots=True)
class ReplayContent:
    """What the auditor has in hand."""

    prompts: tuple[Prompt, ...]
    stop: tuple[str, ...] = ()
    outputs: tuple[str, ...] | None = None
    """The choices' texts, to say at which character a replay differs."""


class SealedContents(Protocol):
    """What was sealed in the log beside the request, for whoever may have it opened."""

    async def open(self, request: RecordedRequest) -> ReplayContent | None:
        """Open it; None: nothing is sealed there any more.

        Raises:
            appliance.errors.ApplianceError: it may not be opened.
            audit.errors.SubjectErased: nobody can any more.
        """
        ...


Source: TypeAlias = "ReplayContent | SealedContents | None"
"""Where the texts come from; None where nobody has them."""


def content_refusal(
    check: CheckCommitment, request: RecordedRequest, end: RecordedEnd, content: ReplayContent
) -> NotReproducibleHere | None:
    """Say why this content is not that of the request; None: it is."""
    asked, answered = request.admitted.commitments, end.facts.commitments if end.facts else None
    if asked.prompt is None or answered is None or answered.output is None:
        return NotReproducibleHere(Why.NOT_COMMITTED, "its records hold no commitments: policy asked for none")
    if len(content.stop) != request.admitted.sampling.num_stop_strings:
        explanation = f"the request had {request.admitted.sampling.num_stop_strings} stop strings"
        return NotReproducibleHere(Why.STOP_MISMATCH, explanation)
    held: list[tuple[HmacFacts, str, bytes, Why]] = [
        (asked.prompt, "prompt", prompt_content(content.prompts), Why.PROMPT_MISMATCH)
    ]
    if asked.stop is not None:
        held.append((asked.stop, "stop", stop_content(content.stop), Why.STOP_MISMATCH))
    if content.outputs is not None:
        held.append((answered.output, "output", output_content(content.outputs), Why.OUTPUT_MISMATCH))
    try:
        for facts, phase, text, why in held:
            if not check(facts.commitment(), request.request_id, phase, text):
                return NotReproducibleHere(why, f"this is not the {phase} that the record commits to")
    except SubjectErased:
        return NotReproducibleHere(Why.SUBJECT_ERASED, "the subject's key was destroyed: nobody can check a text now")
    except KeyRefused:
        explanation = "the keyring of this appliance has no key of that subject"
        return NotReproducibleHere(Why.KEY_UNKNOWN, explanation)
    return None
