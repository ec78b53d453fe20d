"""A leaf: one event at its place, as one canonical JSON object (RFC 8785) of at most 65,535 bytes.

Pure.  Laws: one value has one byte form, and `decode_leaf` accepts that form alone; the projected columns are a
function of the leaf, so a verifier can recompute every one of them; a leaf names the size of the signed tree it was
appended to (`head`), so that no checkpoint can vanish unnoticed either.

`mono_ns` is a decimal string: RFC 8785 numbers are doubles, and 2**53 nanoseconds pass in 104 days of uptime.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NoReturn, TypeAlias

import rfc8785

from audit.beside import policy_ids
from audit.errors import AuditRefused, ProofRefused
from audit.event import MAX_LEAF_BYTES, Event, Floor, JsonValue, SealedContent

LEAF_VERSION = 1
MAX_SAFE_INTEGER = 2**53 - 1
MAX_MONOTONIC_NS = 2**63 - 1
MAX_DEPTH = 16
_LEAST_PLAIN_FRACTION = 1e-4
_EXPONENT = "e-"

_KIND = re.compile(r"[a-z_]+:[a-z_]+")
_FACT_NAME = re.compile(r"[a-z][a-z0-9_]*")
_MEMBERS = frozenset(
    "v index head kind ts_us mono_ns boot_id node_id epoch actor role tenant subject facts".split()  # noqa: SIM905
)
_MAX_MONO_DIGITS = 19
_TEXT_FIELDS = ("kind", "actor", "role", "tenant", "subject")
_PROJECTED_FACTS = ("route", "model_root", "decision", "outcome", "label")
LEAF_COLUMNS = (
    *("idx", "head", "leaf_bytes", "leaf_hash"),
    *("kind", "ts_us", "epoch", "actor", "role", "tenant", "subject", *_PROJECTED_FACTS),
)
"""What is stored of a leaf, in the order of the table."""
MAX_PROJECTED_BYTES = 1_024
"""Of a text that is searched by, in UTF-8: an index entry must fit a database page wherever the log lies."""

PlainJson: TypeAlias = "bool | int | float | str | list[PlainJson] | dict[str, PlainJson] | None"


@dataclass(frozen=True, slots=True)
class Place:
    """What the writer knows and the caller does not."""

    node_id: str
    boot_id: str
    epoch: int
    """Grows with every opening of the log for writing."""


@dataclass(frozen=True, slots=True)
class Leaf:
    """A decoded leaf."""

    index: int
    head: int
    """Size of the last signed tree before the batch that brought this leaf."""
    place: Place
    event: Event

    def columns(self) -> dict[str, int | str | None]:
        """Return the stored columns that this leaf implies."""
        return {"idx": self.index, "head": self.head, **project(self.event, self.place)}


@dataclass(frozen=True, slots=True)
class DraftLeaf:
    """A leaf that waits for its place: encoded once, in the caller's thread, around the two numbers still missing."""

    before: bytes
    after: bytes
    event: Event
    columns: Mapping[str, int | str | None]
    policy_ids: tuple[str, ...] = ()
    """By which the leaf is found, beside its columns."""
    contents: tuple[SealedContent, ...] = ()
    """Committed beside the leaf."""
    floor: Floor | None = None
    """Rises with this leaf."""

    def encode(self, index: int, head: int) -> bytes:
        """Return the leaf's bytes; `facts < head < index < kind` in canonical order."""
        return b'%b"head":%d,"index":%d,%b' % (self.before, head, index, self.after)


def draft_leaf(
    event: Event, place: Place, *, contents: Sequence[SealedContent] = (), floor: Floor | None = None
) -> DraftLeaf:
    """Check and encode an event, or refuse it with the rule that it breaks.

    Contents and floor are those that the event's facts speak of already (`beside.bind_contents`, `beside.bind_floor`).
    """
    _check_event(event)
    found_by = policy_ids(event)
    columns = project(event, place)
    for name, value in [*columns.items(), *(("policy id", policy_id) for policy_id in found_by)]:
        if isinstance(value, str):
            _check_searched(name, value)
    before: dict[str, PlainJson] = {
        "actor": event.actor,
        "boot_id": place.boot_id,
        "epoch": place.epoch,
        "facts": {name: _plain(value, name, 1) for name, value in event.facts.items()},
    }
    after: dict[str, PlainJson] = {
        "kind": event.kind,
        "mono_ns": str(event.monotonic_ns),
        "node_id": place.node_id,
        "role": event.role,
        "subject": event.subject,
        "tenant": event.tenant,
        "ts_us": event.ts_us,
        "v": LEAF_VERSION,
    }
    head_text, tail_text = _canonical(before), _canonical(after)
    draft = DraftLeaf(head_text[:-1] + b",", tail_text[1:], event, columns, found_by, tuple(contents), floor)
    num_bytes = len(draft.encode(MAX_SAFE_INTEGER, MAX_SAFE_INTEGER))
    if num_bytes > MAX_LEAF_BYTES:
        raise AuditRefused(f"the event needs {num_bytes} bytes; a leaf has at most {MAX_LEAF_BYTES}")
    return draft


def decode_leaf(leaf_bytes: bytes) -> Leaf:
    """Decode strictly: the bytes must be the one canonical form of a valid leaf."""
    if len(leaf_bytes) > MAX_LEAF_BYTES:
        raise ProofRefused(f"a leaf of {len(leaf_bytes)} bytes; the limit is {MAX_LEAF_BYTES}")
    try:
        parsed = _DECODER.decode(leaf_bytes.decode())
    except (ValueError, RecursionError) as error:
        raise ProofRefused("the leaf is not one JSON object in UTF-8") from error
    if not isinstance(parsed, dict) or parsed.keys() != _MEMBERS or parsed["v"] != LEAF_VERSION:
        raise ProofRefused("the leaf does not have exactly the members of version 1")
    index, head, epoch = (_number(parsed, name) for name in ("index", "head", "epoch"))
    mono = _text(parsed, "mono_ns")
    if not (mono.isascii() and mono.isdigit()) or len(mono) > _MAX_MONO_DIGITS:
        raise ProofRefused("the leaf's mono_ns is not a decimal number")
    facts = parsed["facts"]
    if not isinstance(facts, dict):
        raise ProofRefused("the leaf's facts are not an object")
    event = Event(
        kind=_text(parsed, "kind"),
        ts_us=_number(parsed, "ts_us"),
        monotonic_ns=int(mono),
        actor=_text(parsed, "actor"),
        role=_text(parsed, "role"),
        tenant=_text(parsed, "tenant"),
        subject=_text(parsed, "subject"),
        facts=facts,
    )
    place = Place(_text(parsed, "node_id"), _text(parsed, "boot_id"), epoch)
    try:
        canonical = draft_leaf(event, place).encode(index, head)
    except AuditRefused as error:
        raise ProofRefused(f"the leaf breaks a rule: {error.what}") from error
    if canonical != leaf_bytes:
        raise ProofRefused("the leaf is not in canonical form")
    return Leaf(index, head, place, event)


def project(event: Event, place: Place) -> dict[str, int | str | None]:
    """Return the searchable columns of an event; a fact that is not a string is not projected."""
    columns: dict[str, int | str | None] = {
        "kind": event.kind,
        "ts_us": event.ts_us,
        "epoch": place.epoch,
        "actor": event.actor,
        "role": event.role,
        "tenant": event.tenant,
        "subject": event.subject,
    }
    for name in _PROJECTED_FACTS:
        value = event.facts.get(name)
        columns[name] = value if isinstance(value, str) else None
    return columns


def fact_text(value: JsonValue) -> str:
    """Write a fact of a decoded leaf in its one form."""
    return _canonical(_plain(value, "the value", 0)).decode()


def _check_event(event: Event) -> None:
    for name in _TEXT_FIELDS:
        if not isinstance(getattr(event, name), str):
            raise AuditRefused(f"the event's {name} is not text")
    if not _KIND.fullmatch(event.kind):
        raise AuditRefused(f"the kind {event.kind!r} is not of the form subject:action")
    if not _in_range(event.ts_us, MAX_SAFE_INTEGER) or not _in_range(event.monotonic_ns, MAX_MONOTONIC_NS):
        raise AuditRefused("the event's clock readings are out of range")
    if not event.actor:
        raise AuditRefused("the event has no actor")
    names: Iterable[object] = event.facts
    for fact in names:
        if not isinstance(fact, str) or not _FACT_NAME.fullmatch(fact):
            raise AuditRefused(f"the fact name {fact!r} is not snake_case")


def _check_searched(name: str, value: str) -> None:
    if "\0" in value:
        raise AuditRefused(f"the {name} holds a zero character, which not every database can")
    if len(value.encode(errors="surrogatepass")) > MAX_PROJECTED_BYTES:
        raise AuditRefused(f"the {name} is longer than {MAX_PROJECTED_BYTES} bytes")


def _in_range(value: object, highest: int) -> bool:
    return type(value) is int and 0 <= value <= highest


def _plain(value: object, where: str, depth: int) -> PlainJson:
    """Copy a fact into plain JSON types, so that what is hashed can no longer change under us."""
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, int):
        if abs(value) > MAX_SAFE_INTEGER:
            raise AuditRefused(f"the number in {where} has no exact JSON form", hint="write it as a string")
        return value
    if isinstance(value, float):
        if not math.isfinite(value) or abs(value) > MAX_SAFE_INTEGER:
            raise AuditRefused(f"the number in {where} has no exact JSON form", hint="write it as a string")
        return int(value) if value.is_integer() else value  # one JSON number, 1.0 and 1 alike
    if depth > MAX_DEPTH:
        raise AuditRefused(f"{where} is nested more than {MAX_DEPTH} deep")
    if isinstance(value, Mapping):
        for name in value:
            if not isinstance(name, str) or not name.isascii():
                raise AuditRefused(f"a member name in {where} is not ASCII text")
        return {name: _plain(member, where, depth + 1) for name, member in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item, where, depth + 1) for item in value]
    raise AuditRefused(f"{where} holds a {type(value).__name__}, which is not JSON")


def _canonical(value: PlainJson) -> bytes:
    """RFC 8785 bytes, where possible from the standard encoder, which gives the same bytes several times sooner.

    Member names are ASCII here, so sorting by code point is sorting by UTF-16 unit; and from 0.0001 up to 2**53 Python
    writes a fraction as RFC 8785 does; a smaller one it writes with an exponent, as nothing else but text can look.  A
    property test holds both encoders equal.
    """
    try:
        encoded = _ENCODER.encode(value)
        if _EXPONENT in encoded and _has_tiny_fraction(value):
            return rfc8785.dumps(value)
        return encoded.encode()
    except (UnicodeEncodeError, rfc8785.CanonicalizationError) as error:
        raise AuditRefused("the event holds text that is not valid Unicode") from error


def _has_tiny_fraction(value: PlainJson) -> bool:
    if isinstance(value, dict):
        return any(_has_tiny_fraction(member) for member in value.values())
    if isinstance(value, list):
        return any(_has_tiny_fraction(item) for item in value)
    return isinstance(value, float) and abs(value) < _LEAST_PLAIN_FRACTION


def _unique(pairs: list[tuple[str, PlainJson]]) -> dict[str, PlainJson]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a member name appears twice")
    return members


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False, sort_keys=True, separators=(",", ":"))
_DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_refuse_constant)


def _number(parsed: Mapping[str, PlainJson], name: str) -> int:
    value = parsed[name]
    if type(value) is not int or not 0 <= value <= MAX_SAFE_INTEGER:
        raise ProofRefused(f"the leaf's {name} is not a number in range")
    return value


def _text(parsed: Mapping[str, PlainJson], name: str) -> str:
    value = parsed[name]
    if not isinstance(value, str):
        raise ProofRefused(f"the leaf's {name} is not text")
    return value
