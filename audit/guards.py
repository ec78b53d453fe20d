"""What must still be true of the machine before and after each commit: the disk, the files, the clock.

Each check returns the reason to stop, or None.  They cost a few system calls per batch, never one per event.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from audit.slew import slew_allowance_us


@dataclass(frozen=True, slots=True)
class Clocks:
    """The two clocks of this machine."""

    wall_us: Callable[[], int]
    """UTC, microseconds since 1970-01-01."""
    monotonic_ns: Callable[[], int]


SYSTEM_CLOCKS = Clocks(wall_us=lambda: time.time_ns() // 1_000, monotonic_ns=time.monotonic_ns)


@dataclass(slots=True)
class ClockGuard:
    """Notices a clock that was set, forwards or backwards, between two batches."""

    clocks: Clocks
    limit_us: int
    _offset_us: int = field(init=False)
    """Wall minus monotonic: constant but for slew, unless someone sets the clock."""
    _read_ns: int = field(init=False)

    def __post_init__(self) -> None:
        """Take the first reading."""
        self._take_reading()

    def stepped(self) -> str | None:
        """Compare with the last reading, allowing for slew in between."""
        before_us, before_ns = self._offset_us, self._read_ns
        self._take_reading()
        step_us = self._offset_us - before_us
        if abs(step_us) > self.limit_us + slew_allowance_us(self._read_ns - before_ns):
            return f"the clock was set by {step_us / 1e6:+.3f} s"
        return None

    def disagrees(self, ts_us: int, monotonic_ns: int) -> bool:
        """Tell whether an event's two readings cannot have been taken together on this machine."""
        return abs(ts_us - monotonic_ns // 1_000 - self._offset_us) > self.limit_us

    def _take_reading(self) -> None:
        self._read_ns = self.clocks.monotonic_ns()
        self._offset_us = self.clocks.wall_us() - self._read_ns // 1_000


@dataclass(frozen=True, slots=True)
class FileGuard:
    """Notices that the open files are no longer the ones in the folder: writing on would write into nothing."""

    identities: tuple[tuple[Path, int, int], ...]

    @classmethod
    def of(cls, paths: tuple[Path, ...]) -> FileGuard:
        """Remember which files these are now."""
        statuses = [(path, path.stat()) for path in paths]
        return cls(tuple((path, status.st_dev, status.st_ino) for path, status in statuses))

    def replaced(self) -> str | None:
        """Compare each path's file with the remembered one."""
        for path, device, inode in self.identities:
            try:
                status = path.stat()
            except FileNotFoundError:
                return f"{path.name} was removed"
            except OSError as error:
                return f"{path.name} cannot be looked at: {error.strerror}"
            if (status.st_dev, status.st_ino) != (device, inode):
                return f"{path.name} was replaced by another file"
        return None


def disk_short(folder: Path, min_free_bytes: int) -> str | None:
    """Tell when less than the floor is free for an ordinary user."""
    try:
        status = os.statvfs(folder)
    except OSError as error:
        return f"{folder} cannot be looked at: {error.strerror}"
    free = status.f_bavail * status.f_frsize
    return f"{free} bytes are free, the floor is {min_free_bytes}" if free < min_free_bytes else None
