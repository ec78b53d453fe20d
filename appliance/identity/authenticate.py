"""Request head -> Principal, or one refusal; the only place where a credential is taken from a request.

Steps:
1. Collect every credential the head carries, from every carrier.  Exactly one may be there, in a header.
2. Parse it: pattern and checksum.  Until here no database was asked.
3. Find the record by the public id; compare digests in constant time, an unknown id against a digest of nothing.
4. Only a proven secret is told apart further: environment, revocation, time.

The client learns one code for everything from step 2 on.  `AuthFailure.reason` and `key_id` are for the audit record.
Nothing is remembered between requests, so no two keys that share a prefix can share an identity.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote_to_bytes

from appliance.identity.api_keys import KEY_LIKE, MalformedKey, ParsedKey, Pepper, parse, secret_digest
from appliance.identity.key_record import KeyRecord
from appliance.identity.key_store import KeyStore
from appliance.identity.principal import Principal

_BEARER: Final = re.compile(rb"bearer +(?P<key>[!-~]+)", re.IGNORECASE)
_CARRIERS: Final = frozenset({b"authorization", b"x-api-key"})
_QUERY_NAMES: Final = frozenset(
    {b"access_token", b"api-key", b"api_key", b"apikey", b"authorization", b"key", b"token", b"x-api-key"}
)
_DAY_US: Final = 86_400_000_000
_ABSENT_DIGEST: Final = bytes(32)
"""Compared with when there is no record: no HMAC known to anyone gives it."""


@dataclass(frozen=True, slots=True)
class Authenticated:
    """The credential was proven."""

    principal: Principal


@dataclass(frozen=True, slots=True)
class AuthFailure:
    """Nobody was proven."""

    code: str
    """For the client: `missing_credential`, `multiple_credentials`, `credential_in_query`, `cookie_refused` or
    `invalid_api_key`."""
    message: str
    """For the client: what to do; the same for every `invalid_api_key`."""
    reason: str
    """For the audit record only."""
    key_id: str = ""
    """For the audit record only: the public id that was presented, once it had the right form."""


_MESSAGES: Final[Mapping[str, str]] = {
    "missing_credential": "Present an API key: `Authorization: Bearer cls_...` or `x-api-key: cls_...`.",
    "multiple_credentials": "Present exactly one credential, in one header, once.",
    "credential_in_query": "Present the API key in a header; a key in a URL has leaked: revoke it.",
    "cookie_refused": "This API takes no cookies; present an API key in a header.",
    "invalid_api_key": "The API key is not valid.",
}


class Authenticator:
    """Proves API keys against the key database."""

    def __init__(self, store: KeyStore, peppers: Sequence[Pepper], note_use: Callable[[KeyRecord, int], None]) -> None:
        """Prepare.

        Args:
            store: the key database.
            peppers: every pepper its records may name, the current one first.
            note_use: told of each proven key and the day, counted from 1970-01-01; must neither wait nor raise.
        """
        if not peppers:
            raise ValueError("no pepper: no key can be proven")
        self._store = store
        self._note_use = note_use
        self._current = peppers[0]
        self._peppers = {pepper.id: pepper for pepper in peppers}

    def authenticate(
        self, headers: Sequence[tuple[bytes, bytes]], query_string: bytes, now_us: int
    ) -> Authenticated | AuthFailure:
        """Find out who asks.

        Args:
            headers: the raw head, as in an ASGI scope.
            query_string: the raw query, not decoded.
            now_us: UTC, microseconds since 1970-01-01.

        Raises:
            KeyStoreError: the database cannot be used; the answer is 503, never a way in.
        """
        presented = _presented(headers, query_string)
        if isinstance(presented, AuthFailure):
            return presented
        key = parse(presented)
        if isinstance(key, MalformedKey):
            return _failure("invalid_api_key", "malformed")
        proven = self._prove(key, self._store.find(key.key_id), now_us)
        if isinstance(proven, str):
            return _failure("invalid_api_key", proven, key.key_id)
        self._note_use(proven, now_us // _DAY_US)
        return Authenticated(_principal(proven))

    def _prove(self, key: ParsedKey, record: KeyRecord | None, now_us: int) -> KeyRecord | str:
        """The record, or why the key proves nobody; one HMAC and one comparison whatever the answer."""
        pepper = self._peppers.get(record.pepper_id) if record else None
        expected = record.hmac if record and pepper else _ABSENT_DIGEST
        equal = hmac.compare_digest(secret_digest(pepper or self._current, key.secret), expected)
        if record is None:
            return "unknown"
        if pepper is None:
            return "unknown_pepper"
        if not equal:
            return "wrong_secret"
        return _standing(key, record, now_us) or record


def _standing(key: ParsedKey, record: KeyRecord, now_us: int) -> str | None:
    """Whether a proven key may be used here and now."""
    if key.env != record.env:
        return "wrong_environment"
    if record.revoked_at_us is not None:
        return "revoked"
    if now_us < record.not_before_us:
        return "not_yet_valid"
    if now_us >= record.expires_at_us:
        return "expired"
    return None


def _presented(headers: Sequence[tuple[bytes, bytes]], query_string: bytes) -> bytes | AuthFailure:
    """The one credential of a request, not yet parsed."""
    if _query_holds_key(query_string):
        return _failure("credential_in_query", "credential_in_query")
    lowered = [(name.lower(), value) for name, value in headers]
    if any(name == b"cookie" for name, _ in lowered):
        return _failure("cookie_refused", "cookie")
    found = [(name, value) for name, value in lowered if name in _CARRIERS]
    if not found:
        return _failure("missing_credential", "missing")
    if len(found) > 1:
        return _failure("multiple_credentials", "multiple")
    ((name, value),) = found
    if name == b"x-api-key":
        return value.strip(b" \t")
    bearer = _BEARER.fullmatch(value.strip(b" \t"))
    return bearer["key"] if bearer else _failure("invalid_api_key", "unsupported_scheme")


def _query_holds_key(query_string: bytes) -> bool:
    """A parameter with a credential's name, or a key of ours anywhere, in the clear or percent-encoded, even twice."""
    once = unquote_to_bytes(query_string)
    if any(KEY_LIKE.search(text) for text in (query_string, once, unquote_to_bytes(once))):
        return True
    names = (unquote_to_bytes(part.partition(b"=")[0]) for part in re.split(rb"[&;]", query_string))
    return any(name.strip().lower() in _QUERY_NAMES for name in names)


def _principal(record: KeyRecord) -> Principal:
    return Principal(
        id=record.owner,
        kind=record.kind,
        tenant=record.tenant,
        roles=record.roles,
        clearance=record.clearance,
        key_id=record.id,
    )


def _failure(code: str, reason: str, key_id: str = "") -> AuthFailure:
    return AuthFailure(code, _MESSAGES[code], reason, key_id)
