"""What our own signed statements share: in-toto Statement v1, canonical bytes, times and digests in one form.

Laws: a statement's bytes are the canonical text of their value, so that people who sign the same thing sign the same
bytes; a time is RFC 3339 UTC in whole seconds, `2030-01-31T00:00:00Z`; it is past its end from that very second on.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from offline_bundle.errors import DocumentRefused, Expired
from offline_bundle.strict_json import Fields, Json, canonical, parse

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
MAX_STATEMENT_BYTES = 4 * 2**20
_SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)
_TIME_FORMAT = "%Y-%m-%dT%H:%M:%SZ"
_HINT = "make and sign the document again"


def is_sha256(text: str) -> bool:
    """Tell whether a text is 64 lower-case hexadecimal digits, which is safe as a file name too."""
    return _SHA256.fullmatch(text) is not None


def encode_statement(subjects: Mapping[str, str], predicate_type: str, predicate: dict[str, Json]) -> bytes:
    """The canonical bytes of a statement about named SHA-256 digests."""
    return canonical(
        {
            "_type": STATEMENT_TYPE,
            "subject": [{"name": name, "digest": {"sha256": subjects[name]}} for name in sorted(subjects)],
            "predicateType": predicate_type,
            "predicate": predicate,
        }
    )


def decode_statement(payload: bytes, document: str, predicate_type: str) -> tuple[dict[str, str], Fields]:
    """The subjects and the predicate of a statement whose signature was checked."""
    statement = Fields(parse_canonical(payload, document), document)
    if statement.text("_type") != STATEMENT_TYPE or statement.text("predicateType") != predicate_type:
        raise DocumentRefused(document, f"not a statement of type {predicate_type}", hint="is it the right file?")
    subjects = _read_subjects(statement.items("subject"), document)
    predicate = statement.fields("predicate")
    statement.end()
    return subjects, predicate


def parse_canonical(payload: bytes, document: str) -> dict[str, Json]:
    """Parse signed bytes of ours; any text but the canonical one is refused."""
    value = parse(payload, document, max_bytes=MAX_STATEMENT_BYTES)
    if canonical(value) != payload:
        raise DocumentRefused(document, "not in canonical form", hint=_HINT)
    return value


def parse_time(text: str, document: str) -> datetime:
    """A time in our one form."""
    try:
        moment = datetime.strptime(text, _TIME_FORMAT).replace(tzinfo=UTC)
    except ValueError as error:
        raise DocumentRefused(document, f"{text!a} is not a time like 2030-01-31T00:00:00Z", hint=_HINT) from error
    if format_time(moment) != text:
        raise DocumentRefused(document, f"{text!a} is not a time like 2030-01-31T00:00:00Z", hint=_HINT)
    return moment


def format_time(moment: datetime) -> str:
    """Our one form of a time; the moment must know its zone."""
    if moment.tzinfo is None:
        raise ValueError("a moment without a time zone is ambiguous")
    return moment.astimezone(UTC).replace(microsecond=0).isoformat().replace("+00:00", "Z")


def check_not_expired(expires_at: str, document: str, now: datetime) -> None:
    """Refuse a document from the second of its expiry on."""
    if now >= parse_time(expires_at, document):
        raise Expired(document, expires_at=expires_at, now=format_time(now))


def _read_subjects(entries: Sequence[Json], document: str) -> dict[str, str]:
    subjects: dict[str, str] = {}
    for entry in entries:
        fields = Fields(entry, document, "subject")
        name, digest = fields.text("name"), fields.fields("digest")
        sha256 = digest.text("sha256")
        digest.end()
        fields.end()
        if name in subjects or not is_sha256(sha256):
            raise DocumentRefused(document, f"the subject {name!a} stands twice or has no SHA-256", hint=_HINT)
        subjects[name] = sha256
    if not subjects or list(subjects) != sorted(subjects):
        raise DocumentRefused(document, "its subjects are missing or not in order", hint=_HINT)
    return subjects
