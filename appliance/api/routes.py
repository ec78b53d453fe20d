"""Every route there is, in one place."""

from __future__ import annotations

from appliance.api.audit_counts import COUNT_ROUTES
from appliance.api.audit_log import AUDIT_ROUTES
from appliance.api.audit_reports import REPORT_ROUTES
from appliance.api.content_checks import CONTENT_CHECK_ROUTES
from appliance.api.erasures import ERASURE_ROUTES
from appliance.api.evidence import EVIDENCE_ROUTES
from appliance.api.holds import HOLD_ROUTES
from appliance.api.log_status import STATUS_ROUTES
from appliance.api.openai_routes import OPENAI_ROUTES
from appliance.api.operations import OPERATION_ROUTES
from appliance.api.prunings import PRUNE_ROUTES
from appliance.api.receipts import RECEIPT_ROUTES
from appliance.api.reconciliation import RECONCILIATION_ROUTES
from appliance.api.replays import REPLAY_ROUTES
from appliance.api.retention import RETENTION_ROUTES
from appliance.api.route_spec import RouteSpec
from appliance.api.unsealings import UNSEAL_ROUTES
from appliance.api.witness import WITNESS_ROUTES

ROUTES: tuple[RouteSpec, ...] = (
    *OPENAI_ROUTES,
    *AUDIT_ROUTES,
    *EVIDENCE_ROUTES,
    *COUNT_ROUTES,
    *REPORT_ROUTES,
    *RECEIPT_ROUTES,
    *REPLAY_ROUTES,
    *RECONCILIATION_ROUTES,
    *STATUS_ROUTES,
    *ERASURE_ROUTES,
    *HOLD_ROUTES,
    *CONTENT_CHECK_ROUTES,
    *UNSEAL_ROUTES,
    *RETENTION_ROUTES,
    *PRUNE_ROUTES,
    *OPERATION_ROUTES,
    *WITNESS_ROUTES,
)
