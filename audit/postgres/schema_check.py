"""Whether a PostgreSQL log has exactly the tables, indexes, functions and triggers that the migrations make.

And whether nobody but their owner has a right that `audit.provision` never gives.

Compared is what the catalogue holds by itself - columns and their types, the very text of each function, the bits of
each trigger and that it fires always - never how a server prints it, which differs from one version to the next.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from sqlalchemy import BigInteger, Connection, Integer, Text, text
from sqlalchemy.types import TypeEngine

from audit.migrations.versions.r0002_beside_the_leaves import POSTGRES_FUNCTIONS, POSTGRES_SWEEP, POSTGRES_TRIGGERS
from audit.schema import metadata

_BITS = {"ROW": 1, "BEFORE": 2, "INSERT": 4, "DELETE": 8, "UPDATE": 16, "TRUNCATE": 32, "AFTER": 0}
_SWEEP_SETTINGS = ["search_path=pg_catalog, pg_temp"]
_INDEXES: Mapping[str, tuple[str, bool, bool]] = {
    **{
        f"{name}_pkey": (columns, True, False)
        for name, columns in (
            ("leaf", "idx"),
            ("node", "level,idx"),
            ("checkpoint", "size"),
            ("leaf_policy", "idx,policy_id"),
            ("content", "idx,phase"),
            ("pruning", "what,minimum_index"),
        )
    },
    "alembic_version_pkc": ("version_num", True, False),
    "leaf_policy_policy_id": ("policy_id,idx", False, False),
    "leaf_subject": ("subject,kind,idx", False, False),
    "leaf_ts_us": ("ts_us", False, False),
    **{f"leaf_{name}": (f"{name},idx", False, False) for name in ("kind", "actor", "tenant")},
    **{
        f"leaf_{name}": (f"{name},idx", False, True) for name in ("route", "model_root", "decision", "outcome", "label")
    },
}
"""Name -> columns, whether unique, whether it leaves rows out."""

Found = dict[tuple[str, str], object]


def schema_faults(connection: Connection) -> list[tuple[str, str, str]]:
    """Return kind, name and fault of whatever is not exactly as the migrations made it."""
    expected, stored = _expected(), _stored(connection)
    faults = []
    for kind, name in sorted(expected.keys() | stored.keys()):
        if (kind, name) not in stored:
            faults.append((kind, name, "is missing"))
        elif expected.get((kind, name)) != stored[kind, name]:
            faults.append((kind, name, "is not as the migrations made it"))
    return faults


def _expected() -> Found:
    found: Found = {("table", "alembic_version"): ("r", "p", False, False, False)}
    for table in metadata.tables.values():
        found["table", table.name] = ("r", "p", False, False, False)
        for column in table.columns:
            collation = (
                "C" if isinstance(column.type, Text) and (table.name, column.name) != ("checkpoint", "note") else None
            )
            found["column", f"{table.name}.{column.name}"] = (_type_name(column.type), not column.nullable, collation)
    found["column", "alembic_version.version_num"] = ("character varying(32)", True, None)
    for name, shape in _INDEXES.items():
        found["index", name] = shape
    for name, body in POSTGRES_FUNCTIONS.items():
        found["function", name] = (body, "plpgsql", False, None)
    found["function", "sweep_pruned"] = (POSTGRES_SWEEP, "plpgsql", True, _SWEEP_SETTINGS)
    for (table_name, name), (when, function) in POSTGRES_TRIGGERS.items():
        bits = sum(_BITS[word] for word in when.split())
        by_row = 0 if "TRUNCATE" in when or when.startswith("AFTER") else _BITS["ROW"]
        found["trigger", f"{table_name}.{name}"] = (function, bits | by_row, "A", False)
    return found


def _type_name(kind: TypeEngine[object]) -> str:
    if isinstance(kind, BigInteger):
        return "bigint"
    if isinstance(kind, Integer):
        return "integer"
    return "text" if isinstance(kind, Text) else "bytea"


def _stored(connection: Connection) -> Found:
    found: Found = {}
    for kind, query in _QUERIES:
        for name, *rest in connection.execute(text(query)):
            found[kind, name] = tuple(_plain(rest))
    return found


def _plain(values: list[object]) -> Iterator[object]:
    for value in values:
        yield None if value in ("", "default") else value


_TOO_MUCH = """SELECT
coalesce(nullif(grantee::regrole::text, '-'), 'everybody') || ' may ' || privilege_type || ' ' || name
FROM ({}) AS granted (name, owner, grantee, privilege_type) WHERE grantee <> owner AND ({})"""
"""One row for each right that somebody but the owner has and the migrations never give: each is a fault."""

_QUERIES = (
    (
        "right",
        _TOO_MUCH.format(
            """SELECT c.relname, c.relowner, a.grantee, a.privilege_type FROM pg_class c,
            aclexplode(c.relacl) a WHERE c.relnamespace = to_regnamespace('cloister')
            UNION SELECT c.relname || '.' || t.attname, c.relowner, a.grantee, a.privilege_type FROM pg_class c
            JOIN pg_attribute t ON t.attrelid = c.oid, aclexplode(t.attacl) a
            WHERE c.relnamespace = to_regnamespace('cloister')""",
            "grantee = 0 OR privilege_type NOT IN ('SELECT', 'INSERT')",
        ),
    ),
    (
        "right",
        _TOO_MUCH.format(
            """SELECT n.nspname, n.nspowner, a.grantee, a.privilege_type FROM pg_namespace n,
            aclexplode(n.nspacl) a WHERE n.nspname = 'cloister'""",
            "grantee = 0 OR privilege_type <> 'USAGE'",
        ),
    ),
    (
        "right",
        _TOO_MUCH.format(
            """SELECT p.proname, p.proowner, a.grantee, a.privilege_type FROM pg_proc p,
            aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a
            WHERE p.pronamespace = to_regnamespace('cloister')""",
            "grantee = 0 OR name <> 'sweep_pruned'",
        ),
    ),
    (
        "table",
        """SELECT c.relname, c.relkind::text, c.relpersistence::text, c.relrowsecurity,
        EXISTS (SELECT FROM pg_rewrite r WHERE r.ev_class = c.oid),
        EXISTS (SELECT FROM pg_inherits i WHERE c.oid IN (i.inhrelid, i.inhparent))
        FROM pg_class c WHERE c.relnamespace = to_regnamespace('cloister') AND c.relkind <> 'i'""",
    ),
    (
        "column",
        """SELECT c.relname || '.' || a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull,
        (SELECT collname::text FROM pg_collation l WHERE l.oid = a.attcollation)
        FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid WHERE c.relnamespace = to_regnamespace('cloister')
        AND c.relkind <> 'i' AND a.attnum > 0 AND NOT a.attisdropped""",
    ),
    (
        "index",
        """SELECT c.relname,
        (SELECT string_agg(pg_get_indexdef(x.indexrelid, k, true), ',' ORDER BY k)
         FROM generate_series(1, x.indnkeyatts) AS k)
        || CASE WHEN x.indisvalid AND x.indisready THEN '' ELSE ' invalid' END,
        x.indisunique, x.indpred IS NOT NULL
        FROM pg_index x JOIN pg_class c ON c.oid = x.indexrelid WHERE c.relnamespace = to_regnamespace('cloister')""",
    ),
    (
        "function",
        """SELECT p.proname, p.prosrc, l.lanname::text, p.prosecdef, p.proconfig
        FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang WHERE p.pronamespace = to_regnamespace('cloister')""",
    ),
    (
        "trigger",
        """SELECT c.relname || '.' || t.tgname, p.proname::text, t.tgtype::int, t.tgenabled::text, t.tgqual IS NOT NULL
        FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_proc p ON p.oid = t.tgfoid
        WHERE c.relnamespace = to_regnamespace('cloister') AND NOT t.tgisinternal""",
    ),
)
