"""What it takes to append to a log, whichever store it lies in."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

from audit.holding.postgres_hold import PostgresHold
from audit.holding.sqlite_hold import SqliteHold
from audit.location import LogLocation
from audit.store import StoredHead


class Hold(Protocol):
    """The log is ours alone from `take_hold` to `let_go`; belongs to one thread at a time."""

    engine: Engine
    """Over the one connection; another one after `head_after_failure` returned."""

    def unsound(self) -> str | None:
        """Tell why nothing more may be written, or believed to be: before each commit and after it."""

    def short_of_space(self, min_free_bytes: int) -> str | None:
        """Tell when less than the floor is free, where that can be seen."""

    def head(self, connection: Connection) -> StoredHead:
        """Return the head inside a transaction; raises `AuditHalted` when the log is no longer held as it was."""

    def head_after_failure(self, error: DBAPIError, deadline: float) -> StoredHead:
        """Return the head that is durable now, after a commit that failed; raises where nobody may ask for it."""

    def tidy(self, after_commits: int) -> None:
        """Do what the store wants between two commits."""

    def close_in_order(self) -> None:
        """Do what the store wants at the end."""

    def let_go(self) -> None:
        """Give the log up."""


def take_hold(location: LogLocation) -> Hold:
    """Hold a log for writing.

    Raises:
        WriterLocked: another writer holds it.
        LogMissing, SettingRefused: it is not there, or not as durability needs it.
    """
    return SqliteHold.take(location) if isinstance(location, Path) else PostgresHold.take(location)
