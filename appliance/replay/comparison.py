"""The answer that came again beside the recorded one: its commitment and marks, and perhaps its text."""

from __future__ import annotations

from typing import Protocol

from appliance.committed import output_content, token_spans, tokens_phase
from appliance.replay.content import ReplayContent
from appliance.replay.recorded import RecordedEnd, RecordedRequest
from appliance.replay.regeneration import Regenerated
from appliance.replay.verdict import Difference, first_difference
from audit.subject_keys.commitment import Commitment


class Keys(Protocol):
    """Can tell whether a text is the recorded one; `appliance.audit_trail.AuditTrail` can."""

    def check_commitment(self, commitment: Commitment, request_id: str, phase: str, content: bytes) -> bool:
        """Tell whether the commitment is to this content."""
        ...

    def marks_by(self, key_id: str, request_id: str, phase: str, parts: list[bytes]) -> str:
        """Give the marks that a content would have."""
        ...


def compare(
    keys: Keys, request: RecordedRequest, end: RecordedEnd, content: ReplayContent, again: Regenerated
) -> Difference | None:
    """Say where the two part; None: they do not, neither in text nor tokens nor end.  Reads the keys' file.

    Raises:
        SubjectErased, KeyRefused: the subject's key is gone.
    """
    facts = end.facts
    assert facts is not None, f"request {request.index} ended without an answer"
    output, marks = facts.commitments.output, facts.commitments.tokens
    assert output is not None, f"request {request.index} has no commitment to its output"
    same_text = keys.check_commitment(output.commitment(), request.request_id, "output", output_content(again.texts))
    every = 1 if marks is None else marks.every
    marked = (
        None
        if marks is None
        else [
            keys.marks_by(marks.key_id, request.request_id, tokens_phase(choice), token_spans(token_ids, every))
            for choice, token_ids in enumerate(again.token_ids)
        ]
    )
    same_tokens = marks is None or tuple(marked or ()) == marks.marks
    if same_text and same_tokens and again.finishes == facts.finish_reasons:
        return None
    return first_difference(
        marks=None if marks is None or marked is None else (marks.marks, marked),
        every=every,
        texts=None if content.outputs is None else (content.outputs, again.texts),
        finishes=(facts.finish_reasons, again.finishes),
    )
