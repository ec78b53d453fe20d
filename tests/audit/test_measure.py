from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from audit_log_builder import START_US, build_log, event_now, make_event, request_events
from hypothesis import given
from hypothesis import strategies as st
from log_places import LogPlace

from audit.forecast import Forecast, forecast
from audit.location import PostgresLog
from audit.measure import DAY_US
from audit.reader import AuditReader
from audit.writer import AuditWriter

HOUR_US = 3_600_000_000
FIGURES = {
    "num_stored": 100,
    "used_bytes": 200_000,
    "free_bytes": 3_000_000,
    "volume_bytes": 10_000_000,
    "floor_bytes": 1_000_000,
    "num_recent": 50,
    "recent_us": DAY_US,
    "leaves_per_request": 2.0,
}


def spaced(num_leaves: int, step_us: int) -> list:
    """Give events at equal distances, the first at the start."""
    return [dataclasses.replace(make_event(number), ts_us=START_US + number * step_us) for number in range(num_leaves)]


def test_a_log_of_known_size_is_measured_as_it_is(tmp_path: Path) -> None:
    """Leaves of the last day by the clock given, kinds by their counts, bytes as the files have them."""
    path = tmp_path / "audit.db"
    build_log(path, spaced(48, HOUR_US), [48])
    with AuditReader(path) as reader:
        now_us = START_US + 48 * HOUR_US
        measure = reader.measure(now_us)
        (tmp_path / "audit.db-wal").exists()
    assert (measure.num_leaves, measure.num_stored) == (48, 48)
    assert (measure.num_recent, measure.recent_us) == (24, DAY_US)
    assert measure.kinds == {"request:admitted": 48}
    assert measure.used_bytes >= path.stat().st_size
    status = os.statvfs(tmp_path)
    assert measure.volume_bytes is not None
    assert measure.free_bytes is not None
    assert 0 < measure.free_bytes <= measure.volume_bytes <= status.f_blocks * status.f_frsize


def test_each_store_tells_its_own_size(place: LogPlace, open_writer: Callable[..., AuditWriter]) -> None:
    """Files and free disk where the log is a file, the server's own figure and no disk where it is not."""
    writer = open_writer()
    with AuditReader(place.reader) as reader:
        before = reader.measure(START_US)
        for future in [writer.submit(event_now(number, "log:read")) for number in range(2000)]:
            future.result()
        after = reader.measure(time.time_ns() // 1_000)
    assert (before.num_leaves, after.num_leaves, after.num_recent) == (0, 2000, 2000)
    assert after.kinds == {"log:read": 2000}
    assert after.used_bytes > before.used_bytes + 2000 * 300
    assert (after.free_bytes is None) == (after.volume_bytes is None) == isinstance(place.reader, PostgresLog)


def test_a_log_younger_than_a_day_counts_by_its_age(tmp_path: Path) -> None:
    """Ten leaves in ten hours are twenty-four a day."""
    path = tmp_path / "audit.db"
    build_log(path, spaced(10, HOUR_US), [10])
    with AuditReader(path) as reader:
        measure = reader.measure(START_US + 10 * HOUR_US)
    assert (measure.num_recent, measure.recent_us) == (10, 10 * HOUR_US)
    expected = forecast(**{**FIGURES, "num_recent": measure.num_recent, "recent_us": measure.recent_us})
    assert expected.leaves_per_day == pytest.approx(24)


def test_an_old_log_that_rests_has_no_recent_leaves(tmp_path: Path) -> None:
    """Nothing in the last day: no growth, no end in sight."""
    path = tmp_path / "audit.db"
    build_log(path, spaced(10, HOUR_US), [10])
    with AuditReader(path) as reader:
        measure = reader.measure(START_US + 100 * HOUR_US)
    assert measure.num_recent == 0
    assert forecast(**{**FIGURES, "num_recent": 0}).days_left is None


def test_an_empty_log_is_measured(tmp_path: Path) -> None:
    """Nothing is divided by nothing."""
    path = tmp_path / "audit.db"
    build_log(path, [], [])
    with AuditReader(path) as reader:
        measure = reader.measure(START_US)
    assert (measure.num_leaves, measure.num_recent, dict(measure.kinds)) == (0, 0, {})
    expected = forecast(**{**FIGURES, "num_stored": 0, "num_recent": 0, "leaves_per_request": None})
    assert (expected.bytes_per_leaf, expected.bytes_per_request, expected.days_left) == (None, None, None)


def test_kinds_are_counted_among_the_newest_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The figure costs the same at any size of the log."""
    path = tmp_path / "audit.db"
    older = [make_event(number, "log:read") for number in range(40)]
    newer = [make_event(number) for number in range(60)]
    monkeypatch.setattr("audit.measure.SAMPLE_LEN", len(newer))
    build_log(path, [*older, *newer], [len(older) + len(newer)])
    with AuditReader(path) as reader:
        assert reader.measure(START_US).kinds == {"request:admitted": 60}


def test_bytes_per_leaf_are_near_what_leaves_weigh(tmp_path: Path) -> None:
    """The store's overhead per leaf is bounded: columns, indexes and the tree's nodes."""
    path = tmp_path / "audit.db"
    events = request_events(600)
    build_log(path, events, [len(events)])
    with AuditReader(path) as reader:
        measure = reader.measure(START_US)
        num_leaf_bytes = sum(len(entry.leaf_bytes) for entry in reader.walk())
    assert num_leaf_bytes < measure.used_bytes < 8 * num_leaf_bytes


def test_the_forecast_is_plain_arithmetic() -> None:
    """2,000 bytes a leaf, 50 leaves a day, two million bytes above the floor: twenty days."""
    assert forecast(**FIGURES) == Forecast(
        bytes_per_leaf=2_000.0,
        leaves_per_day=50.0,
        bytes_per_day=100_000.0,
        bytes_per_request=4_000.0,
        fill_ratio=7 / 9,
        days_left=20.0,
    )


def test_a_disk_that_nobody_sees_has_no_forecast() -> None:
    """Another machine's: growth is told, an end is not."""
    expected = forecast(**{**FIGURES, "free_bytes": None, "volume_bytes": None})
    assert (expected.fill_ratio, expected.days_left, expected.bytes_per_day) == (None, None, 100_000.0)


@given(st.integers(0, 10**13), st.integers(0, 10**13), st.integers(0, 10**13))
def test_at_the_floor_the_disk_is_full(free_bytes: int, taken_bytes: int, floor_bytes: int) -> None:
    """At the floor and below it: full, and no days left; above it: not full."""
    expected = forecast(
        **{**FIGURES, "free_bytes": free_bytes, "volume_bytes": free_bytes + taken_bytes, "floor_bytes": floor_bytes}
    )
    assert expected.fill_ratio is not None
    assert (expected.fill_ratio >= 1) == (free_bytes <= floor_bytes)
    assert (expected.days_left == 0) == (free_bytes <= floor_bytes)
