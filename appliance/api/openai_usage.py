"""What the two OpenAI dialects say alike: the head of every body, usage, and a choice's end."""

from __future__ import annotations

from typing import Any

from appliance.inference import Admission, ChoiceFinish, Usage

JsonObject = dict[str, Any]


def head(admission: Admission, prefix: str, kind: str) -> JsonObject:
    """Give the fields that are the same in every chunk of one answer."""
    return {
        "id": f"{prefix}-{admission.request_id}",
        "object": kind,
        "created": admission.created_s,
        "model": admission.model,
        "system_fingerprint": admission.system_fingerprint,
    }


def usage_body(usage: Usage) -> JsonObject:
    """Give `usage`."""
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
    }


def ending(choice: ChoiceFinish) -> JsonObject:
    """Give `finish_reason`, and vLLM's `stop_reason` that names what stopped it."""
    return {"finish_reason": choice.reason, "stop_reason": choice.stop_reason}


NOT_ENDED: JsonObject = {"finish_reason": None}
