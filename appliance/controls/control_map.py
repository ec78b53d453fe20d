"""Read the control map; whatever is not exactly of its form is refused.

Pure but for `read_control_map`, which reads the one packaged file.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from importlib.resources import files
from typing import Any

from appliance.audit_trail import Kind
from appliance.reports.registry import REPORTS

PROOFS: Mapping[str, str] = {
    "check-certificate": "an erasure's certificate, checked with the log's public key alone",
    "check-receipt": "a caller's receipt, checked with the log's public key alone",
    "evidence": "a pack that verifies on a machine without the product",
    "export": "the log as C2SP tlog-tiles for any verifier",
    "prove": "one record's inclusion proof",
    "reconcile": "requests and tokens against the engine's counters",
    "replay": "the recorded request, run again",
    "report check": "a report's file, checked with the log's public key alone",
    "siem-check": "the monitoring's copy, held against the log",
    "verify": "every leaf, node, head and request from bytes alone",
}
"""Verb of `cloister audit` -> what it proves."""


class ControlMapRefused(ValueError):
    """The map is not of its form; names the row."""


@dataclass(frozen=True, slots=True)
class Control:
    """One row."""

    id: str
    framework: str
    clause: str
    asks: str
    reports: tuple[str, ...]
    kinds: tuple[str, ...]
    """Kinds of record that it rests on, beside what the reports read."""
    proof: tuple[str, ...]
    source: str
    """How far the text of the control was read: a mark of `ControlMap.sources`."""
    limits: str


@dataclass(frozen=True, slots=True)
class ControlMap:
    """All rows of one version."""

    version: int
    as_of: str
    sources: Mapping[str, str]
    reading: str
    controls: tuple[Control, ...]

    def find(self, control_id: str) -> Control | None:
        """Give one row."""
        return next((control for control in self.controls if control.id == control_id), None)


def read_control_map() -> ControlMap:
    """Read the map of this release."""
    return parse_control_map(json.loads(files("appliance.controls").joinpath("control_map.json").read_bytes()))


def parse_control_map(value: Any) -> ControlMap:  # noqa: ANN401 - parsed JSON
    """Give the map.

    Raises:
        ControlMapRefused: a member is missing, unknown or of another type; an id stands twice; a report, a kind, a
            proof or a source mark does not exist.
    """
    members = _members(value, ControlMap, "the map")
    sources = members["sources"]
    if not isinstance(sources, dict) or not all(_is_text(part) for pair in sources.items() for part in pair):
        raise ControlMapRefused("the map: sources are texts by their marks")
    if type(members["version"]) is not int or not _is_text(members["as_of"]) or not _is_text(members["reading"]):
        raise ControlMapRefused("the map: version is a number, as_of and reading are texts")
    if not isinstance(members["controls"], list):
        raise ControlMapRefused("the map: controls are a list")
    controls = tuple(_control(row, sources) for row in members["controls"])
    if len({control.id for control in controls}) < len(controls):
        raise ControlMapRefused("the map: an id stands twice")
    return ControlMap(members["version"], members["as_of"], sources, members["reading"], controls)


def _control(value: Any, sources: Mapping[str, str]) -> Control:  # noqa: ANN401 - parsed JSON
    where = f"the row {value.get('id')!r}" if isinstance(value, dict) else "a row"
    row = _members(value, Control, where)
    lists = {name: row[name] for name in ("reports", "kinds", "proof")}
    texts = {name: row[name] for name in row if name not in lists}
    for name, text in texts.items():
        if not _is_text(text):
            raise ControlMapRefused(f"{where}: {name} is a text")
    for (name, items), known in zip(lists.items(), (REPORTS, {kind.value for kind in Kind}, PROOFS), strict=True):
        if not isinstance(items, list) or len(set(items)) < len(items) or (not items and name != "kinds"):
            raise ControlMapRefused(f"{where}: {name} is a list without repetitions")
        for item in items:
            if item not in known:
                raise ControlMapRefused(f"{where}: {name} names {item!r}, which does not exist")
    if row["source"] not in sources:
        raise ControlMapRefused(f"{where}: no source mark {row['source']!r}")
    return Control(
        id=row["id"],
        framework=row["framework"],
        clause=row["clause"],
        asks=row["asks"],
        reports=tuple(row["reports"]),
        kinds=tuple(row["kinds"]),
        proof=tuple(row["proof"]),
        source=row["source"],
        limits=row["limits"],
    )


def _members(value: Any, kind: type, where: str) -> dict[str, Any]:  # noqa: ANN401 - parsed JSON
    names = {field.name for field in fields(kind)}
    if not isinstance(value, dict) or value.keys() != names:
        raise ControlMapRefused(f"{where}: exactly these members: {', '.join(sorted(names))}")
    return value


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())
