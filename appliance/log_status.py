"""The log's condition in figures: what `cloister audit status` shows and what the capacity warnings go by.

Measured from the store itself and computed plainly; nothing here is an estimate but the forecast, which says the last
day goes on.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from appliance.audit_trail import PAIRING, Kind
from appliance.export_watch import failing_code
from audit.forecast import Forecast, forecast
from audit.measure import LogMeasure
from audit.store import Floors

if TYPE_CHECKING:
    from appliance.log_opening import OpenLog
    from appliance.settings import Settings
    from audit.reader import AuditReader

BEGINNINGS = (PAIRING.opening, Kind.REQUEST_DENIED.value, Kind.REQUEST_REFUSED.value)
"""Each request leaves exactly one of these."""


@dataclass(frozen=True, slots=True)
class Condition:
    """What was measured, and what it comes to."""

    measure: LogMeasure
    forecast: Forecast
    floors: Floors


def measure_condition(reader: AuditReader, now_us: int, floor_bytes: int) -> Condition:
    """Measure the log and compute the forecast."""
    measure = reader.measure(now_us)
    return Condition(
        measure,
        forecast(
            num_stored=measure.num_stored,
            used_bytes=measure.used_bytes,
            free_bytes=measure.free_bytes,
            volume_bytes=measure.volume_bytes,
            floor_bytes=floor_bytes,
            num_recent=measure.num_recent,
            recent_us=measure.recent_us,
            leaves_per_request=leaves_per_request(measure.kinds),
        ),
        reader.floors(),
    )


def leaves_per_request(kinds: Mapping[str, int]) -> float | None:
    """Give how many leaves a request leaves on the average, among those counted."""
    num_requests = sum(kinds.get(kind, 0) for kind in BEGINNINGS)
    num_leaves = sum(count for kind, count in kinds.items() if kind.startswith("request:"))
    return num_leaves / num_requests if num_requests else None


def status_body(log: OpenLog, condition: Condition, settings: Settings) -> dict[str, Any]:
    """Give everything as JSON."""
    now, deadline_s, floor_bytes = time.monotonic(), settings.siem_deadline_s, settings.min_free_bytes
    writer, measure, expected = log.writer, condition.measure, condition.forecast
    commit = log.activity.newest_commit
    state, floors = log.clock.state(), condition.floors
    return {
        "object": "log.status",
        "origin": writer.head.origin,
        "tree_size": writer.head.size,
        "root": writer.head.root.hex(),
        "node_id": writer.place.node_id,
        "boot_id": writer.place.boot_id,
        "epoch": writer.epoch,
        "writer": {
            "state": writer.state.value,
            "halt_reason": writer.halt_reason,
            "num_waiting": writer.num_waiting,
            "num_commits": log.activity.num_commits,
            "longest_wait_ms": round(log.activity.longest_wait_s * 1e3, 3),
            "last_commit": None
            if commit is None
            else {"at_us": commit.at_us, "ms": round(commit.seconds * 1e3, 3), "num_leaves": commit.num_leaves},
        },
        "size": {
            "used_bytes": measure.used_bytes,
            "num_stored": measure.num_stored,
            "bytes_per_leaf": _rounded(expected.bytes_per_leaf),
            "bytes_per_request": _rounded(expected.bytes_per_request),
            "leaves_per_day": _rounded(expected.leaves_per_day),
            "bytes_per_day": _rounded(expected.bytes_per_day),
        },
        "disk": {
            "free_bytes": measure.free_bytes,
            "floor_bytes": floor_bytes,
            "fill_ratio": _rounded(expected.fill_ratio, 6),
            "days_left": _rounded(expected.days_left, 1),
        },
        "retention": {"first_entry": floors.leaf, "first_content": floors.content},
        "clock": {
            "state": state.word,
            "max_error_us": state.max_error_us,
            "estimated_error_us": state.estimated_error_us,
        },
        "anchors": [
            {
                "sink": keeper.name,
                "size": keeper.status.size,
                "num_ahead": None if keeper.status.size is None else max(0, writer.head.size - keeper.status.size),
                "failing": keeper.status.code,
                "reason": keeper.status.reason or None,
            }
            for keeper in log.anchoring.keepers
        ],
        "exports": [
            {
                "destination": exporter.destination.text,
                "next_index": exporter.status.next_index,
                "num_behind": max(0, writer.head.size - exporter.status.next_index),
                "failing": failing_code(exporter.status, now, deadline_s),
                "reason": exporter.status.failure,
            }
            for exporter in log.exports.exporters
        ],
    }


def _rounded(value: float | None, digits: int = 1) -> float | None:
    return None if value is None else round(value, digits)
