"""A PostgreSQL log held for writing: by the leader's lock of one session, taken again when the connection was lost.

When the connection fails in the middle of a commit, nobody here knows whether the server did it.  It is asked: a new
session, which must win the leader's lock, reads the head back.  The caller compares: the batch is durable, or it is not
and goes again as it was, or somebody else's head is there and the log is shut.  A server that loses its disk's word
ends itself and recovers from its journal (PostgreSQL panics on a failed fsync), so what it tells then is true; that is
what SQLite, in our own process, cannot promise.

Never: wait without an end; go on under another session than the one that holds the lock; trust a commit about which the
server warned, as it does when a standby did not confirm.

Not safe to share: it belongs to one thread at a time.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from threading import Event
from typing import Self

import psycopg
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

from audit.errors import AuditHalted, SettingRefused, WriterLocked
from audit.location import PostgresLog
from audit.postgres.engine import Part, open_engine
from audit.store import StoredHead, stored_head

_FIRST_WAIT_S = 0.05
_LONGEST_WAIT_S = 1.0
_HARMLESS = ("NOTICE", "INFO", "LOG", "DEBUG")
_PASSING = ("08", "25006", "40", "53300", "55P03", "57")
"""SQLSTATE prefixes of what may pass: connection, a standby not yet promoted, conflicts, locks, a server that stops."""


class PostgresHold:
    """Made by `take`, ended by `let_go`."""

    def __init__(self, log: PostgresLog, wait: Callable[[float], object]) -> None:
        self._log = log
        self._wait = wait
        self._complaints: list[str] = []
        self._session: int | None = None
        self.engine: Engine = self._new_engine()

    @classmethod
    def take(cls, log: PostgresLog, wait: Callable[[float], object] | None = None) -> Self:
        """Connect as the writer and win the leader's lock.

        Args:
            log: where, as the writer's role.
            wait: waits so many seconds between two tries; for tests.
        """
        hold = cls(log, wait or Event().wait)
        try:
            with hold.engine.begin() as connection:
                hold.require_leader(connection)
        except BaseException:
            hold.engine.dispose()
            raise
        return hold

    def unsound(self) -> str | None:
        """Tell of warnings that the server gave since the last time: a commit that it warned about is none."""
        complaints, self._complaints = self._complaints, []
        return "; ".join(complaints) or None

    def short_of_space(self, min_free_bytes: int) -> str | None:
        """Not for us to see: the disk is the server's, which refuses the commit."""

    def require_leader(self, connection: Connection) -> None:
        """Inside the transaction: this is still the session that won the lock, which it holds as long as it lives."""
        session = connection.exec_driver_sql("SELECT pg_backend_pid()").scalar_one()
        if self._session is None:
            self._session = session
        if session != self._session:
            raise AuditHalted("the session that holds the log's lock was exchanged; is a connection pooler in between?")

    def head_after_failure(self, error: DBAPIError, deadline: float) -> StoredHead:
        """Connect again, win the lock again, and return the head that the server has now.

        Args:
            error: what the commit met.
            deadline: monotonic seconds after which nobody waits any more.

        Raises:
            DBAPIError: a fault that another connection does not mend.
            AuditHalted: the server did not come back in time, or somebody else has the lock.
        """
        wait_s = _FIRST_WAIT_S
        while _may_pass(error):
            self._forget_session()
            try:
                with self.engine.begin() as connection:
                    self.require_leader(connection)
                    return stored_head(connection)
            except (DBAPIError, WriterLocked, SettingRefused) as again:  # a standby that is being promoted too
                if time.monotonic() + wait_s > deadline:
                    raise AuditHalted(f"the database did not come back: {_short(again)}") from again
                if isinstance(again, DBAPIError):
                    error = again
            self._wait(wait_s)
            wait_s = min(2 * wait_s, _LONGEST_WAIT_S)
        raise error

    def tidy(self, after_commits: int) -> None:
        """Nothing to do: the journal is the server's."""

    def close_in_order(self) -> None:
        """Nothing to do: what was committed is durable."""

    def let_go(self) -> None:
        """Close the session, and with it the lock."""
        self.engine.dispose()

    def _new_engine(self) -> Engine:
        return open_engine(self._log, Part.WRITER, on_notice=self._note)

    def _forget_session(self) -> None:
        self.engine.dispose()
        self._session = None
        self._complaints.clear()
        self.engine = self._new_engine()

    def _note(self, complaint: str) -> None:
        if not complaint.startswith(_HARMLESS):
            self._complaints.append(complaint)


def _may_pass(error: DBAPIError) -> bool:
    """Tell whether the connection or the server was at fault, rather than what was asked of it."""
    fault = error.orig
    if not isinstance(fault, psycopg.OperationalError):
        return False
    return fault.sqlstate is None or fault.sqlstate.startswith(_PASSING)  # without a code: no server answered


def _short(error: DBAPIError | WriterLocked | SettingRefused) -> str:
    return str(error.orig if isinstance(error, DBAPIError) else error).strip()
