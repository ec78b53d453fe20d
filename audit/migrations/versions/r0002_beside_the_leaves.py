"""What stands beside a leaf: policy ids to search by, sealed content, and the floor below which entries are gone.

From here on deleting is possible below a recorded floor and nowhere else.  On PostgreSQL, where this is the first step
that a log ever sees alone, the whole fence is built here: triggers on every table, fired whatever the session says, and
one function, owned by the owner, through which alone the writer can delete.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "r0002"
down_revision = "r0001"

_SQLITE_FENCE = (
    "DROP TRIGGER leaf_no_delete",
    "DROP TRIGGER node_no_delete",
    "DROP TRIGGER checkpoint_no_delete",
    "DROP TRIGGER node_next_only",
    """CREATE TRIGGER leaf_no_delete BEFORE DELETE ON leaf
WHEN OLD.idx >= (SELECT coalesce(max(minimum_index), 0) FROM pruning WHERE what = 'leaf')
BEGIN SELECT RAISE(ABORT, 'the log is append-only'); END""",
    """CREATE TRIGGER node_no_delete BEFORE DELETE ON node
WHEN OLD.level >= 8
OR OLD.idx >= (SELECT coalesce(max(minimum_index), 0) FROM pruning WHERE what = 'leaf') >> OLD.level
BEGIN SELECT RAISE(ABORT, 'the log is append-only'); END""",
    """CREATE TRIGGER checkpoint_no_delete BEFORE DELETE ON checkpoint
WHEN OLD.size >= (SELECT coalesce(max(minimum_index), 0) FROM pruning WHERE what = 'leaf')
BEGIN SELECT RAISE(ABORT, 'the log is append-only'); END""",
    """CREATE TRIGGER node_next_only BEFORE INSERT ON node
WHEN NEW.idx IS NOT coalesce((SELECT max(idx) + 1 FROM node WHERE level = NEW.level),
(SELECT coalesce(max(minimum_index), 0) FROM pruning WHERE what = 'leaf') >> NEW.level)
BEGIN SELECT RAISE(ABORT, 'a node takes the next index of its level'); END""",
    """CREATE TRIGGER leaf_policy_no_update BEFORE UPDATE ON leaf_policy
BEGIN SELECT RAISE(ABORT, 'the log is append-only'); END""",
    """CREATE TRIGGER leaf_policy_no_delete BEFORE DELETE ON leaf_policy
WHEN OLD.idx >= (SELECT coalesce(max(minimum_index), 0) FROM pruning WHERE what = 'leaf')
BEGIN SELECT RAISE(ABORT, 'the log is append-only'); END""",
    """CREATE TRIGGER leaf_policy_unsigned_only BEFORE INSERT ON leaf_policy
WHEN NEW.idx < (SELECT max(size) FROM checkpoint)
BEGIN SELECT RAISE(ABORT, 'a signed entry gets nothing more'); END""",
    """CREATE TRIGGER content_no_update BEFORE UPDATE ON content
BEGIN SELECT RAISE(ABORT, 'the log is append-only'); END""",
    """CREATE TRIGGER content_no_delete BEFORE DELETE ON content
WHEN OLD.idx >= (SELECT coalesce(max(minimum_index), 0) FROM pruning)
BEGIN SELECT RAISE(ABORT, 'the log is append-only'); END""",
    """CREATE TRIGGER content_unsigned_only BEFORE INSERT ON content
WHEN NEW.idx < (SELECT max(size) FROM checkpoint)
BEGIN SELECT RAISE(ABORT, 'a signed entry gets nothing more'); END""",
    """CREATE TRIGGER pruning_no_update BEFORE UPDATE ON pruning
BEGIN SELECT RAISE(ABORT, 'the log is append-only'); END""",
    """CREATE TRIGGER pruning_no_delete BEFORE DELETE ON pruning
BEGIN SELECT RAISE(ABORT, 'the log is append-only'); END""",
    """CREATE TRIGGER pruning_unsigned_only BEFORE INSERT ON pruning
WHEN NEW.idx < (SELECT max(size) FROM checkpoint) OR NEW.minimum_index > NEW.idx
OR NEW.minimum_index <= (SELECT coalesce(max(minimum_index), 0) FROM pruning WHERE what = NEW.what)
BEGIN SELECT RAISE(ABORT, 'a floor only rises, and stands below the entry that records it'); END""",
)

_SQLITE_BACKFILL = """INSERT INTO leaf_policy (idx, policy_id)
SELECT DISTINCT leaf.idx, policy.value
FROM leaf, json_each(CAST(leaf.leaf_bytes AS TEXT), '$.facts.policy_ids') AS policy
WHERE policy.type = 'text' AND json_type(CAST(leaf.leaf_bytes AS TEXT), '$.facts.policy_ids') = 'array'"""

_FLOOR = "(SELECT coalesce(max(minimum_index), 0) FROM cloister.pruning WHERE what = 'leaf')"
_HEAD = "(SELECT coalesce(max(size), 0) FROM cloister.checkpoint)"
_REFUSE = "RAISE EXCEPTION USING ERRCODE = 'integrity_constraint_violation', MESSAGE ="

POSTGRES_FUNCTIONS: dict[str, str] = {
    "refuse_change": f"BEGIN {_REFUSE} 'the log is append-only'; END",
    "leaf_next_only": f"""
DECLARE
  first_new bigint; last_new bigint; num_new bigint;
BEGIN
  SELECT min(idx), max(idx), count(*) INTO first_new, last_new, num_new FROM new_rows;
  IF num_new > 0 AND (last_new - first_new + 1 <> num_new
    OR last_new <> (SELECT max(idx) FROM cloister.leaf)
    OR first_new <> 0 AND NOT EXISTS (SELECT FROM cloister.leaf WHERE idx = first_new - 1)) THEN
    {_REFUSE} 'a leaf takes the next index';
  END IF;
  RETURN NULL;
END""",
    "node_next_only": f"""
BEGIN
  IF EXISTS (
    SELECT FROM (
      SELECT level, min(idx) AS first_new, max(idx) AS last_new, count(*) AS num_new FROM new_rows GROUP BY level
    ) AS grown
    WHERE last_new - first_new + 1 <> num_new
    OR last_new <> (SELECT max(idx) FROM cloister.node WHERE level = grown.level)
    OR first_new <> {_FLOOR} >> grown.level
      AND NOT EXISTS (SELECT FROM cloister.node WHERE level = grown.level AND idx = first_new - 1)
  ) THEN
    {_REFUSE} 'a node takes the next index of its level';
  END IF;
  RETURN NULL;
END""",
    "checkpoint_head_only": f"""
BEGIN
  IF NEW.size <> (SELECT coalesce(max(idx) + 1, 0) FROM cloister.leaf)
    OR EXISTS (SELECT FROM cloister.checkpoint WHERE size >= NEW.size) THEN
    {_REFUSE} 'a checkpoint covers all leaves';
  END IF;
  RETURN NEW;
END""",
    "unsigned_only": f"""
BEGIN
  IF NEW.idx < {_HEAD} THEN
    {_REFUSE} 'a signed entry gets nothing more';
  END IF;
  RETURN NEW;
END""",
    "pruning_unsigned_only": f"""
BEGIN
  IF NEW.idx < {_HEAD} OR NEW.minimum_index > NEW.idx
    OR NEW.minimum_index <= (SELECT coalesce(max(minimum_index), 0) FROM cloister.pruning WHERE what = NEW.what) THEN
    {_REFUSE} 'a floor only rises, and stands below the entry that records it';
  END IF;
  RETURN NEW;
END""",
    "indexed_below_floor_only": f"""
BEGIN
  IF OLD.idx >= {_FLOOR} THEN
    {_REFUSE} 'the log is append-only';
  END IF;
  RETURN OLD;
END""",
    "node_below_floor_only": f"""
BEGIN
  IF OLD.level >= 8 OR OLD.idx >= {_FLOOR} >> OLD.level THEN
    {_REFUSE} 'the log is append-only';
  END IF;
  RETURN OLD;
END""",
    "checkpoint_below_floor_only": f"""
BEGIN
  IF OLD.size >= {_FLOOR} THEN
    {_REFUSE} 'the log is append-only';
  END IF;
  RETURN OLD;
END""",
    "content_below_floor_only": f"""
BEGIN
  IF OLD.idx >= (SELECT coalesce(max(minimum_index), 0) FROM cloister.pruning) THEN
    {_REFUSE} 'the log is append-only';
  END IF;
  RETURN OLD;
END""",
}
"""Name -> body of every trigger function; the store compares what is installed with these very texts."""

POSTGRES_SWEEP = """
DECLARE
  leaf_floor bigint := (SELECT coalesce(max(minimum_index), 0) FROM cloister.pruning WHERE what = 'leaf');
  content_floor bigint := (SELECT coalesce(max(minimum_index), 0) FROM cloister.pruning);
  leaf_bound bigint := least(leaf_floor, (SELECT min(idx) FROM cloister.leaf) + step);
  content_bound bigint := least(content_floor, (SELECT min(idx) FROM cloister.content) + step);
BEGIN
  DELETE FROM cloister.content WHERE idx < content_bound;
  DELETE FROM cloister.leaf_policy WHERE idx < leaf_bound;
  DELETE FROM cloister.node WHERE level < 8 AND idx < leaf_bound >> level;
  DELETE FROM cloister.checkpoint WHERE size < leaf_bound;
  DELETE FROM cloister.leaf WHERE idx < leaf_bound;
  RETURN EXISTS (SELECT FROM cloister.leaf WHERE idx < leaf_floor)
    OR EXISTS (SELECT FROM cloister.content WHERE idx < content_floor);
END"""
"""Deletes what lies below the recorded floors, at most `step` entries; tells whether more is left."""

POSTGRES_TRIGGERS: dict[tuple[str, str], tuple[str, str]] = {
    **{
        (table, f"{table}_no_update"): ("BEFORE UPDATE", "refuse_change")
        for table in ("leaf", "node", "checkpoint", "leaf_policy", "content", "pruning")
    },
    **{
        (table, f"{table}_no_truncate"): ("BEFORE TRUNCATE", "refuse_change")
        for table in ("leaf", "node", "checkpoint", "leaf_policy", "content", "pruning")
    },
    ("leaf", "leaf_no_delete"): ("BEFORE DELETE", "indexed_below_floor_only"),
    ("leaf_policy", "leaf_policy_no_delete"): ("BEFORE DELETE", "indexed_below_floor_only"),
    ("node", "node_no_delete"): ("BEFORE DELETE", "node_below_floor_only"),
    ("checkpoint", "checkpoint_no_delete"): ("BEFORE DELETE", "checkpoint_below_floor_only"),
    ("content", "content_no_delete"): ("BEFORE DELETE", "content_below_floor_only"),
    ("pruning", "pruning_no_delete"): ("BEFORE DELETE", "refuse_change"),
    ("leaf", "leaf_next_only"): ("AFTER INSERT", "leaf_next_only"),
    ("node", "node_next_only"): ("AFTER INSERT", "node_next_only"),
    ("checkpoint", "checkpoint_head_only"): ("BEFORE INSERT", "checkpoint_head_only"),
    ("leaf_policy", "leaf_policy_unsigned_only"): ("BEFORE INSERT", "unsigned_only"),
    ("content", "content_unsigned_only"): ("BEFORE INSERT", "unsigned_only"),
    ("pruning", "pruning_unsigned_only"): ("BEFORE INSERT", "pruning_unsigned_only"),
}
"""`(table, trigger)` -> when it fires, and the function it calls."""


def upgrade() -> None:
    """Make the three tables and the fence around all six."""
    big = sa.BigInteger().with_variant(sa.Integer, "sqlite")
    text = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
    op.create_table(
        "leaf_policy",
        sa.Column("idx", big, primary_key=True, autoincrement=False),
        sa.Column("policy_id", text, primary_key=True),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_index("leaf_policy_policy_id", "leaf_policy", ["policy_id", "idx"])
    op.create_table(
        "content",
        sa.Column("idx", big, primary_key=True, autoincrement=False),
        sa.Column("phase", text, primary_key=True),
        sa.Column("key_id", text, nullable=False),
        sa.Column("nonce", sa.LargeBinary, nullable=False),
        sa.Column("ciphertext", sa.LargeBinary, nullable=False),
        sqlite_strict=True,
    )
    op.create_table(
        "pruning",
        sa.Column("what", text, primary_key=True),
        sa.Column("minimum_index", big, primary_key=True, autoincrement=False),
        sa.Column("idx", big, nullable=False),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    if op.get_bind().dialect.name == "sqlite":
        op.execute(_SQLITE_BACKFILL)
        for statement in _SQLITE_FENCE:
            op.execute(statement)
    else:
        _sort_indexes_by_index()
        _build_postgres_fence()


def _sort_indexes_by_index() -> None:
    """SQLite's indexes end in the rowid, which is `idx`; here that must be said, or a page would have to be sorted."""
    for name in ("kind", "actor", "role", "tenant", "subject"):
        op.alter_column("leaf", name, type_=sa.Text(collation="C"))
    for name in ("kind", "actor", "tenant"):
        op.drop_index(f"leaf_{name}", "leaf")
        op.create_index(f"leaf_{name}", "leaf", [name, "idx"])
    op.drop_index("leaf_subject", "leaf")
    op.create_index("leaf_subject", "leaf", ["subject", "kind", "idx"])
    for name in ("route", "model_root", "decision", "outcome", "label"):
        op.drop_index(f"leaf_{name}", "leaf")
        op.alter_column("leaf", name, type_=sa.Text(collation="C"))
        op.create_index(f"leaf_{name}", "leaf", [name, "idx"], postgresql_where=sa.column(name).is_not(None))


def _build_postgres_fence() -> None:
    for name, body in POSTGRES_FUNCTIONS.items():
        op.execute(sa.text(f"CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS $body${body}$body$"))
    op.execute(
        "CREATE FUNCTION sweep_pruned(step bigint) RETURNS boolean LANGUAGE plpgsql SECURITY DEFINER "
        f"SET search_path = pg_catalog, pg_temp AS $body${POSTGRES_SWEEP}$body$"
    )
    for (table, name), (when, function) in POSTGRES_TRIGGERS.items():
        by_statement = "TRUNCATE" in when or when.startswith("AFTER")
        new_rows = "REFERENCING NEW TABLE AS new_rows " if when.startswith("AFTER") else ""
        each = "STATEMENT" if by_statement else "ROW"
        op.execute(f"CREATE TRIGGER {name} {when} ON {table} {new_rows}FOR EACH {each} EXECUTE FUNCTION {function}()")
        op.execute(f"ALTER TABLE {table} ENABLE ALWAYS TRIGGER {name}")
