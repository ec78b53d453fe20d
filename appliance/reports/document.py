"""A report's one byte form: what was asked, of which log, and what came of it.

Pure.  The digest over `canonical_json` of the document is what the log records, so the document is what is signed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from appliance.reports.registry import Parameters, ReportSpec
from audit.event import JsonValue
from audit.search.expression import shown_time

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

FORMAT, FORMAT_VERSION = "cloister-report", 1


def query_of(spec: ReportSpec, from_us: int, until_us: int, parameters: Parameters) -> dict[str, JsonValue]:
    """Give what was asked; its digest is recorded before a row is read."""
    taken: dict[str, JsonValue] = {name: getattr(parameters, name) for name in spec.takes}
    return {
        "from": shown_time(from_us),
        "parameters": taken,
        "report": spec.id,
        "report_version": spec.version,
        "until": shown_time(until_us),
    }


def document_of(
    spec: ReportSpec, query: Mapping[str, JsonValue], origin: str, size: int, result: DataclassInstance
) -> dict[str, Any]:
    """Give the report."""
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "log": {"origin": origin, "size": size},
        "query": dict(query),
        "result": dataclasses.asdict(result),
        "title": spec.title,
    }
