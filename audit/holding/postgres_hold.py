"""A PostgreSQL log held for writing: by the leader's lock of one session, taken again when the connection was lost.

When the connection fails in the middle of a commit, nobody here knows whether the server did it.  It is asked: a new
session, which must win the leader's lock, reads the head back and commits something itself: that commit comes after
all before it, so what confirms it, a synchronous standby too, has confirmed the head.  The caller compares: the batch
is durable, or it is not and goes again as it was, or somebody else's head is there and the log is shut.  A server that
loses its disk's word ends itself and recovers from its journal (PostgreSQL panics on a failed fsync), so what it tells
then is true; that is what SQLite, in our own process, cannot promise.

Never: wait without an end for a server that is gone (one that is there and waits for its standby is waited for); go on
under another session than the one that holds the lock, or under settings that durability does not rest on; trust a
commit about which the server warned, as it does when a standby did not confirm.

Not safe to share: it belongs to one thread at a time.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from secrets import token_hex
from threading import Event
from typing import Self

import psycopg
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

from audit.errors import AuditHalted, LogUnusable, SettingRefused, WriterLocked
from audit.faults import naming_file
from audit.location import PostgresLog
from audit.postgres.engine import Part, open_engine
from audit.store import StoredHead, stored_head_and

_FIRST_WAIT_S = 0.05
_LONGEST_WAIT_S = 1.0
_HARMLESS = ("NOTICE", "INFO", "LOG", "DEBUG")
_PASSING = ("08", "25006", "40", "53300", "55P03", "57")
"""SQLSTATE prefixes of what may pass: connection, a standby not yet promoted, conflicts, locks, a server that stops."""
_MARK = "SELECT pg_backend_pid(), set_config('cloister.session', %s, false)"
_KEPT_ON = ("fsync", "full_page_writes", "synchronous_commit")
_ASKED_AT_EVERY_COMMIT = tuple(f"current_setting('{name}', true)" for name in ("cloister.session", *_KEPT_ON))


class PostgresHold:
    """Made by `take`, ended by `let_go`."""

    def __init__(self, log: PostgresLog, wait: Callable[[float], object]) -> None:
        self._log = log
        self._wait = wait
        self._complaints: list[str] = []
        self._session: int | None = None
        """Process number on the server; None until the connection is marked."""
        self._mark = ""
        self.engine: Engine = self._new_engine()

    @classmethod
    def take(cls, log: PostgresLog, wait: Callable[[float], object] | None = None) -> Self:
        """Connect as the writer and win the leader's lock.

        Args:
            log: where, as the writer's role.
            wait: waits so many seconds between two tries; for tests.

        Raises:
            WriterLocked: another session has the lock.
            LogUnusable, SettingRefused, AuditCorrupt: no server, not as durability needs it, or no head at all.
        """
        hold = cls(log, wait or Event().wait)
        try:
            with naming_file(log, LogUnusable):
                hold._confirmed_head()
            hold._require_no_complaint()
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

    def head(self, connection: Connection) -> StoredHead:
        """Return the head; this is still the session that won the lock, which it holds as long as it lives.

        By a mark that only this session has: a process number comes again, and a pooler gives one to two clients.  What
        a server's master can change without ending the session is read back as well.
        """
        if self._session is None:
            self._session, _ = connection.exec_driver_sql(_MARK, (self._mark,)).one()
        head, (mark, *settings) = stored_head_and(connection, *_ASKED_AT_EVERY_COMMIT)
        if mark != self._mark:
            raise AuditHalted("the session that holds the log's lock was exchanged; is a connection pooler in between?")
        for name, value in zip(_KEPT_ON, settings, strict=True):
            if value != "on":
                raise AuditHalted(f"the server's {name} was set to {value}: what it commits is not durable")
        return head

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
            self._wait(wait_s)  # the first time too: the old session may still be ending, a conflict still be there
            wait_s = min(2 * wait_s, _LONGEST_WAIT_S)
            self._forget_session()
            try:
                return self._confirmed_head()
            except (DBAPIError, WriterLocked, SettingRefused) as again:  # a standby that is being promoted too
                if time.monotonic() + wait_s > deadline:
                    raise AuditHalted(f"the database did not come back: {_short(again)}") from again
                if isinstance(again, DBAPIError):
                    error = again
        raise error

    def tidy(self, after_commits: int) -> None:
        """Nothing to do: the journal is the server's."""

    def close_in_order(self) -> None:
        """Nothing to do: what was committed is durable."""

    def let_go(self) -> None:
        """Close the session, and with it the lock."""
        self.engine.dispose()

    def _confirmed_head(self) -> StoredHead:
        """Return a head that is as durable as this server makes its commits."""
        with self.engine.begin() as connection:
            head = self.head(connection)
            connection.exec_driver_sql("SELECT pg_logical_emit_message(true, 'cloister', 'is the head confirmed?')")
        return head

    def _require_no_complaint(self) -> None:
        complaint = self.unsound()
        if complaint is not None:
            raise LogUnusable(self._log, complaint, hint="what is stored is not confirmed; look at the server first")

    def _new_engine(self) -> Engine:
        self._mark = token_hex(16)
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
    if not isinstance(fault, psycopg.Error):
        return False
    if fault.sqlstate is None:  # no server answered, or the driver itself is at fault
        return isinstance(fault, psycopg.OperationalError)
    return fault.sqlstate.startswith(_PASSING)


def _short(error: DBAPIError | WriterLocked | SettingRefused) -> str:
    return str(error.orig if isinstance(error, DBAPIError) else error).strip()
