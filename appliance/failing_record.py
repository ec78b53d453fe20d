"""What the log last said of something that can fail and recover."""

from __future__ import annotations

from typing import TYPE_CHECKING

from audit.reader import EntryFilter

if TYPE_CHECKING:
    from appliance.audit_trail import Kind
    from audit.reader import AuditReader


def stands_failing(reader: AuditReader, failing: Kind, recovered: Kind, subject: str) -> bool:
    """Tell whether the newest record of the two kinds about this subject says that it fails."""
    newest = [
        entries[0]
        for kind in (failing, recovered)
        if (entries := reader.entries(EntryFilter(kind=kind.value, subject=subject), limit=1, newest=True).entries)
    ]
    return bool(newest) and max(newest, key=lambda entry: entry.index).leaf.event.kind == failing
