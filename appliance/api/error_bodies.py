"""An `ApplianceError` as the body that OpenAI's clients read.

Invariants: every error leaves in this one shape; the status comes from `HTTP_STATUS` and nowhere else; no body holds
text of a library, a control character, or more of the client's own input than a short quotation.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from starlette.responses import Response

from appliance.api.client_text import shown
from appliance.errors import (
    HTTP_STATUS,
    ApplianceError,
    MethodNotAllowed,
    Overloaded,
    Unauthenticated,
    Unavailable,
)
from appliance.receipt_text import RECEIPT_HEADER, shown_receipt

MAX_MESSAGE_CHARACTERS = 600
UNAVAILABLE_RETRY_AFTER_S = 5
"""A fault that the operator must mend is not mended in a second; clients that retry at all should not hammer."""


def error_body(error: ApplianceError) -> dict[str, dict[str, str | None]]:
    """Give `{"error": {message, type, param, code}}`."""
    _, kind = HTTP_STATUS[type(error)]
    return {
        "error": {
            "message": shown(error.message, MAX_MESSAGE_CHARACTERS),
            "type": kind,
            "param": None if error.param is None else shown(error.param),
            "code": error.code,
        }
    }


def error_response(error: ApplianceError, headers: Mapping[str, str] | None = None) -> Response:
    """Give the whole answer; `Retry-After` where trying again can help."""
    status, _ = HTTP_STATUS[type(error)]
    extra = dict(headers or {})
    match error:
        case Overloaded():
            extra["retry-after"] = str(error.retry_after_s)
        case Unavailable():
            extra["retry-after"] = str(UNAVAILABLE_RETRY_AFTER_S)
        case MethodNotAllowed():
            extra["allow"] = ", ".join(error.allowed)
        case Unauthenticated():
            extra["www-authenticate"] = "Bearer"
    if error.receipt is not None:
        extra.setdefault(RECEIPT_HEADER, shown_receipt(error.receipt))
    return Response(json.dumps(error_body(error)), status, extra, "application/json")
