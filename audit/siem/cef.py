r"""ArcSight Common Event Format, version 0: one line of text.  Pure.

Escaping, as the format demands: in the header `\` and `|`; in the extension `\`, `=`, and line ends as `\n` and `\r`.
Every other control character, and every character that ends or turns a line on a screen, leaves as its visible
`\uXXXX`: what a client or an altered log wrote stays data.  Bounded: no event is longer than `MAX_CEF_BYTES`, however
long the leaf; a value that was cut ends in `...`, and the log has the whole of it under the index that goes along.
"""

from __future__ import annotations

import ipaddress
import re
import unicodedata
from collections.abc import Iterator

from audit.siem.exported import ExportedLeaf, LogName
from audit.siem.severity import severity_of

MAX_CEF_BYTES = 7_500
"""With the head of a syslog message still below the 8 KiB that most receivers take."""
_CUT = "..."
_HEADER_BYTES = 128
_VALUE_BYTES = 384
_STEERING = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Unicode categories that end a line, steer a terminal, or are no character at all."""
_PLAIN = re.compile(r"[ -<>-\[\]-{}~]*")
"""Printable ASCII without `\\`, `=` and `|`: most values, which need no escape in either place."""
_LABELS = (
    ("cs1", "leafHash"),
    ("cs2", "subject"),
    ("cs3", "tenant"),
    ("cs4", "modelRoot"),
    ("cs5", "policyDigest"),
    ("cs6", "bootId"),
    ("cn1", "epoch"),
    ("cn2", "promptTokens"),
    ("cn3", "completionTokens"),
)


def encode_cef(exported: ExportedLeaf, name: LogName) -> bytes:
    """Give one event, without a newline."""
    event = exported.leaf.event
    header = (
        *("CEF:0", "Cloister", "Cloister"),
        header_value(name.version),
        header_value(event.kind),
        header_value(event.kind.replace(":", " ").replace("_", " ")),
        str(severity_of(event.kind).cef),
    )
    extension = " ".join(f"{key}={extension_value(value)}" for key, value in _extension(exported, name))
    return f"{'|'.join(header)}|{extension}".encode()


def header_value(text: str) -> str:
    r"""Escape `\` and `|`; a line end has no form in a header, so it is shown like every other control character."""
    return _escaped(text, {"\\": "\\\\", "|": "\\|"}, _HEADER_BYTES)


def extension_value(text: str) -> str:
    r"""Escape `\`, `=` and line ends."""
    return _escaped(text, {"\\": "\\\\", "=": "\\=", "\n": "\\n", "\r": "\\r"}, _VALUE_BYTES)


def _extension(exported: ExportedLeaf, name: LogName) -> Iterator[tuple[str, str]]:
    """Give keys of the format's dictionary with their values; what the leaf does not say is left out."""
    leaf, event = exported.leaf, exported.leaf.event
    values: dict[str, str | int | None] = {
        "rt": event.ts_us // 1_000,
        "externalId": exported.index,
        "deviceExternalId": leaf.place.node_id,
        "dvchost": name.origin,
        "cat": event.kind.partition(":")[0],
        "suser": event.actor,
        "spriv": event.role,
        **_source(exported.text_fact("source")),
        "request": exported.text_fact("route"),
        "act": exported.text_fact("decision"),
        "outcome": exported.text_fact("outcome"),
        "reason": exported.text_fact("code") or exported.text_fact("reason"),
        "cs1": exported.leaf_hash,
        "cs2": event.subject,
        "cs3": event.tenant,
        "cs4": exported.text_fact("model_root"),
        "cs5": exported.text_fact("policy_digest"),
        "cs6": leaf.place.boot_id,
        "cn1": leaf.place.epoch,
        "cn2": exported.count_fact("prompt_tokens"),
        "cn3": exported.count_fact("completion_tokens"),
    }
    labels = dict(_LABELS)
    for key, value in values.items():
        if value is None or value == "":
            continue
        yield key, str(value)
        if key in labels:
            yield f"{key}Label", labels[key]


def _source(address: str | None) -> dict[str, str | int | None]:
    """Give the caller's address under the key of its family: `src` takes IPv4 alone."""
    if address is None:
        return {}
    try:
        version = ipaddress.ip_address(address).version
    except ValueError:
        return {"shost": address}
    return {"src": address} if version == 4 else {"c6a2": address, "c6a2Label": "Source IPv6 Address"}  # noqa: PLR2004


def _escaped(text: str, escapes: dict[str, str], max_bytes: int) -> str:
    """Escape character by character, so that a cut falls between two of them and never inside an escape."""
    if len(text) <= max_bytes and _PLAIN.fullmatch(text):
        return text
    parts: list[str] = []
    room = max_bytes
    for character in text:
        shown = escapes.get(character) or _visible(character)
        room -= len(shown.encode())
        if room < 0:
            return _with_cut_mark(parts, max_bytes)
        parts.append(shown)
    return "".join(parts)


def _with_cut_mark(parts: list[str], max_bytes: int) -> str:
    num_bytes = sum(len(part.encode()) for part in parts)
    while num_bytes > max_bytes - len(_CUT):
        num_bytes -= len(parts.pop().encode())
    return "".join(parts) + _CUT


def _visible(character: str) -> str:
    if unicodedata.category(character) not in _STEERING:
        return character
    return f"\\\\u{ord(character):04x}"
