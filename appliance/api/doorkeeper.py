"""Credential to principal for every call, and a record of every credential that was refused.

A stranger who knocks a thousand times a second must not fill the disk: refusals beyond a small rate are counted, and
the count stands in the next refusal that is recorded.

Invariant: a stranger hears the same 401 whatever state the log is in.  A refusal that cannot be recorded is told in the
operator's log, and counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import structlog

from appliance.audit_trail import SYSTEM, AuditTrail, Kind
from appliance.errors import Unauthenticated, recorded
from appliance.identity.authenticate import Authenticator, AuthFailure
from appliance.identity.principal import Principal
from audit.errors import AuditError
from audit.event import JsonValue, Receipt

LOG = structlog.get_logger("cloister.doorkeeper")
REFUSALS_PER_S = 5.0
REFUSALS_AT_ONCE = 20.0


@dataclass(slots=True)
class RefusalBudget:
    """Token bucket over recorded refusals.  Owned by the doorkeeper, on the event loop."""

    tokens: float = REFUSALS_AT_ONCE
    filled_at_s: float = 0.0
    num_suppressed: int = 0

    def take(self, now_s: float) -> int | None:
        """Ask to record one refusal now.

        Returns:
            How many were left out since the last one, or None when this one is left out as well.
        """
        self.tokens = min(REFUSALS_AT_ONCE, self.tokens + (now_s - self.filled_at_s) * REFUSALS_PER_S)
        self.filled_at_s = now_s
        if self.tokens < 1:
            self.num_suppressed += 1
            return None
        self.tokens -= 1
        suppressed, self.num_suppressed = self.num_suppressed, 0
        return suppressed

    def return_unrecorded(self, suppressed: int) -> None:
        """Count one refusal, and those it stood for, as left out: its record could not be written."""
        self.num_suppressed += suppressed + 1


class Doorkeeper:
    """Proves who calls, or refuses."""

    def __init__(self, authenticator: Authenticator, trail: AuditTrail) -> None:
        self._authenticator = authenticator
        self._trail = trail
        self._budget = RefusalBudget(filled_at_s=trail.clock.monotonic_ns() / 1e9)

    async def admit(
        self,
        headers: Sequence[tuple[bytes, bytes]],
        query_string: bytes,
        *,
        request_id: str,
        handler: str,
        source: str,
    ) -> Principal:
        """Give the principal behind the call's one credential.

        Raises:
            Unauthenticated: none, a wrong one or more than one; the answer never says which of the wrong ones.
        """
        outcome = self._authenticator.authenticate(headers, query_string, self._trail.clock.utc_us())
        if not isinstance(outcome, AuthFailure):
            return outcome.principal
        receipt = await self._record(outcome, request_id, handler, source)
        raise recorded(Unauthenticated(outcome.message, code=outcome.code), receipt)

    async def _record(self, failure: AuthFailure, request_id: str, handler: str, source: str) -> Receipt | None:
        """Record a refusal if its turn comes and the log can be written; None: it was only counted."""
        suppressed = self._budget.take(self._trail.clock.monotonic_ns() / 1e9)
        if suppressed is None:
            return None
        facts: dict[str, JsonValue] = {
            "code": failure.code,
            "handler": handler,
            "key_id": failure.key_id,
            "num_suppressed": suppressed,
            "outcome": "refused",
            "reason": failure.reason,
            "source": source,
        }
        try:
            return await self._trail.append(Kind.AUTH_REFUSED, SYSTEM, request_id, facts)
        except AuditError as fault:
            self._budget.return_unrecorded(suppressed)
            LOG.error(  # noqa: TRY400 - the class and reason are ours; the head that was refused stays out
                "auth_refusal_not_recorded", error=type(fault).__name__, reason=str(fault), request_id=request_id
            )
            return None
