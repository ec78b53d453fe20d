"""Everything a request can be answered with instead of its answer, and the one table of HTTP statuses.

ApplianceError
├── BadRequest            the caller must change the request
│                         (MethodNotAllowed, TooLarge and SlowClient are its cases with a status of their own)
├── Unauthenticated       the caller must present one valid credential
├── Forbidden             policy said no; asking again will not help
├── Inconsistent          what was sent contradicts what was proven before
├── Conflict              what was asked for is not possible as things stand; the message says what stands
├── NotFound              no such route or model, or none the caller may know of
├── Overloaded            the caller may try again after `retry_after_s`
├── Unavailable           the operator must act; nothing is admitted until then
└── GenerationFailed      this request alone failed; sending it again may help

Messages are written for the caller: they name the field and the remedy, never library text, paths or secrets.
"""

from __future__ import annotations

import asyncio

from audit.event import Receipt

MORE_THAN_ONE_REQUEST = (asyncio.CancelledError, KeyboardInterrupt, SystemExit, GeneratorExit)
"""What ends the task or the process.  Everything else is one request's fault, also a library's panic, which is no
`Exception`."""


class ApplianceError(Exception):
    """Base; `code` is stable and documented, `param` names the field at fault."""

    def __init__(self, message: str, *, code: str, param: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.param = param
        self.recorded = False
        """Whether the log already says how this request ended; then nobody records it a second time."""
        self.receipt: Receipt | None = None
        """Of the record that says so."""


def recorded(error: ApplianceError, receipt: Receipt | None = None) -> ApplianceError:
    """Mark an error whose request already has its last record, and hand over that record's receipt."""
    error.recorded = True
    error.receipt = receipt or error.receipt
    return error


class BadRequest(ApplianceError):
    """The request cannot be honoured as it stands."""


class Unauthenticated(ApplianceError):
    """No credential, a wrong one, or more than one."""


class Forbidden(ApplianceError):
    """Policy denied it."""


class Inconsistent(ApplianceError):
    """Well-formed, and not consistent with what was proven before."""


class Conflict(ApplianceError):
    """Possible in another state of things: under hold, taken up before, not old enough, erased."""


class NotFound(ApplianceError):
    """Unknown to this caller."""


class MethodNotAllowed(ApplianceError):
    """The path exists, the method does not."""

    def __init__(self, message: str, *, code: str, allowed: tuple[str, ...] = ()) -> None:
        super().__init__(message, code=code)
        self.allowed = allowed


class TooLarge(ApplianceError):
    """Body or headers above the limit."""


class SlowClient(ApplianceError):
    """The client did not send its request in time."""


class Overloaded(ApplianceError):
    """The queue is full."""

    def __init__(self, message: str, *, code: str, retry_after_s: int) -> None:
        super().__init__(message, code=code)
        self.retry_after_s = retry_after_s


class Unavailable(ApplianceError):
    """Not admitting: the log, the engine or the disk needs the operator."""


class GenerationFailed(ApplianceError):
    """The engine gave the request up; recorded as failed."""


HTTP_STATUS: dict[type[ApplianceError], tuple[int, str]] = {
    BadRequest: (400, "invalid_request_error"),
    Unauthenticated: (401, "authentication_error"),
    Forbidden: (403, "permission_error"),
    NotFound: (404, "not_found_error"),
    MethodNotAllowed: (405, "invalid_request_error"),
    Inconsistent: (422, "invalid_request_error"),
    Conflict: (409, "conflict_error"),
    SlowClient: (408, "invalid_request_error"),
    TooLarge: (413, "invalid_request_error"),
    Overloaded: (429, "overloaded_error"),
    GenerationFailed: (500, "server_error"),
    Unavailable: (503, "service_unavailable_error"),
}
"""Error class -> (HTTP status, OpenAI error `type`): chosen here and nowhere else."""
