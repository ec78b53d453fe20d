"""The day of each key's last use: bookkeeping for its owner, written beside the requests.

Promise: noting a use never waits, for a lock, a disk or anybody, and never fails; what could not be written is told,
and tried again at that key's next use; `close` writes what waits.  At most one write per `pace_s`, since each one makes
the key store read its rows again.

Never: decides who is let in.  A crash loses the uses of the last `pace_s` seconds; the next use of the day notes it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

from appliance.identity.key_file import KeyFile
from appliance.identity.key_record import KeyRecord

PACE_S: Final = 30.0
BUSY_S: Final = 1.0
"""Another connection's write is waited for so long; the next use tries again."""


class LastUse:
    """One thread with a connection of its own.

    State and owners: `_waiting` and `_is_closing` under `_changed`; `_file` is the thread's from the start to the end.
    """

    def __init__(self, file: KeyFile, on_failure: Callable[[Exception], None], *, pace_s: float = PACE_S) -> None:
        """Begin.

        Args:
            file: of this object alone.
            on_failure: called on the thread for every write that failed; must not raise.
            pace_s: least time between two writes.
        """
        self._file = file
        self._on_failure = on_failure
        self._pace_s = pace_s
        self._changed = threading.Condition()
        self._waiting: dict[str, int] = {}
        """Key id -> day, to be written."""
        self._is_closing = False
        self._thread = threading.Thread(target=self._run, name="key last use", daemon=True)
        self._thread.start()

    @classmethod
    def open(cls, path: Path, on_failure: Callable[[Exception], None]) -> LastUse:
        """Open a connection to the key database for this alone.

        Raises:
            KeyStoreError: it cannot be used.
        """
        return cls(KeyFile.open(path, busy_s=BUSY_S), on_failure)

    def note(self, record: KeyRecord, day: int) -> None:
        """Note that a key was used on a day; from any thread."""
        if record.last_used_day is not None and record.last_used_day >= day:
            return
        with self._changed:
            self._waiting[record.id] = max(day, self._waiting.get(record.id, day))
            self._changed.notify()

    def close(self) -> None:
        """Write what waits, once, and let the file go."""
        with self._changed:
            self._is_closing = True
            self._changed.notify()
        self._thread.join()
        self._file.close()

    def _run(self) -> None:
        while uses := self._take():
            try:
                for day in sorted(set(uses.values())):
                    self._file.note_use([key_id for key_id, used in uses.items() if used == day], day)
            except Exception as failure:  # noqa: BLE001 - whatever it was, later uses must still be noted
                self._on_failure(failure)
            with self._changed:
                self._changed.wait_for(lambda: self._is_closing, self._pace_s)

    def _take(self) -> dict[str, int]:
        """Wait for uses and take them all; none at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._is_closing)
            uses, self._waiting = self._waiting, {}
            return uses
