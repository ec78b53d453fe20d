"""Where a report's leaves come from: a reader at a fixed size, and what only a whole log can give."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from appliance.reports.integrity import Verification
from appliance.reports.recreation import Sample
from appliance.reports.scope import Scope
from audit.checkpoint import LogVerifier
from audit.entry import Entry
from audit.reader import AuditReader
from audit.search.expression import Expression, Within


@dataclass(frozen=True, slots=True)
class ReportSource:
    """A log of `size` entries, and its keys."""

    reader: AuditReader
    size: int
    verifiers: Sequence[LogVerifier]
    verify: Callable[[], Verification]
    """Verifies the log from its bytes; takes as long as that takes."""

    def walk(self, expression: Expression) -> Iterator[Entry]:
        """Give every entry that is meant, in order."""
        return self.reader.walk(expression, size=self.size)

    def samples(self, entries: Iterable[Entry]) -> Iterator[Sample]:
        """Give entries with their proofs."""
        for entry in entries:
            yield Sample(entry, self.reader.proof(entry.index))

    def scope(self, from_us: int, until_us: int, subject: str | None = None) -> Scope:
        """Find the window's first and last entry."""
        window = Within("time", from_us, until_us)
        first, last = self._end(window, newest=False), self._end(window, newest=True)
        return Scope(
            from_us,
            until_us,
            self.size,
            self.size if first is None else first,
            -1 if last is None else last,
            subject,
        )

    def _end(self, window: Expression, *, newest: bool) -> int | None:
        after: int | None = None
        while True:
            page = self.reader.entries(window, after=after, limit=1, newest=newest, size=self.size)
            if page.entries or page.next_after is None:
                return page.entries[0].index if page.entries else None
            after = page.next_after
