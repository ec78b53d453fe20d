"""Whether this machine's clock is kept by a time source, as the kernel tells it: read, never set.

`adjtimex(2)` with nothing to change is a few microseconds and needs no right; it tells what chrony, ntpd or
systemd-timesyncd told the kernel.  Where it cannot be asked (another system, a sandbox that forbids the call) the state
is `unknown`, never guessed.
"""

from __future__ import annotations

import ctypes
import errno
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

STATES = ("synchronised", "unsynchronised", "unknown")
_STA_UNSYNC = 0x0040
_TIME_ERROR = 5
_MAX_AGE_S = 2.0


@dataclass(frozen=True, slots=True)
class ClockState:
    """As the kernel sees its clock."""

    word: str
    """One of `STATES`."""
    max_error_us: int | None = None
    """The kernel's bound; it grows while nobody corrects the clock."""
    estimated_error_us: int | None = None


UNKNOWN = ClockState("unknown")


class _Timex(ctypes.Structure):
    """`struct timex` of Linux, with the padding that the kernel writes over."""

    _fields_: ClassVar = [
        ("modes", ctypes.c_uint),
        *((name, ctypes.c_long) for name in ("offset", "freq", "maxerror", "esterror")),
        ("status", ctypes.c_int),
        *((name, ctypes.c_long) for name in ("constant", "precision", "tolerance", "seconds", "fraction", "tick")),
        *((name, ctypes.c_long) for name in ("ppsfreq", "jitter")),
        ("shift", ctypes.c_int),
        *((name, ctypes.c_long) for name in ("stabil", "jitcnt", "calcnt", "errcnt", "stbcnt")),
        ("tai", ctypes.c_int),
        ("padding", ctypes.c_int * 11),
    ]


def read_clock_state() -> ClockState:
    """Ask the kernel."""
    try:
        library = ctypes.CDLL(None, use_errno=True)
        adjtimex = library.adjtimex
    except (OSError, AttributeError):
        return UNKNOWN
    answer = _Timex()
    result = adjtimex(ctypes.byref(answer))
    if result < 0:
        code = ctypes.get_errno()
        if code in (errno.EPERM, errno.ENOSYS, errno.EACCES):
            return UNKNOWN
        raise OSError(code, os.strerror(code))
    unsynchronised = result == _TIME_ERROR or answer.status & _STA_UNSYNC
    return ClockState("unsynchronised" if unsynchronised else "synchronised", answer.maxerror, answer.esterror)


class ClockWatch:
    """Keeps an answer for a moment: every leaf asks.  Safe to share: what it keeps is replaced whole."""

    def __init__(
        self, read: Callable[[], ClockState] = read_clock_state, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._read = read
        self._monotonic = monotonic
        self._kept: tuple[float, ClockState] | None = None

    def state(self) -> ClockState:
        """Give the state as of now, or of at most two seconds ago."""
        now = self._monotonic()
        if self._kept is None or now - self._kept[0] >= _MAX_AGE_S:
            self._kept = (now, self._read())
        return self._kept[1]
