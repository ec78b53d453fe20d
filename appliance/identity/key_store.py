"""Which keys there are, as of now: every record in memory, never older than the file.

Promise: a change is durable when the call returns, and the next `find` sees it, whichever process made it.  A key that
`refuse` was told of is refused from then on, whatever the file says; the file is told until it says so too.  One
process serves from the file; another may change it meanwhile.  Safe to call from any thread.

Never: lets anybody in on what it remembers when the file cannot be asked; holds its lock while it waits for another
process's, so that `find` and `refuse` never do.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import structlog

from appliance.identity.errors import KeyStoreError
from appliance.identity.key_file import BUSY_S, KeyFile
from appliance.identity.key_record import KeyRecord

LOG = structlog.get_logger("cloister.identity")


class KeyStore:
    """The open database.

    State and owners: `_file`, `_records`, `_seen_version` and `_refused`, all only under `_lock`.  `_records` is every
    row in memory, so that an unknown id and a known one cost the same; it is read again when another connection has
    changed the file.  `_refused` is what `refuse` was told, and stays for this process's life: what a row says of
    these keys' end, it may say earlier only.
    """

    def __init__(self, file: KeyFile) -> None:
        self._lock = threading.Lock()
        self._file = file
        self._records: dict[str, KeyRecord] = {}
        self._seen_version: int | None = None
        self._refused: dict[str, int] = {}
        """Key id -> when it ended."""

    @classmethod
    def create(cls, path: Path) -> KeyStore:
        """Make a new, empty database that only this account may read.

        Raises:
            KeyStoreUnusable: something is already there, or the file system refuses.
        """
        return cls(KeyFile.create(path))

    @classmethod
    def open(cls, path: Path) -> KeyStore:
        """Open an existing database and read it whole.

        Raises:
            KeyStoreError: it is missing, exposed to other accounts, corrupt, or cannot be used.
        """
        store = cls(KeyFile.open(path))
        try:
            store.list()
        except BaseException:
            store.close()
            raise
        return store

    def find(self, key_id: str) -> KeyRecord | None:
        """The record of a public id, as it is now.

        Raises:
            KeyStoreError: the database cannot be read; nobody may be let in.
        """
        with self._guarded():
            self._refresh()
            return self._as_refused(key_id)

    def list(self) -> tuple[KeyRecord, ...]:
        """Every record, by id."""
        with self._guarded():
            self._refresh()
            return tuple(record for key_id in sorted(self._records) if (record := self._as_refused(key_id)))

    def add(self, record: KeyRecord) -> None:
        """Keep a new record.

        Raises:
            KeyStoreUnusable: its id is taken, or the file cannot be written.
        """
        with self._guarded():
            self._file.insert(record)
            self._records[record.id] = record

    def revoke(self, key_id: str, at_us: int) -> KeyRecord | None:
        """End a key now, here and in the file; waits for another connection's write.

        Returns:
            The revoked record; one that was revoked before keeps its first time.  None: no such key.

        Raises:
            KeyStoreError: the file may not say so yet; the key is refused all the same.
        """
        record = self.refuse(key_id, at_us)
        self.write_refusals()
        return record

    def refuse(self, key_id: str, at_us: int) -> KeyRecord | None:
        """End a key in memory: it is refused from the next `find` on, and waits for nothing.

        The caller owes `write_refusals`.  Until that has worked, it is tried whenever another connection has changed
        the file, and on closing; what outlasts the process is the caller's record.

        Returns:
            As `revoke` does.

        Raises:
            KeyStoreError: the database cannot be read, so nobody is let in; the key is refused afterwards, too.
        """
        with self._guarded():
            self._refused.setdefault(key_id, at_us)  # first: it holds although the file cannot be read now
            self._refresh()
            return self._as_refused(key_id)

    def write_refusals(self, *, busy_s: float = BUSY_S) -> None:
        """Bring the file up to what `refuse` was told; durable when it returns.  Not for an event loop.

        Raises:
            KeyStoreError: not all of it is in the file.
        """
        with self._guarded():
            self._refresh()
            owed = self._owed()
        self._write(owed, busy_s)

    def close(self) -> None:
        """Try once more what the file is owed, and let it go."""
        with self._lock:
            self._try_owed()
            self._file.close()

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        with self._lock:
            try:
                yield
            except BaseException:
                self._seen_version = None  # a write that failed may still have happened: look again
                raise

    def _refresh(self) -> None:
        """Read the rows again if another connection committed since the last look."""
        version = self._file.version()
        if version == self._seen_version:
            return
        self._records = self._file.read()
        self._seen_version = version
        self._try_owed()

    def _as_refused(self, key_id: str) -> KeyRecord | None:
        record, at_us = self._records.get(key_id), self._refused.get(key_id)
        if record is None or record.revoked_at_us is not None or at_us is None:
            return record
        return replace(record, revoked_at_us=at_us)

    def _owed(self) -> dict[str, int]:
        """What the file does not say yet."""
        return {
            key_id: at_us
            for key_id, at_us in self._refused.items()
            if key_id in self._records and self._records[key_id].revoked_at_us is None
        }

    def _try_owed(self) -> None:
        """Write what is owed if that needs no waiting; it stays owed otherwise."""
        owed = self._owed()
        try:
            self._write(owed, busy_s=0.0)
        except KeyStoreError as failure:
            LOG.warning("revocation_not_on_file", key_ids=sorted(owed), reason=str(failure))

    def _write(self, owed: dict[str, int], busy_s: float) -> None:
        """On a connection of its own, so that waiting on it holds up nobody; the next look sees the change."""
        if not owed:
            return
        with closing(KeyFile.open(self._file.path, busy_s=busy_s)) as file:
            for key_id, at_us in owed.items():
                file.revoke(key_id, at_us)
