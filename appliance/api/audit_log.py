"""The auditor's routes: entries, proofs and the signed head.

Invariants: each read is itself recorded before a row is read; rows are read and bodies made in a thread, since a page
has up to `MAX_PAGE` leaves and everybody's tokens go through the event loop.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import structlog
from starlette.responses import Response

from appliance.api.audit_filter import FILTER_QUERY, read_filter
from appliance.api.call import Call
from appliance.api.route_spec import RouteSpec
from appliance.audit_trail import Kind
from appliance.errors import BadRequest, Unavailable
from audit.canonical import digest_of
from audit.entry import Entry
from audit.errors import AuditError, EntryNotFound
from audit.event import JsonValue
from audit.reader import AuditReader, Page
from audit.search.expression import canonical

T = TypeVar("T")
LOG = structlog.get_logger("cloister.http")
JSON, TEXT = "application/json", "text/plain"
DEFAULT_PAGE = 100
MAX_PAGE = 1000
MAX_DIGITS = 19
MAX_INDEX = 2**53 - 1
"""The largest whole number that JSON readers agree on."""
ORDERS = ("asc", "desc")


async def list_entries(call: Call) -> Response:
    """`GET /audit/entries`: a page of entries by keyset, oldest or newest first.

    The page is of the log as it was up to the record of this very read, so that the same query at the same place gives
    the same entries whenever it is asked again.
    """
    query = call.query
    order = query.get("order", "asc")
    if order not in ORDERS:
        raise BadRequest("order is asc or desc", code="bad_value", param="order")
    limit = integer(query, "limit", DEFAULT_PAGE, 1, MAX_PAGE)
    after = integer(query, "after", -1, 0, MAX_INDEX) if "after" in query else None
    wanted = read_filter(query)
    asked: dict[str, JsonValue] = {
        "what": "entries",
        "filter": canonical(wanted),
        "limit": limit,
        "after": after,
        "order": order,
    }

    def body(reader: AuditReader) -> bytes:
        page = reader.entries(wanted, after=after, limit=limit, newest=order == "desc", size=call.size_at_record)
        return _json(_page_body(page))

    return await recorded_read(call, {**asked, "query_sha256": digest_of(asked)}, body, JSON)


async def show_entry(call: Call) -> Response:
    """`GET /audit/entries/{index}`: one entry."""
    index = entry_index(call)
    what: dict[str, JsonValue] = {"what": "entry", "index": index}
    return await recorded_read(call, what, lambda reader: _json(entry_body(reader.entry(index))), JSON)


async def prove_entry(call: Call) -> Response:
    """`GET /audit/entries/{index}/proof`: a C2SP tlog-proof that anyone can check with the log's public key."""
    index = entry_index(call)
    what: dict[str, JsonValue] = {"what": "proof", "index": index}
    return await recorded_read(call, what, lambda reader: reader.proof(index).to_text().encode(), TEXT)


async def show_checkpoint(call: Call) -> Response:
    """`GET /audit/checkpoint`: the newest signed head, in signed-note form."""
    return await recorded_read(call, {"what": "checkpoint"}, lambda reader: reader.head().note.encode(), TEXT)


def entry_body(entry: Entry) -> dict[str, Any]:
    """Give one entry as the API shows it: the leaf's own bytes as text, their hash, and the same decoded."""
    return {
        "index": entry.index,
        "leaf_hash": entry.leaf_hash.hex(),
        "leaf": entry.leaf_bytes.decode(),
        "entry": json.loads(entry.leaf_bytes),
    }


def _page_body(page: Page) -> dict[str, Any]:
    return {
        "object": "list",
        "data": [entry_body(entry) for entry in page.entries],
        "has_more": page.next_after is not None,
        "next_after": page.next_after,
    }


async def recorded_read(
    call: Call, what: Mapping[str, JsonValue], body: Callable[[AuditReader], bytes], media_type: str
) -> Response:
    """Record the read, then read and make the body in one go beside the event loop.

    Raises:
        EntryNotFound: the log holds no such entry.
        Unavailable: the log cannot be read; the record says that somebody tried.
        audit.errors.AuditError: the read was not recorded, so nothing was read.
    """
    await call.record(Kind.LOG_READ, call.request_id, {"outcome": "completed", **what})
    return Response(await read_after_record(call, body), media_type=media_type)


async def read_after_record(call: Call, read: Callable[[AuditReader], T]) -> T:
    """Read the log beside the event loop, for a call that has left its record.

    Raises:
        EntryNotFound: the log holds no such entry.
        Unavailable: the log cannot be read; the record says that somebody tried.
    """
    try:
        return await call.appliance.read_log(read)
    except EntryNotFound:
        raise
    except AuditError as failure:
        LOG.error(  # noqa: TRY400 - the reason is ours and whole; a traceback says no more to an operator
            "log_not_read", error=type(failure).__name__, reason=str(failure)
        )
        raise Unavailable("the log cannot be read now; the operator's log says why", code="log_unreadable") from failure


def _json(body: Mapping[str, Any]) -> bytes:
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()


def integer(query: Mapping[str, str], name: str, default: int, least: int, most: int) -> int:
    """Read a whole number of the query.

    Raises:
        BadRequest: it is none, or out of bounds.
    """
    text = query.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) <= MAX_DIGITS and least <= int(text) <= most):
        raise BadRequest(f"{name} is a whole number from {least} to {most}", code="bad_value", param=name)
    return int(text)


def entry_index(call: Call) -> int:
    """Give the index that stands in the path."""
    return integer({"index": call.request.path_params["index"]}, "index", 0, 0, MAX_INDEX)


ENTRIES_QUERY: Mapping[str, Mapping[str, Any]] = {
    **FILTER_QUERY,
    "after": {"type": "integer", "minimum": 0, "maximum": MAX_INDEX},
    "limit": {"type": "integer", "minimum": 1, "maximum": MAX_PAGE, "default": DEFAULT_PAGE},
    "order": {"type": "string", "enum": list(ORDERS), "default": "asc"},
}
AUDIT_ROUTES = (
    RouteSpec("/audit/entries", "GET", "readAudit", None, list_entries, "List entries of the log", ENTRIES_QUERY),
    RouteSpec("/audit/entries/{index}", "GET", "readAudit", None, show_entry, "Show one entry"),
    RouteSpec("/audit/entries/{index}/proof", "GET", "proveAudit", None, prove_entry, "Prove one entry"),
    RouteSpec("/audit/checkpoint", "GET", "readCheckpoint", None, show_checkpoint, "Show the signed head"),
)
