"""Where a log lies: a SQLite file of our own, or a PostgreSQL database that somebody keeps for us.

Pure: nothing is opened here.  A location names no secret: PostgreSQL's password comes from libpq's own password file
(`passfile=` in the URL, or `~/.pgpass`), so that a location may stand in messages, records and reports.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias
from urllib.parse import parse_qsl, unquote, urlsplit

POSTGRES_SCHEMES = ("postgresql", "postgres")
_KNOWN_OPTIONS = frozenset(
    (
        *(
            "host",
            "port",
            "passfile",
            "service",
            "target_session_attrs",
            "require_auth",
            "channel_binding",
            "gssencmode",
        ),
        *("sslmode", "sslnegotiation", "sslrootcert", "sslcert", "sslkey", "sslcrl", "ssl_min_protocol_version"),
    )
)


class LocationRefused(ValueError):
    """The text names no place for a log; the message says why and holds no password."""


@dataclass(frozen=True, slots=True)
class PostgresLog:
    """A database that holds one log, in its schema `cloister`, as one of its roles sees it."""

    conninfo: str
    """A libpq connection URI without a password."""

    def __post_init__(self) -> None:
        """Refuse what would be believed silently or must not stand here."""
        try:
            parts = urlsplit(self.conninfo)
        except ValueError:  # brackets that hold no address; the message would repeat a part of the URL
            raise LocationRefused("the URL's host is none") from None
        if parts.scheme not in POSTGRES_SCHEMES:
            raise LocationRefused("a PostgreSQL log is named by a URL that begins with postgresql://")
        options = [name for name, _ in parse_qsl(parts.query, keep_blank_values=True)]
        if ("@" in parts.netloc and ":" in parts.netloc.rpartition("@")[0]) or "password" in options:
            raise LocationRefused("a password does not stand in a URL: put it into a file and name it by passfile=")
        unknown = sorted(set(options) - _KNOWN_OPTIONS)
        if unknown:
            raise LocationRefused(f"the URL's option {unknown[0]} is not one that a log's database is reached by")
        if not unquote(parts.path.lstrip("/")):
            raise LocationRefused("the URL names no database: postgresql://ROLE@HOST/DATABASE")

    def __str__(self) -> str:
        """Name role and database for people, without options."""
        parts = urlsplit(self.conninfo)
        role, at, _ = parts.netloc.rpartition("@")
        return f"postgresql://{role}{at}{self.database}"

    @property
    def database(self) -> str:
        """`host/name` of the database, whoever asks."""
        parts = urlsplit(self.conninfo)
        host = parts.netloc.rpartition("@")[2] or dict(parse_qsl(parts.query)).get("host", "")
        return f"{host}{parts.path}"


LogLocation: TypeAlias = "Path | PostgresLog"


def parse_location(text: str) -> LogLocation:
    """Read a location as an operator writes it: a PostgreSQL URL or a path."""
    if text.startswith(tuple(f"{scheme}:" for scheme in POSTGRES_SCHEMES)):
        return PostgresLog(text)
    return Path(text)
