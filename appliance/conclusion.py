"""How a whole request ended, told from how its choices did.  Pure.

Law: an error of any choice outweighs a cancellation, that outweighs success; one request has one conclusion.
"""

from __future__ import annotations

from dataclasses import dataclass

from appliance.audit_trail import Kind
from appliance.errors import ApplianceError, GenerationFailed, Unavailable
from appliance.running import Running

ENGINE_CODES = frozenset({"engine_died", "engine_failed", "engine_stopped"})
"""Errors of the engine as a whole: the caller may try again once it is back."""


@dataclass(frozen=True, slots=True)
class Conclusion:
    """What the terminal record says, and what the caller hears instead of an answer."""

    kind: Kind
    outcome: str
    """`completed`, `failed` or `cancelled`."""
    error: ApplianceError | None = None
    """None: the answer is whole."""

    @property
    def code(self) -> str | None:
        """Of the error."""
        return None if self.error is None else self.error.code


def conclude(running: Running) -> Conclusion:
    """Say how the request ended."""
    if running.failure is not None:
        return Conclusion(Kind.REQUEST_FAILED, "failed", running.failure)
    code = next((choice.error or "engine_error" for choice in running.choices if choice.failed), None)
    if code is not None:
        return Conclusion(Kind.REQUEST_FAILED, "failed", _failed_in_the_engine(code))
    if running.abandoned is not None:
        message = "the request was cancelled; it is recorded as cancelled"
        return Conclusion(Kind.REQUEST_CANCELLED, "cancelled", Unavailable(message, code=running.abandoned))
    return Conclusion(Kind.REQUEST_COMPLETED, "completed")


def _failed_in_the_engine(code: str) -> ApplianceError:
    if code in ENGINE_CODES:
        message = "the engine stopped while it worked on this request; it is recorded as failed, send it again"
        return Unavailable(message, code=code)
    return GenerationFailed("the model could not continue this request; it is recorded as failed", code=code)
