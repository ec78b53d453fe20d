"""A request body: bytes within limits of size and time, then strict JSON, then a wire type - or one clear refusal.

Invariants: nothing is read beyond the size limit; a JSON text that two parsers could read differently (duplicate keys,
NaN, numbers beyond a double, lone surrogates) is refused; what comes out is finite, shallow and encodable as UTF-8.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections import Counter
from typing import Any, TypeVar

from pydantic import ValidationError
from starlette.requests import ClientDisconnect, Request

from appliance.api.client_text import shown
from appliance.api.wire import WireModel
from appliance.api.wire_errors import bad_request
from appliance.errors import BadRequest, SlowClient, TooLarge

MAX_DEPTH = 32
W = TypeVar("W", bound=WireModel)


class _Repeated(ValueError):
    """A key stands twice in one object."""


class _NotFinite(ValueError):
    """A number that JSON or a double does not have."""


async def read_wire(request: Request, model: type[W], *, max_bytes: int, deadline_s: float) -> W:
    """Read, parse and validate.

    Raises:
        BadRequest, TooLarge, SlowClient: with the field at fault, where there is one.
    """
    check_content_type(request)
    return validate(model, parse_json(await read_body(request, max_bytes=max_bytes, deadline_s=deadline_s)))


def check_content_type(request: Request) -> None:
    """Take JSON in UTF-8, uncompressed, and nothing else."""
    given = request.headers.get("content-type", "")
    media_type, _, parameters = (part.strip().lower() for part in given.partition(";"))
    if media_type != "application/json" or parameters not in ("", "charset=utf-8", 'charset="utf-8"'):
        raise BadRequest(
            "send the body as content-type: application/json", code="unsupported_media_type", param="content-type"
        )
    if request.headers.get("content-encoding", "identity").strip().lower() != "identity":
        raise BadRequest("send the body uncompressed", code="unsupported_content_encoding", param="content-encoding")


async def read_body(request: Request, *, max_bytes: int, deadline_s: float) -> bytes:
    """Read at most `max_bytes` within `deadline_s`, counted as they come whatever content-length says."""
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and len(declared) < 20 and int(declared) > max_bytes:  # noqa: PLR2004 - digits of 2**64
        raise _too_large(max_bytes)
    body = bytearray()
    try:
        async with asyncio.timeout(deadline_s):
            async for chunk in request.stream():
                body += chunk
                if len(body) > max_bytes:
                    raise _too_large(max_bytes)
    except TimeoutError:
        raise SlowClient(f"the body did not come within {deadline_s:g} seconds", code="body_timeout") from None
    except ClientDisconnect:
        raise SlowClient("the connection closed before the body was complete", code="client_closed") from None
    return bytes(body)


def parse_json(body: bytes) -> Any:  # noqa: ANN401 - parsed JSON
    """Parse strict JSON.

    Raises:
        BadRequest: not UTF-8, not JSON, or JSON that does not mean the same to everybody.
    """
    try:
        value = json.loads(
            body.decode(), object_pairs_hook=_object, parse_constant=_refuse_constant, parse_float=_finite
        )
    except UnicodeDecodeError as failure:
        raise BadRequest(f"the body is not UTF-8 at byte {failure.start}", code="invalid_utf8") from None
    except json.JSONDecodeError as failure:
        raise BadRequest(
            f"the body is not JSON at line {failure.lineno}, column {failure.colno}", code="invalid_json"
        ) from None
    except _Repeated as failure:
        raise BadRequest("a key stands twice in one object", code="duplicate_key", param=shown(str(failure))) from None
    except _NotFinite:
        raise BadRequest("NaN, Infinity and numbers beyond a double are not JSON", code="invalid_number") from None
    except RecursionError:
        raise _too_deep() from None
    except ValueError:  # an integer of thousands of digits
        raise BadRequest("a number in the body has too many digits", code="invalid_number") from None
    _check_values(value)
    return value


def validate(model: type[W], value: object) -> W:
    """Give the wire type, or name the first field that is wrong."""
    try:
        return model.model_validate(value)
    except ValidationError as failure:
        raise bad_request(failure, value) from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        counts = Counter(key for key, _ in pairs)
        raise _Repeated(next(key for key, count in counts.items() if count > 1))
    return value


def _refuse_constant(_text: str) -> None:
    raise _NotFinite


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise _NotFinite
    return number


def _check_values(value: Any) -> None:  # noqa: ANN401 - parsed JSON
    """Check depth and text, level by level: no recursion, whatever the body looks like."""
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        below: list[Any] = []
        num_containers = 0
        for item in level:
            if isinstance(item, str):
                _check_text(item)
            elif isinstance(item, dict):
                num_containers += 1
                below.extend(item)
                below.extend(item.values())
            elif isinstance(item, list):
                num_containers += 1
                below.extend(item)
        if num_containers == 0:
            return
        level = below
    raise _too_deep()


def _check_text(text: str) -> None:
    if text.isascii():
        return
    try:
        text.encode()
    except UnicodeEncodeError:
        raise BadRequest(
            "a string has half of a surrogate pair, which is no character", code="invalid_unicode"
        ) from None


def _too_large(max_bytes: int) -> TooLarge:
    return TooLarge(f"the body is larger than {max_bytes} bytes", code="body_too_large")


def _too_deep() -> BadRequest:
    return BadRequest(f"the body is nested more than {MAX_DEPTH} deep", code="nested_too_deeply")
