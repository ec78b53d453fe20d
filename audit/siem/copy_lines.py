"""Read an event of a copy back: which leaf it says it is.  Pure.

Takes what the encoders give, bare or wrapped as a syslog message by us or by a receiver that put its own head before
it.  Where the event holds the whole leaf, the hash is made from that content, so that an altered copy is seen and not
just an altered hash.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

import rfc8785

from audit.event import MAX_LEAF_BYTES
from audit.merkle import leaf_hash

_CEF = re.compile(r"CEF:0\|(?:[^\\|]|\\.){0,200}?\|")
_PAIR = re.compile(r"(?:^| )(externalId|cs1|cs1Label)=((?:\\.|[^\\=])*?)(?= [A-Za-z0-9]+=|$)")
_HASH = re.compile(r"[0-9a-f]{64}")
_MAX_INDEX = 2**53 - 1
MAX_LINE_BYTES = 8 * MAX_LEAF_BYTES
"""OCSF spells a character beyond ASCII with six."""


@dataclass(frozen=True, slots=True)
class CopiedEvent:
    """What one line says."""

    index: int
    leaf_hash: str
    content_hash: str | None
    """Leaf hash of the leaf that the line holds; None where the format holds no whole leaf."""


class NotAnEvent(Exception):
    """The line is no event of ours; says why."""


def read_line(line: bytes) -> CopiedEvent:
    """Read one line.

    Raises:
        NotAnEvent: it is none.
    """
    if len(line) > MAX_LINE_BYTES:
        raise NotAnEvent(f"{len(line)} bytes are more than any event has")
    try:
        text = line.decode()
    except UnicodeDecodeError as error:
        raise NotAnEvent("not UTF-8") from error
    cef = _CEF.search(text)
    if cef is not None:
        return _read_cef(text[cef.start() :])
    start = text.find("{")
    if start < 0:
        raise NotAnEvent("neither CEF nor JSON")
    return _read_json(text[start:])


def _read_cef(text: str) -> CopiedEvent:
    extension = re.split(r"(?<!\\)(?:\\\\)*\|", text, maxsplit=7)[-1]
    found = dict(_PAIR.findall(extension))
    if found.get("cs1Label") != "leafHash":
        raise NotAnEvent("a CEF event without our leaf hash")
    return _event(found.get("externalId", ""), found.get("cs1"), None)


def _read_json(text: str) -> CopiedEvent:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise NotAnEvent("no whole JSON object") from error
    if not isinstance(found, dict):
        raise NotAnEvent("no JSON object")
    if "leaf" in found:
        return _event(found.get("index"), found.get("leaf_hash"), _content_hash(found["leaf"]))
    metadata = found.get("metadata")
    if isinstance(metadata, dict) and metadata.get("log_provider") == "cloister":
        return _event(metadata.get("sequence"), metadata.get("uid"), None)
    raise NotAnEvent("a JSON object of another kind")


def _content_hash(leaf: object) -> str:
    try:
        return leaf_hash(rfc8785.dumps(leaf)).hex()  # type: ignore[arg-type]  # anything JSON gave, or it is refused
    except (rfc8785.CanonicalizationError, UnicodeEncodeError, RecursionError) as error:
        raise NotAnEvent("its leaf has no canonical form") from error


def _event(index: object, digest: object, content_hash: str | None) -> CopiedEvent:
    if isinstance(index, str) and index.isascii() and index.isdigit() and len(index) <= len(str(_MAX_INDEX)):
        index = int(index)
    if type(index) is not int or not 0 <= index <= _MAX_INDEX:
        raise NotAnEvent("no index")
    if not isinstance(digest, str) or not _HASH.fullmatch(digest):
        raise NotAnEvent("no leaf hash")
    return CopiedEvent(index, digest, content_hash)
