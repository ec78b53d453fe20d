"""Bring a log's tables to the newest revision, or refuse those of another."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, text

from audit.errors import SettingRefused
from audit.schema import SCHEMA_REVISION

_OLDER = frozenset({"r0001"})
"""Revisions that a writer brings up to date by itself."""


def apply_migrations(connection: Connection, revision: str = SCHEMA_REVISION) -> None:
    """Bring the tables to a revision, inside the caller's transaction."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.attributes["connection"] = connection
    command.upgrade(config, revision)


def stored_revision(connection: Connection) -> object:
    """Return what the tables say of themselves."""
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one_or_none()


def is_older(revision: object) -> bool:
    """Tell whether `apply_migrations` brings such tables up to date."""
    return revision in _OLDER


def require_revision(connection: Connection) -> None:
    """Refuse tables that another version of this package made."""
    found = stored_revision(connection)
    if found != SCHEMA_REVISION:
        hint = "start the appliance once: it brings the tables up to date" if is_older(found) else ""
        raise SettingRefused("the log's schema revision", SCHEMA_REVISION, found, hint=hint)
