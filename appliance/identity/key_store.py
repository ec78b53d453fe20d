"""Which keys there are, as of now: every record in memory, never older than the file.

Promise: a change is durable when the call returns, and the next `find` sees it, whichever process made it.  One
process serves from the file; another may change it meanwhile.  Safe to call from any thread.

Never: lets anybody in on what it remembers when the file cannot be asked.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from appliance.identity.key_file import KeyFile
from appliance.identity.key_record import KeyRecord


class KeyStore:
    """The open database.

    State and owners: `_file`, `_records` and `_seen_version`, all only under `_lock`.  `_records` is every row in
    memory, so that an unknown id and a known one cost the same; it is read again when another connection has changed
    the file.
    """

    def __init__(self, file: KeyFile) -> None:
        self._lock = threading.Lock()
        self._file = file
        self._records: dict[str, KeyRecord] = {}
        self._seen_version: int | None = None

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
            return self._records.get(key_id)

    def list(self) -> tuple[KeyRecord, ...]:
        """Every record, by id."""
        with self._guarded():
            self._refresh()
            return tuple(self._records[key_id] for key_id in sorted(self._records))

    def add(self, record: KeyRecord) -> None:
        """Keep a new record.

        Raises:
            KeyStoreUnusable: its id is taken, or the file cannot be written.
        """
        with self._guarded():
            self._file.insert(record)
            self._records[record.id] = record

    def revoke(self, key_id: str, at_us: int) -> KeyRecord | None:
        """End a key now; it is refused from the next `find` on.

        Returns:
            The revoked record; one that was revoked before keeps its first time.  None: no such key.
        """
        with self._guarded():
            self._refresh()
            record = self._records.get(key_id)
            if record is None or record.revoked_at_us is not None:
                return record
            self._file.revoke(key_id, at_us)
            revoked = replace(record, revoked_at_us=at_us)
            self._records[key_id] = revoked
            return revoked

    def close(self) -> None:
        """Let the file go."""
        with self._lock:
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
