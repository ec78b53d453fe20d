"""Delete what lies below the recorded floors, some at a time, so that no commit waits long behind it.

Promise: nothing at or above a floor goes, and no node that a proof above it needs: those of level 8 and higher stay.
A crash between two steps leaves rows that nobody is shown, and the next opening goes on.  In PostgreSQL the writer has
no right to delete; the owner's function does the same there.
"""

from __future__ import annotations

from sqlalchemy import Connection, Table, delete, func, select

from audit.beside import BLOCK_LEVEL
from audit.schema import checkpoint_table, content_table, leaf_policy_table, leaf_table, node_table
from audit.store import stored_floors


def sweep_pruned(connection: Connection, max_entries: int) -> bool:
    """Delete the rows of at most `max_entries` entries; tell whether more are left."""
    if connection.dialect.name == "postgresql":
        return bool(connection.execute(select(func.sweep_pruned(max_entries))).scalar_one())
    floors = stored_floors(connection)
    leaf_bound = min(floors.leaf, _first(connection, leaf_table) + max_entries)
    content_bound = min(floors.content, _first(connection, content_table) + max_entries)
    connection.execute(delete(content_table).where(content_table.c.idx < content_bound))
    connection.execute(delete(leaf_policy_table).where(leaf_policy_table.c.idx < leaf_bound))
    for level in range(1, BLOCK_LEVEL):
        on_level = (node_table.c.level == level, node_table.c.idx < leaf_bound >> level)
        connection.execute(delete(node_table).where(*on_level))
    connection.execute(delete(checkpoint_table).where(checkpoint_table.c.size < leaf_bound))
    connection.execute(delete(leaf_table).where(leaf_table.c.idx < leaf_bound))
    leaves_left = _first(connection, leaf_table) < floors.leaf
    return leaves_left or _first(connection, content_table, floors.content) < floors.content


def _first(connection: Connection, table: Table, default: int = 0) -> int:
    first: int = connection.execute(select(func.coalesce(func.min(table.c.idx), default))).scalar_one()
    return first
