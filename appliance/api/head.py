"""What the head of a call says beside its credential: the query, the label, the caller's own request id.

Invariant: nothing is dropped silently.  A query parameter that the route does not name, and a header of these with a
value that it cannot have, are refused by name.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from starlette.requests import Request

from appliance.errors import BadRequest

LABEL_HEADER = "x-cloister-label"
LABELS = ("0", "1", "2", "3", "4")
REQUEST_ID_HEADER = "x-request-id"
REQUEST_ID_PATTERN = r"[ -~]{1,512}"
_REQUEST_ID = re.compile(REQUEST_ID_PATTERN)
MAX_SHOWN_NAME = 64


def checked_query(request: Request, allowed: Collection[str]) -> dict[str, str]:
    """Give the query's parameters, each once.

    Raises:
        BadRequest: one that the route does not name, or one that stands twice.
    """
    pairs = request.query_params.multi_items()
    query = dict(pairs)
    for name in query:
        if name not in allowed:
            raise BadRequest(
                "there is no such query parameter here", code="unknown_parameter", param=name[:MAX_SHOWN_NAME]
            )
    if len(query) != len(pairs):
        raise BadRequest("a query parameter stands twice", code="bad_value")
    return query


def declared_label(request: Request) -> int:
    """Give the label that the caller declares; 0 without one.

    Raises:
        BadRequest: not one digit from 0 to 4, or more than one header.
    """
    given = request.headers.getlist(LABEL_HEADER)
    if not given:
        return 0
    if len(given) == 1 and given[0] in LABELS:
        return int(given[0])
    raise BadRequest("x-cloister-label is one digit from 0 to 4, once", code="bad_value", param=LABEL_HEADER)


def declared_request_id(request: Request) -> str | None:
    """Give the caller's own id of the request: text of a client, for a commitment and for nothing else.

    Raises:
        BadRequest: not one line of plain characters, or more than one header.
    """
    given = request.headers.getlist(REQUEST_ID_HEADER)
    if not given:
        return None
    if len(given) == 1 and _REQUEST_ID.fullmatch(given[0]):
        return given[0]
    raise BadRequest(
        "x-request-id is 1 to 512 printable ASCII characters, once", code="bad_value", param=REQUEST_ID_HEADER
    )
