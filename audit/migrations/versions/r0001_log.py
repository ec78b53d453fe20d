"""The first log: leaves, nodes, checkpoints, and the fence of triggers around them.

There is no way down: a log is never unmade.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "r0001"
down_revision = None

_SQLITE_FENCE = """
CREATE TRIGGER leaf_no_update BEFORE UPDATE ON leaf
BEGIN SELECT RAISE(ABORT, 'the log is append-only'); END;
CREATE TRIGGER leaf_no_delete BEFORE DELETE ON leaf
BEGIN SELECT RAISE(ABORT, 'the log is append-only'); END;
CREATE TRIGGER leaf_next_only BEFORE INSERT ON leaf
WHEN NEW.idx IS NOT (SELECT coalesce(max(idx) + 1, 0) FROM leaf)
BEGIN SELECT RAISE(ABORT, 'a leaf takes the next index'); END;
CREATE TRIGGER node_no_update BEFORE UPDATE ON node
BEGIN SELECT RAISE(ABORT, 'the log is append-only'); END;
CREATE TRIGGER node_no_delete BEFORE DELETE ON node
BEGIN SELECT RAISE(ABORT, 'the log is append-only'); END;
CREATE TRIGGER node_next_only BEFORE INSERT ON node
WHEN NEW.idx IS NOT (SELECT coalesce(max(idx) + 1, 0) FROM node WHERE level = NEW.level)
BEGIN SELECT RAISE(ABORT, 'a node takes the next index of its level'); END;
CREATE TRIGGER checkpoint_no_update BEFORE UPDATE ON checkpoint
BEGIN SELECT RAISE(ABORT, 'the log is append-only'); END;
CREATE TRIGGER checkpoint_no_delete BEFORE DELETE ON checkpoint
BEGIN SELECT RAISE(ABORT, 'the log is append-only'); END;
CREATE TRIGGER checkpoint_head_only BEFORE INSERT ON checkpoint
WHEN NEW.size IS NOT (SELECT coalesce(max(idx) + 1, 0) FROM leaf)
OR EXISTS (SELECT 1 FROM checkpoint WHERE size >= NEW.size)
BEGIN SELECT RAISE(ABORT, 'a checkpoint covers all leaves'); END;
"""


def upgrade() -> None:
    """Make the tables, their indexes and their triggers."""
    big = sa.BigInteger().with_variant(sa.Integer, "sqlite")
    op.create_table(
        "leaf",
        sa.Column("idx", big, primary_key=True, autoincrement=False),
        sa.Column("head", big, nullable=False),
        sa.Column("leaf_bytes", sa.LargeBinary, nullable=False),
        sa.Column("leaf_hash", sa.LargeBinary, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("ts_us", big, nullable=False),
        sa.Column("epoch", big, nullable=False),
        sa.Column("actor", sa.Text, nullable=False),
        sa.Column("role", sa.Text, nullable=False),
        sa.Column("tenant", sa.Text, nullable=False),
        sa.Column("subject", sa.Text, nullable=False),
        sa.Column("route", sa.Text),
        sa.Column("model_root", sa.Text),
        sa.Column("decision", sa.Text),
        sa.Column("outcome", sa.Text),
        sa.Column("label", sa.Text),
        sqlite_strict=True,
    )
    for name in ("kind", "ts_us", "actor", "tenant"):
        op.create_index(f"leaf_{name}", "leaf", [name])
    op.create_index("leaf_subject", "leaf", ["subject", "kind"])
    for name in ("route", "model_root", "decision", "outcome", "label"):
        present = sa.column(name).is_not(None)
        op.create_index(f"leaf_{name}", "leaf", [name], sqlite_where=present, postgresql_where=present)
    op.create_table(
        "node",
        sa.Column("level", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("idx", big, primary_key=True, autoincrement=False),
        sa.Column("hash", sa.LargeBinary, nullable=False),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_table(
        "checkpoint",
        sa.Column("size", big, primary_key=True, autoincrement=False),
        sa.Column("root", sa.LargeBinary, nullable=False),
        sa.Column("note", sa.Text, nullable=False),
        sqlite_strict=True,
    )
    if op.get_bind().dialect.name == "sqlite":
        for statement in _SQLITE_FENCE.split("END;"):
            if statement.strip():
                op.execute(f"{statement.strip()} END")
