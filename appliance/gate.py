"""One question to policy, asked the same way by every route, and its denial recorded before it is spoken."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass

from appliance.audit_trail import AuditTrail, Kind
from appliance.errors import Forbidden, recorded
from appliance.identity.principal import Principal
from appliance.metrics import ServingMetrics
from audit.event import JsonValue
from policies.actions import ACTIONS
from policies.cedar import PolicyEngine
from policies.decision import Allow, Deny, Facts, FactValue, SubjectFacts, TargetFacts

DENIED_MESSAGE = "policy does not allow this; ask the people who own the policy, naming the request id"


@dataclass(frozen=True, slots=True)
class Asking:
    """Who asks, from where, under which request id and on which route."""

    principal: Principal
    request_id: str
    route: str
    source: str
    label: int = 0


class PolicyGate:
    """Builds facts, asks, and records a denial before anyone is told.

    The engine behind it is one reference; replacing it swaps policy for new questions while old answers stand.
    """

    def __init__(
        self, engine: PolicyEngine, trail: AuditTrail, metrics: ServingMetrics, *, development_trust: bool
    ) -> None:
        self._engine = engine
        self._trail = trail
        self._metrics = metrics
        self._development_trust = development_trust

    async def authorize(
        self, asking: Asking, action: str, target: TargetFacts, context: Mapping[str, FactValue] | None = None
    ) -> Allow:
        """Ask policy.

        Raises:
            Forbidden: denied; the denial is durable in the log by then.
        """
        decision = self._engine.decide(self._facts(asking, action, target, context or {}))
        effect = "allow" if isinstance(decision, Allow) else "deny"
        self._metrics.policy_decisions.labels(action, effect).inc()
        if isinstance(decision, Allow):
            return decision
        receipt = await self._trail.append(
            Kind.REQUEST_DENIED, asking.principal, asking.request_id, denial_facts(asking, action, target, decision)
        )
        raise recorded(Forbidden(DENIED_MESSAGE, code=decision.reason), receipt)

    def _facts(self, asking: Asking, action: str, target: TargetFacts, context: Mapping[str, FactValue]) -> Facts:
        principal = asking.principal
        spec = ACTIONS.get(action)  # policy itself answers for an action that does not exist
        label = {"label": asking.label} if spec is not None and "label" in spec.context else {}
        now = dt.datetime.fromtimestamp(self._trail.clock.utc_us() / 1e6, tz=dt.UTC)
        return Facts(
            subject=SubjectFacts(
                id=principal.id,
                kind=principal.kind,
                tenant=principal.tenant,
                roles=principal.roles,
                clearance=principal.clearance,
            ),
            action=action,
            target=target,
            context={
                "source": asking.source,
                "minute_of_day": now.hour * 60 + now.minute,
                "weekday": now.weekday(),
                "development_trust": self._development_trust,
                **label,
                **context,
            },
        )


def denial_facts(asking: Asking, action: str, target: TargetFacts, decision: Deny) -> dict[str, JsonValue]:
    """Give the facts of a denial as the log keeps them: the auditor sees ids and errors, the client a code."""
    return {
        "action": action,
        "decision": "deny",
        "errors": list(decision.errors),
        "key_id": asking.principal.key_id,
        "label": str(asking.label),
        "outcome": "denied",
        "policy_digest": decision.policy_digest,
        "policy_ids": list(decision.policy_ids),
        "reason": decision.reason,
        "route": asking.route,
        "source": asking.source,
        "target": f"{target.kind}:{target.id}",
    }
