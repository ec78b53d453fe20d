"""`GET /audit/receipts/{receipt}/proof`: for whoever's request it is, the proof that its record is in the log.

Invariant: a receipt of somebody else's request, of none, or with another hash all get one and the same 404.
"""

from __future__ import annotations

from starlette.responses import Response

from appliance.api.audit_log import TEXT, recorded_read
from appliance.api.call import Call
from appliance.api.route_spec import RouteSpec
from appliance.errors import BadRequest, NotFound
from appliance.identity.principal import Principal
from appliance.receipt_text import KeptReceipt, ReceiptMalformed
from audit.entry import Entry
from audit.errors import EntryNotFound
from audit.reader import AuditReader


async def prove_receipt(call: Call) -> Response:
    """Answer with a C2SP tlog-proof; with the receipt and the log's public key it needs nothing else."""
    try:
        receipt = KeptReceipt.from_text(call.request.path_params["receipt"])
    except ReceiptMalformed as malformed:
        raise BadRequest(f"{malformed}, as in x-cloister-receipt", code="bad_value", param="receipt") from malformed

    def body(reader: AuditReader) -> bytes:
        try:
            entry = reader.entry(receipt.index)
        except EntryNotFound:
            raise _not_yours() from None
        if entry.leaf_hash != receipt.leaf_hash or not _is_of(call.principal, entry):
            raise _not_yours()
        return reader.proof(receipt.index).to_text().encode()

    return await recorded_read(call, {"what": "receipt", "index": receipt.index}, body, TEXT)


def _is_of(principal: Principal, entry: Entry) -> bool:
    event = entry.leaf.event
    return (event.tenant, event.actor) == (principal.tenant, principal.id)


def _not_yours() -> NotFound:
    return NotFound("no request of yours has this receipt", code="entry_not_found", param="receipt")


RECEIPT_ROUTES = (
    RouteSpec(
        "/audit/receipts/{receipt}/proof", "GET", "proveReceipt", None, prove_receipt, "Prove a request of one's own"
    ),
)
