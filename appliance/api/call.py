"""One authenticated HTTP call on its way into an endpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from starlette.requests import Request

from appliance.api.head import REQUEST_ID_HEADER
from appliance.audit_trail import Kind
from appliance.identity.principal import Principal
from appliance.inference import InferenceRequest
from audit.event import JsonValue, Receipt

if TYPE_CHECKING:
    from appliance.app import Appliance


@dataclass(frozen=True, slots=True)
class Call:
    """Who called, with what, and the appliance that answers.

    By the time an endpoint sees a call, its credential was proven; for every action but `infer` policy has allowed it
    too.  `infer` is decided inside the walk, because its facts are known only after the body was read.
    """

    principal: Principal
    request: Request
    request_id: str
    source: str
    """The socket peer's address; no header can change it."""
    label: int
    """Declared sensitivity, 0-4, from `x-cloister-label`; it can only restrict."""
    appliance: Appliance
    query: Mapping[str, str] = field(default_factory=dict)
    """Parameters that the route names, each once."""
    declared_id: str | None = None
    """The caller's own id of this request: its text, so it is committed to and neither logged nor believed."""
    receipts: list[Receipt] = field(default_factory=list)
    """Of the records this call has left, oldest first.  The perimeter puts the last on whatever is answered, and leaves
    the record of a failure to whoever wrote the first."""

    def declaring(self, request: InferenceRequest) -> InferenceRequest:
        """Add what the head says of the request to what its body says, for the admission's commitment."""
        if self.declared_id is None:
            return request
        return replace(request, declared={**request.declared, REQUEST_ID_HEADER: self.declared_id})

    @property
    def size_at_record(self) -> int:
        """How many entries the log had with the call's last record: what a recorded read is of."""
        return self.receipts[-1].index + 1

    async def record(self, kind: Kind, subject: str, facts: Mapping[str, JsonValue]) -> None:
        """Record an act of the caller's, before it is done or shown.

        Raises:
            audit.errors.AuditError: not known to be durable; the act must not be done.
        """
        facts = {"key_id": self.principal.key_id, "source": self.source, **facts}
        self.receipts.append(await self.appliance.trail.append(kind, self.principal, subject, facts))
