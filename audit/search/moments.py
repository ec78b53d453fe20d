"""A point of time as people write it, as the stretch of microseconds that it names.

Pure.  `2026-11-01` is a day, `2026-11-01T08` an hour, `2026-11-01T08:30` a minute; seconds may have up to six digits
after the point.  UTC, unless an offset such as `+02:00` is written.
"""

from __future__ import annotations

import datetime as dt
import re

from audit.search.fields import RANGE_END

_FORM = re.compile(
    r"(\d{4})-(\d\d)(?:-(\d\d)(?:[Tt](\d\d)(?::(\d\d)(?::(\d\d)(?:\.(\d{1,6}))?)?)?)?)?([Zz]|[+-]\d\d:\d\d)?", re.ASCII
)
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_US = 1_000_000
_DECEMBER = 12


def moment(text: str) -> tuple[int, int]:
    """Return the first microsecond and the one after the last.

    Raises:
        ValueError: not a time, or one that no leaf can have.
    """
    match = _FORM.fullmatch(text)
    if match is None:
        raise ValueError("a time is written as 2026-11-01, 2026-11-01T08:30 or 2026-11-01T08:30:15.250Z, in UTC")
    year, month, day, hour, minute, second, fraction, offset = match.groups()
    if hour is None and offset not in (None, "Z", "z"):
        raise ValueError("an offset needs an hour")
    microsecond = int((fraction or "").ljust(6, "0"))
    start = dt.datetime(int(year), int(month), int(day or 1), tzinfo=_zone(offset)) + dt.timedelta(
        hours=_below(24, hour), minutes=_below(60, minute), seconds=_below(60, second), microseconds=microsecond
    )
    low = (start - _EPOCH) // dt.timedelta(microseconds=1)
    high = low + _length_us(start, day, hour, minute, second, fraction)
    if low < 0 or high > RANGE_END:
        raise ValueError("the time is outside what a log can hold")
    return low, high


def _below(limit: int, part: str | None) -> int:
    if part is not None and int(part) >= limit:
        raise ValueError(f"{part} is none of {limit}, counted from 0")
    return int(part or 0)


def _zone(offset: str | None) -> dt.timezone:
    if offset in (None, "Z", "z"):
        return dt.UTC
    assert offset is not None
    hours, minutes = int(offset[1:3]), int(offset[4:6])
    if hours > 23 or minutes > 59:  # noqa: PLR2004 - of a day and of an hour
        raise ValueError("an offset is at most +23:59")
    return dt.timezone((1 if offset[0] == "+" else -1) * dt.timedelta(hours=hours, minutes=minutes))


def _length_us(
    start: dt.datetime, day: str | None, hour: str | None, minute: str | None, second: str | None, fraction: str | None
) -> int:
    if fraction is not None:
        return int(10 ** (6 - len(fraction)))
    if day is None:
        after = (start.year + 1, 1) if start.month == _DECEMBER else (start.year, start.month + 1)
        return (dt.datetime(*after, 1, tzinfo=dt.UTC) - start) // dt.timedelta(microseconds=1)
    for part, seconds in ((second, 1), (minute, 60), (hour, 3600)):
        if part is not None:
            return seconds * _US
    return 86_400 * _US
