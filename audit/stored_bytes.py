"""A column of bytes, read as it is stored.

SQLAlchemy's own type turns what it finds into bytes: an integer becomes as many zeros, text an exception of Python's.
In an altered file every cell may hold any kind of value; here it arrives as that, for the reader to refuse.

Promise: what is written must be bytes; what is read is never converted.
"""

from __future__ import annotations

from sqlalchemy import Dialect, LargeBinary


class StoredBytes(LargeBinary):
    """Never converts on the way out; whoever reads checks the kind."""

    cache_ok = True

    def result_processor(self, dialect: Dialect, coltype: object) -> None:
        """Convert nothing."""
