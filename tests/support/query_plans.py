"""How a database means to answer a statement: the lines of its plan, in either store."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Engine, event


@contextmanager
def plans_of(engine: Engine) -> Iterator[list[tuple[str, str]]]:
    """Collect `(statement, plan line)` of every SELECT that is run meanwhile.

    PostgreSQL reads a small table whole however good its indexes are; here it is told to think better of it, so that a
    plan that still does has no index to use.
    """
    plans: list[tuple[str, str]] = []

    def explain(connection: Any, _: object, statement: str, parameters: object, *__: object) -> None:
        if not statement.lstrip().startswith("SELECT"):
            return
        raw = connection.connection.dbapi_connection
        if engine.dialect.name == "sqlite":
            plans.extend((statement, row[3]) for row in raw.execute(f"EXPLAIN QUERY PLAN {statement}", parameters))
        else:
            raw.execute("SET LOCAL enable_seqscan = off")
            plans.extend((statement, row[0]) for row in raw.execute(f"EXPLAIN {statement}", parameters))

    event.listen(engine, "before_cursor_execute", explain)
    try:
        yield plans
    finally:
        event.remove(engine, "before_cursor_execute", explain)


def is_scan(line: str) -> bool:
    """Tell whether a plan's line reads a table whole."""
    return "SCAN" in line or "Seq Scan" in line
