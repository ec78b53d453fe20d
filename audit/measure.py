"""How large a log is, and how it has grown: figures out of the store itself, cheap at any size.

Nothing is counted row by row: the day's leaves are a difference of two indexes, kinds are counted among the newest
leaves alone.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection, func, select

from audit.location import LogLocation
from audit.schema import leaf_table
from audit.store import stored_floors

DAY_US = 86_400_000_000
SAMPLE_LEN = 10_000
"""Newest leaves among which kinds are counted."""
_POSTGRES_BYTES = (
    "SELECT coalesce(sum(pg_total_relation_size(c.oid)), 0)::bigint FROM pg_class c"
    " JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = 'cloister' AND c.relkind = 'r'"
)


@dataclass(frozen=True, slots=True)
class LogMeasure:
    """One log at one moment."""

    num_leaves: int
    """Of the signed tree."""
    num_stored: int
    """Leaves that are here; fewer where the log was pruned."""
    used_bytes: int
    free_bytes: int | None
    """That an ordinary user may still fill; None where the disk is another machine's."""
    volume_bytes: int | None
    """Of the disk, what is used by whomever and what is free; None likewise."""
    num_recent: int
    """Leaves of the last day."""
    recent_us: int
    """How long that is: a day, or the age of a younger log."""
    kinds: Mapping[str, int]
    """Kind -> how many of the newest leaves are of it."""


def measure_log(connection: Connection, location: LogLocation, size: int, now_us: int) -> LogMeasure:
    """Measure, inside the caller's one consistent state of a log of `size` leaves."""
    floor = stored_floors(connection).leaf
    first_recent, since_us = _recent(connection, now_us - DAY_US)
    kinds = connection.execute(
        select(leaf_table.c.kind, func.count())
        .where(leaf_table.c.idx >= max(floor, size - SAMPLE_LEN))
        .group_by(leaf_table.c.kind)
        .order_by(leaf_table.c.kind)
    )
    used_bytes, free_bytes, volume_bytes = _space(connection, location)
    return LogMeasure(
        num_leaves=size,
        num_stored=size - floor,
        used_bytes=used_bytes,
        free_bytes=free_bytes,
        volume_bytes=volume_bytes,
        num_recent=0 if first_recent is None else size - first_recent,
        recent_us=max(1, now_us - since_us),
        kinds={str(kind): int(count) for kind, count in kinds},
    )


def _recent(connection: Connection, since_us: int) -> tuple[int | None, int]:
    """Return the first leaf of the window and where the window begins: at the log's own beginning if that is later."""
    columns = (leaf_table.c.idx, leaf_table.c.ts_us)
    oldest = connection.execute(select(*columns).order_by(leaf_table.c.idx).limit(1)).one_or_none()
    if oldest is None:
        return None, since_us
    if oldest.ts_us >= since_us:
        return oldest.idx, oldest.ts_us
    first = connection.execute(
        select(leaf_table.c.idx).where(leaf_table.c.ts_us >= since_us).order_by(leaf_table.c.ts_us).limit(1)
    ).scalar_one_or_none()
    return first, since_us


def _space(connection: Connection, location: LogLocation) -> tuple[int, int | None, int | None]:
    if not isinstance(location, Path):
        return int(connection.exec_driver_sql(_POSTGRES_BYTES).scalar_one()), None, None
    files = (location, location.with_name(location.name + "-wal"))
    used_bytes = sum(file.stat().st_size for file in files if file.exists())
    status = os.statvfs(location.parent)
    taken = (status.f_blocks - status.f_bfree) * status.f_frsize
    free_bytes = status.f_bavail * status.f_frsize
    return used_bytes, free_bytes, taken + free_bytes
