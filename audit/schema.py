"""The tables of the log, as SQLAlchemy sees them; the migrations make them.

Stored are leaves, complete inner nodes and signed checkpoints; beside a leaf the ids of the policies that decided and
sealed content; the floors below which entries were pruned; and which migration made the tables.  Every column but
`leaf_bytes`, `note` and the sealed bytes is a projection that a verifier recomputes, and of the sealed bytes each leaf
has the digest.  Rows are only ever inserted: triggers refuse UPDATE, DELETE above a recorded floor, and any INSERT that
does not extend the log by exactly the next row.  The triggers are a fence against accidents; the proof is the signed
tree.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Index, Integer, MetaData, Table, Text

from audit.leaf import LEAF_COLUMNS
from audit.stored_bytes import StoredBytes

SCHEMA_REVISION = "r0002"
"""The newest migration; a writer brings an older log here, nobody opens a newer one."""

metadata = MetaData()

_BIG = BigInteger().with_variant(Integer, "sqlite")  # SQLite integers are 64 bits wide; STRICT knows only INTEGER

leaf_table = Table(
    "leaf",
    metadata,
    Column("idx", _BIG, primary_key=True, autoincrement=False),
    Column("head", _BIG, nullable=False),
    Column("leaf_bytes", StoredBytes, nullable=False),
    Column("leaf_hash", StoredBytes, nullable=False),
    Column("kind", Text, nullable=False),
    Column("ts_us", _BIG, nullable=False),
    Column("epoch", _BIG, nullable=False),
    Column("actor", Text, nullable=False),
    Column("role", Text, nullable=False),
    Column("tenant", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("route", Text),
    Column("model_root", Text),
    Column("decision", Text),
    Column("outcome", Text),
    Column("label", Text),
    sqlite_strict=True,
)

for _name in ("kind", "ts_us", "actor", "tenant"):
    Index(f"leaf_{_name}", leaf_table.c[_name])
Index("leaf_subject", leaf_table.c.subject, leaf_table.c.kind)
for _name in ("route", "model_root", "decision", "outcome", "label"):
    _present = leaf_table.c[_name].is_not(None)
    Index(f"leaf_{_name}", leaf_table.c[_name], sqlite_where=_present, postgresql_where=_present)

node_table = Table(
    "node",
    metadata,
    Column("level", Integer, primary_key=True, autoincrement=False),
    Column("idx", _BIG, primary_key=True, autoincrement=False),
    Column("hash", StoredBytes, nullable=False),
    sqlite_strict=True,
    sqlite_with_rowid=False,
)

checkpoint_table = Table(
    "checkpoint",
    metadata,
    Column("size", _BIG, primary_key=True, autoincrement=False),
    Column("root", StoredBytes, nullable=False),
    Column("note", Text, nullable=False),
    sqlite_strict=True,
)

leaf_policy_table = Table(
    "leaf_policy",
    metadata,
    Column("idx", _BIG, primary_key=True, autoincrement=False),
    Column("policy_id", Text, primary_key=True),
    sqlite_strict=True,
    sqlite_with_rowid=False,
)
"""One row for each id in a leaf's fact `policy_ids`."""
Index("leaf_policy_policy_id", leaf_policy_table.c.policy_id, leaf_policy_table.c.idx)

content_table = Table(
    "content",
    metadata,
    Column("idx", _BIG, primary_key=True, autoincrement=False),
    Column("phase", Text, primary_key=True),
    Column("key_id", Text, nullable=False),
    Column("nonce", StoredBytes, nullable=False),
    Column("ciphertext", StoredBytes, nullable=False),
    sqlite_strict=True,
)
"""What was sealed beside the leaf `idx`; the leaf's fact `contents` has its digest."""

pruning_table = Table(
    "pruning",
    metadata,
    Column("what", Text, primary_key=True),
    Column("minimum_index", _BIG, primary_key=True, autoincrement=False),
    Column("idx", _BIG, nullable=False),
    sqlite_strict=True,
    sqlite_with_rowid=False,
)
"""`content` or all of a leaf below `minimum_index` is gone, says the leaf `idx`."""

NODE_COLUMNS = tuple(column.name for column in node_table.columns)
CHECKPOINT_COLUMNS = tuple(column.name for column in checkpoint_table.columns)

assert tuple(column.name for column in leaf_table.columns) == LEAF_COLUMNS
