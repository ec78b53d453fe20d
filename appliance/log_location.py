"""Where this state's log lies: its own file, or the PostgreSQL database that it was moved to.

Promise: never two histories.  The state says which of the two holds the log, the settings must agree, and a log that
was moved is not begun anew in a file because a setting got lost.
"""

from __future__ import annotations

from dataclasses import dataclass

from appliance.settings import Settings, SettingsRefused
from appliance.state.errors import StateUnusable
from appliance.state.layout import StateLayout
from audit.location import LocationRefused, LogLocation, PostgresLog


@dataclass(frozen=True, slots=True)
class LogPlaces:
    """One log, as whoever appends and whoever reads reaches it."""

    writer: LogLocation
    reader: LogLocation


def find_log(settings: Settings, layout: StateLayout) -> LogPlaces:
    """Return where the log is.

    Raises:
        SettingsRefused: one URL without the other, or one that names no database.
        StateUnusable: the state says that the log lies elsewhere.
    """
    writer_url, reader_url = settings.log_writer_url, settings.log_reader_url
    if (writer_url is None) != (reader_url is None):
        raise SettingsRefused("CLOISTER_LOG_WRITER_URL and CLOISTER_LOG_READER_URL are given together or not at all")
    moved_to = layout.log_moved_to.read_text().strip() if layout.log_moved_to.exists() else None
    if writer_url is None or reader_url is None:
        if moved_to is not None:
            hint = "set CLOISTER_LOG_WRITER_URL and CLOISTER_LOG_READER_URL"
            raise StateUnusable(layout.log_moved_to, f"this state's log was moved to {moved_to}", hint=hint)
        return LogPlaces(layout.audit_db, layout.audit_db)
    try:
        writer, reader = PostgresLog(writer_url), PostgresLog(reader_url)
    except LocationRefused as refusal:
        raise SettingsRefused(f"CLOISTER_LOG_WRITER_URL, CLOISTER_LOG_READER_URL: {refusal}") from None
    if moved_to is None:
        hint = "move it by `cloister audit move-to-postgresql`, or leave the two settings out"
        raise StateUnusable(layout.audit_db, "this state's log lies in a file", hint=hint)
    if {writer.database, reader.database} != {moved_to}:
        hint = f"the settings name {writer.database} and {reader.database}"
        raise StateUnusable(layout.log_moved_to, f"this state's log was moved to {moved_to}", hint=hint)
    return LogPlaces(writer, reader)
