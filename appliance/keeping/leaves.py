"""Read every leaf of one kind, page by page; the index on kinds makes that a matter of how many there are."""

from __future__ import annotations

from collections.abc import Iterator

from appliance.audit_trail import Kind
from audit.entry import Entry
from audit.event import JsonValue
from audit.reader import AuditReader, EntryFilter

PAGE_LEN = 500


def entries_of(reader: AuditReader, kind: Kind, *, newest: bool = False) -> Iterator[Entry]:
    """Give every entry of a kind, oldest or newest first."""
    after: int | None = None
    while True:
        page = reader.entries(EntryFilter(kind=kind.value), after=after, limit=PAGE_LEN, newest=newest)
        yield from page.entries
        if page.next_after is None:
            return
        after = page.next_after


def text_fact(entry: Entry, name: str) -> str | None:
    """Give a fact that is text, or None."""
    value = entry.leaf.event.facts.get(name)
    return value if isinstance(value, str) else None


def index_fact(entry: Entry, name: str) -> int | None:
    """Give a fact that is the index of an entry, or None."""
    value = entry.leaf.event.facts.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def texts_fact(entry: Entry, name: str) -> tuple[str, ...]:
    """Give a fact that is a list of texts; empty where it is anything else."""
    value: JsonValue = entry.leaf.event.facts.get(name)
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        return ()
    return tuple(str(one) for one in value)
