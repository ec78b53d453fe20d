"""How long the disk lasts: plain arithmetic over measured figures.  Pure."""

from __future__ import annotations

from dataclasses import dataclass

_DAY_US = 86_400_000_000


@dataclass(frozen=True, slots=True)
class Forecast:
    """What the figures come to; None where there is nothing to divide by."""

    bytes_per_leaf: float | None
    """Everything that the store holds, by the leaves that it holds."""
    leaves_per_day: float
    """As the last day was, or the log's whole life where that is shorter."""
    bytes_per_day: float | None
    bytes_per_request: float | None
    """Of the log: the leaves that a request leaves behind on the average."""
    fill_ratio: float | None
    """How full the disk is on the way to the floor, whoever fills it: 1 and more at the floor."""
    days_left: float | None
    """Until the floor, at the last day's pace; None without an end in sight."""


def forecast(
    *,
    num_stored: int,
    used_bytes: int,
    free_bytes: int | None,
    volume_bytes: int | None,
    floor_bytes: int,
    num_recent: int,
    recent_us: int,
    leaves_per_request: float | None,
) -> Forecast:
    """Compute.

    Args:
        num_stored: leaves in the store.
        used_bytes: of the store.
        free_bytes: of its disk; None where that cannot be seen.
        volume_bytes: of its disk, used and free together; None likewise.
        floor_bytes: of free disk below which nothing is written.
        num_recent: leaves of the window.
        recent_us: length of the window, more than nothing.
        leaves_per_request: on the average; None where there was no request.
    """
    bytes_per_leaf = used_bytes / num_stored if num_stored else None
    leaves_per_day = num_recent * _DAY_US / recent_us
    bytes_per_day = None if bytes_per_leaf is None else bytes_per_leaf * leaves_per_day
    room = None if free_bytes is None else max(0, free_bytes - floor_bytes)
    return Forecast(
        bytes_per_leaf=bytes_per_leaf,
        leaves_per_day=leaves_per_day,
        bytes_per_day=bytes_per_day,
        bytes_per_request=(
            None if bytes_per_leaf is None or leaves_per_request is None else bytes_per_leaf * leaves_per_request
        ),
        fill_ratio=_fill_ratio(free_bytes, volume_bytes, floor_bytes),
        days_left=None if room is None or not bytes_per_day else room / bytes_per_day,
    )


def _fill_ratio(free_bytes: int | None, volume_bytes: int | None, floor_bytes: int) -> float | None:
    if free_bytes is None or volume_bytes is None:
        return None
    usable_bytes = volume_bytes - floor_bytes
    return (volume_bytes - free_bytes) / usable_bytes if usable_bytes > 0 else 1.0
