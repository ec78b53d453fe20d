"""What takes a copy's events."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from audit.errors import AuditError


class SinkFailed(AuditError):
    """The operator: a destination did not take its events; they are sent again, nothing is lost."""

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.what = what


class Sink(Protocol):
    """One open or yet unopened destination.  Owned by one thread."""

    def take(self, events: Sequence[bytes]) -> None:
        """Take whole events in order, or raise.

        Durable when it returns: as far as the transport can tell; see each sink.  After a failure any number of them
        may have arrived: the caller sends all of them again.

        Raises:
            SinkFailed: within the deadline, where the operating system lets a call end.
        """
        ...

    def close(self) -> None:
        """Let go; never raises."""
        ...
