"""A log's database before any of its rows is read: the pages of a file, schema, revision.

What is missing here - a trigger, an index - changes no entry, yet without it a log can be edited; so it is a finding
like any other, and the walk over the rows goes on.

Never: changes the file, or reads an entry.
"""

from __future__ import annotations

from sqlalchemy import Connection

from audit.report import FindingList, Place, shown
from audit.schema import SCHEMA_REVISION
from audit.store import schema_faults


def check_file(connection: Connection, findings: FindingList) -> None:
    """Add what SQLite finds wrong with the file, and every table, index or trigger that is not exactly ours."""
    if connection.dialect.name == "sqlite":
        for (message,) in connection.exec_driver_sql("PRAGMA integrity_check"):
            if message != "ok":
                findings.add(Place.DATABASE, None, message, where=message)
    for kind, name, fault in schema_faults(connection):
        findings.add(Place.SCHEMA, None, f"the {kind} {name} {fault}", where=name)
    revisions = connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalars().all()
    if revisions != [SCHEMA_REVISION]:
        findings.add(Place.SCHEMA, None, f"the revision is {shown(revisions)}", where="revision")
