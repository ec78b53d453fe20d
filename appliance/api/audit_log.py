"""The auditor's routes: entries, proofs and the signed head.  Each read is itself recorded before a row is returned."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from starlette.responses import JSONResponse, PlainTextResponse, Response

from appliance.api.call import Call
from appliance.api.route_spec import RouteSpec
from appliance.audit_trail import Kind
from appliance.errors import BadRequest
from audit.event import JsonValue
from audit.reader import Entry, EntryFilter

MAX_PAGE = 1000
MAX_DIGITS = 19
MAX_INDEX = 2**53 - 1
"""The largest whole number that JSON readers agree on."""
MAX_FILTER_CHARACTERS = 256
"""A filter's value stands in the record of the read."""
FILTERS = ("kind", "actor", "role", "tenant", "subject", "decision", "route", "outcome", "model_root", "label")


async def list_entries(call: Call) -> Response:
    """`GET /audit/entries`: a page of entries by keyset, oldest or newest first."""
    query = _query(call, {*FILTERS, "after", "limit", "order"})
    order = query.get("order", "asc")
    if order not in {"asc", "desc"}:
        raise BadRequest("order is asc or desc", code="bad_value", param="order")
    limit = _integer(query, "limit", 100, 1, MAX_PAGE)
    after = _integer(query, "after", -1, 0, MAX_INDEX) if "after" in query else None
    wanted = {name: query[name] for name in FILTERS if name in query}
    await _record_read(call, {"what": "entries", "filters": wanted, "limit": limit, "after": after, "order": order})
    conditions = EntryFilter(
        kind=query.get("kind"),
        actor=query.get("actor"),
        role=query.get("role"),
        tenant=query.get("tenant"),
        subject=query.get("subject"),
        decision=query.get("decision"),
        route=query.get("route"),
        outcome=query.get("outcome"),
        model_root=query.get("model_root"),
        label=query.get("label"),
    )
    page = await call.appliance.read_log(
        lambda reader: reader.entries(conditions, after=after, limit=limit, newest=order == "desc")
    )
    return JSONResponse(
        {
            "object": "list",
            "data": [entry_body(entry) for entry in page.entries],
            "has_more": page.next_after is not None,
            "next_after": page.next_after,
        }
    )


async def show_entry(call: Call) -> Response:
    """`GET /audit/entries/{index}`: one entry."""
    _query(call, set())
    index = _index(call)
    await _record_read(call, {"what": "entry", "index": index})
    entry = await call.appliance.read_log(lambda reader: reader.entry(index))
    return JSONResponse(entry_body(entry))


async def prove_entry(call: Call) -> Response:
    """`GET /audit/entries/{index}/proof`: a C2SP tlog-proof that anyone can check with the log's public key."""
    _query(call, set())
    index = _index(call)
    await _record_read(call, {"what": "proof", "index": index})
    proof = await call.appliance.read_log(lambda reader: reader.proof(index))
    return PlainTextResponse(proof.to_text())


async def show_checkpoint(call: Call) -> Response:
    """`GET /audit/checkpoint`: the newest signed head, in signed-note form."""
    _query(call, set())
    await _record_read(call, {"what": "checkpoint"})
    signed = await call.appliance.read_log(lambda reader: reader.head())
    return PlainTextResponse(signed.note)


def entry_body(entry: Entry) -> dict[str, Any]:
    """Give one entry as the API shows it: the leaf's own bytes as text, their hash, and the same decoded."""
    return {
        "index": entry.index,
        "leaf_hash": entry.leaf_hash.hex(),
        "leaf": entry.leaf_bytes.decode(),
        "entry": json.loads(entry.leaf_bytes),
    }


async def _record_read(call: Call, what: Mapping[str, JsonValue]) -> None:
    facts = {"key_id": call.principal.key_id, "outcome": "completed", "source": call.source, **what}
    await call.appliance.trail.append(Kind.LOG_READ, call.principal, call.request_id, facts)


def _query(call: Call, allowed: set[str]) -> dict[str, str]:
    pairs = call.request.query_params.multi_items()
    query = dict(pairs)
    for name, value in query.items():
        if name not in allowed:
            raise BadRequest("there is no such query parameter here", code="unknown_parameter", param=name[:64])
        if len(value) > MAX_FILTER_CHARACTERS:
            raise BadRequest(f"at most {MAX_FILTER_CHARACTERS} characters", code="bad_value", param=name)
    if len(query) != len(pairs):
        raise BadRequest("a query parameter stands twice", code="bad_value")
    return query


def _integer(query: Mapping[str, str], name: str, default: int, least: int, most: int) -> int:
    text = query.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) <= MAX_DIGITS and least <= int(text) <= most):
        raise BadRequest(f"{name} is a whole number from {least} to {most}", code="bad_value", param=name)
    return int(text)


def _index(call: Call) -> int:
    return _integer({"index": call.request.path_params["index"]}, "index", 0, 0, MAX_INDEX)


AUDIT_ROUTES = (
    RouteSpec("/audit/entries", "GET", "readAudit", None, list_entries, "List entries of the log"),
    RouteSpec("/audit/entries/{index}", "GET", "readAudit", None, show_entry, "Show one entry"),
    RouteSpec("/audit/entries/{index}/proof", "GET", "proveAudit", None, prove_entry, "Prove one entry"),
    RouteSpec("/audit/checkpoint", "GET", "readCheckpoint", None, show_checkpoint, "Show the signed head"),
)
