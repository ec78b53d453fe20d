"""What every sink promises."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Protocol

from audit.anchoring.head import SignedHead
from audit.cosignature import Cosignature
from audit.errors import AnchorFailed


@dataclass(frozen=True, slots=True)
class Anchored:
    """A sink took a head."""

    size: int
    cosignatures: tuple[Cosignature, ...] = ()
    """What a witness gave for it, verified."""


class AnchorSink(Protocol):
    """One place outside the box; one thread at a time."""

    @property
    def name(self) -> str:
        """Stable and unique among the sinks: `directory:/media/anchors`, `syslog:unix:/dev/log`, `witness:NAME`."""
        ...

    def anchor(self, head: SignedHead, deadline_at: float) -> Anchored:
        """Put the head there, durably as far as the place can say, before `time.monotonic()` reaches `deadline_at`.

        Idempotent: the same head again is taken again or found to be there.  Retried by the caller, never in here.

        Raises:
            AnchorFailed: not known to be there.
            AnchorAhead: the place knows better.
        """
        ...


def left_s(deadline_at: float) -> float:
    """Give the seconds that are left.

    Raises:
        AnchorFailed: none.
    """
    left = deadline_at - time.monotonic()
    if left <= 0:
        raise AnchorFailed("no answer within the deadline")
    return left
