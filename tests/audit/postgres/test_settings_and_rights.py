"""A PostgreSQL log is opened only where durability and the division of rights are facts."""

from __future__ import annotations

import re
from collections.abc import Callable

import psycopg
import pytest
from audit_log_builder import PAIRING, SIGNER, event_now
from real_postgres import OWNER, READER, WRITER, LogDatabase, PostgresServer

from audit.errors import AuditCorrupt, AuditRefused, LogExists, LogUnusable, SettingRefused
from audit.location import LocationRefused, PostgresLog
from audit.postgres.schema_check import schema_faults
from audit.provision import create_log
from audit.reader import AuditReader
from audit.report import Place
from audit.store import open_engine
from audit.verify import verify_log
from audit.writer import AuditWriter, WriterConfig

pytestmark = pytest.mark.postgres


@pytest.fixture
def database(postgres_server: PostgresServer) -> LogDatabase:
    """A log of three leaves."""
    made = postgres_server.log_database(SIGNER)
    writer = opened(made)
    for number in range(3):
        writer.submit(event_now(number)).result()
    writer.close()
    return made


def opened(database: LogDatabase) -> AuditWriter:
    """A writer as the appliance opens it."""
    return AuditWriter.open(WriterConfig(database.writer, "n", "b", min_free_bytes=0), [SIGNER])


def in_log(database: LogDatabase, *statements: str) -> None:
    """As the database's master, in the log's schema."""
    with psycopg.connect(database.superuser, autocommit=True, options="-c search_path=cloister") as master:
        for statement in statements:
            master.execute(statement.encode())


WRONG_SETTINGS = {
    "session_replication_role": "SET session_replication_role = replica",
    "zero_damaged_pages": "SET zero_damaged_pages = on",
    "ignore_checksum_failure": "SET ignore_checksum_failure = on",
}


@pytest.mark.parametrize("name", WRONG_SETTINGS)
@pytest.mark.parametrize("open_", [opened, lambda database: AuditReader(database.reader)])
def test_a_setting_that_makes_the_log_worthless_is_refused(
    database: LogDatabase, name: str, open_: Callable[[LogDatabase], object]
):
    """However it came to be set: here for the role, by the server's master."""
    value = WRONG_SETTINGS[name].partition("= ")[2]
    for role in (WRITER, READER):
        in_log(database, f"ALTER ROLE {role} IN DATABASE {database.name} SET {name} = {value}")
    with pytest.raises(SettingRefused, match=name):
        open_(database)


def test_what_durability_rests_on_holds_in_the_session_whatever_the_role_was_given(database: LogDatabase):
    """`synchronous_commit` and the rest are set, and read back."""
    for name, value in (("synchronous_commit", "off"), ("search_path", "public"), ("row_security", "on")):
        in_log(database, f"ALTER ROLE {WRITER} IN DATABASE {database.name} SET {name} = {value}")
    engine = open_engine(database.writer, read_only=False)
    with engine.begin() as connection:
        for name, value in (("synchronous_commit", "on"), ("search_path", "cloister"), ("row_security", "off")):
            assert connection.exec_driver_sql(f"SHOW {name}").scalar_one() == value
    engine.dispose()


def test_the_server_is_told_to_notice_soon_that_nobody_is_there(database: LogDatabase):
    """Otherwise a session that the network cut off would hold the lock longer than anybody waits."""
    engine = open_engine(database.writer, read_only=False)
    with engine.begin() as connection:
        query = "SELECT source FROM pg_settings WHERE name LIKE 'tcp_keepalives_%%'"
        assert connection.exec_driver_sql(query).scalars().all() == ["session"] * 3
    engine.dispose()


EXCESS = {
    "writer may update": f"GRANT UPDATE ON leaf TO {WRITER}",
    "writer may delete": f"GRANT DELETE ON checkpoint TO {WRITER}",
    "writer may truncate": f"GRANT TRUNCATE ON node TO {WRITER}",
    "writer may make triggers": f"GRANT TRIGGER ON content TO {WRITER}",
    "everybody may delete": "GRANT DELETE ON pruning TO PUBLIC",
    "writer may update a column": f"GRANT UPDATE (actor) ON leaf TO {WRITER}",
    "writer may make things": f"GRANT CREATE ON SCHEMA cloister TO {WRITER}",
    "writer may become who may delete": (
        "CREATE ROLE cleaner; GRANT DELETE ON leaf TO cleaner; "
        f"GRANT cleaner TO {WRITER}; ALTER ROLE {WRITER} NOINHERIT"
    ),
    "writer owns a table": f"ALTER TABLE leaf OWNER TO {WRITER}",
    "writer may not insert": f"REVOKE INSERT ON leaf FROM {WRITER}",
}


@pytest.mark.parametrize("excess", EXCESS)
def test_a_writer_that_may_do_more_or_less_than_append_is_refused(database: LogDatabase, excess: str):
    """A right that nobody needs is a way to undo the log."""
    in_log(database, *EXCESS[excess].split("; "))
    try:
        with pytest.raises(SettingRefused, match=r"rights on|owner of"):
            opened(database)
    finally:  # roles are the whole server's
        with psycopg.connect(database.superuser, autocommit=True) as master:
            master.execute(f"ALTER ROLE {WRITER} INHERIT")
            if master.execute("SELECT to_regrole('cleaner') IS NOT NULL").fetchone() == (True,):
                master.execute("DROP OWNED BY cleaner")
                master.execute("DROP ROLE cleaner")


TO_OTHERS = {
    "pg_monitor may DELETE leaf": "GRANT DELETE ON leaf TO {}",
    "may UPDATE leaf.actor": "GRANT UPDATE (actor) ON leaf TO {}",
    "may CREATE cloister": "GRANT CREATE ON SCHEMA cloister TO {}",
    "may EXECUTE refuse_change": "GRANT EXECUTE ON FUNCTION refuse_change TO {}",
    "everybody may EXECUTE sweep_pruned": "GRANT EXECUTE ON FUNCTION sweep_pruned TO PUBLIC",
    "everybody may SELECT leaf": "GRANT SELECT ON leaf TO PUBLIC",
}


@pytest.mark.parametrize("said", TO_OTHERS)
def test_a_right_that_a_third_role_was_given_is_found(database: LogDatabase, said: str):
    """It can undo the log although the appliance's own roles cannot; by the writer's opening and by who verifies."""
    in_log(database, TO_OTHERS[said].format("pg_monitor"))
    with pytest.raises(AuditCorrupt, match=said):
        opened(database)
    assert any(said in finding.what for finding in verify_log(database.reader, [SIGNER.verifier], PAIRING).findings)


def test_who_may_only_read_is_nobody_s_concern(database: LogDatabase):
    """A second reader's role, for an auditor or a backup."""
    in_log(database, "GRANT USAGE ON SCHEMA cloister TO pg_monitor", "GRANT SELECT ON leaf TO pg_monitor")
    opened(database).close()
    assert verify_log(database.reader, [SIGNER.verifier], PAIRING).ok


def test_a_reader_that_may_write_is_refused(database: LogDatabase):
    """Whoever reads the log cannot be made to write it."""
    in_log(database, f"GRANT INSERT ON leaf TO {READER}")
    with pytest.raises(SettingRefused, match="rights on leaf"):
        AuditReader(database.reader)


def test_the_database_s_master_is_no_writer(database: LogDatabase):
    """A superuser passes every fence."""
    with pytest.raises(SettingRefused, match="superuser"):
        AuditWriter.open(WriterConfig(PostgresLog(database.superuser), "n", "b"), [SIGNER])


STATEMENTS = [
    "UPDATE leaf SET actor = 'nobody'",
    "DELETE FROM leaf WHERE idx = 2",
    "TRUNCATE leaf",
    "DELETE FROM checkpoint",
    "UPDATE pruning SET minimum_index = 1",
    "TRUNCATE content, node",
    "DROP TABLE node",
    "ALTER TABLE leaf DISABLE TRIGGER ALL",
    "CREATE TABLE cloister.mine (x int)",
    "DROP TRIGGER leaf_no_update ON leaf",
    "CREATE OR REPLACE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RETURN NEW; END$$",
]


@pytest.mark.parametrize("statement", STATEMENTS)
def test_the_writer_s_role_can_do_nothing_but_append(database: LogDatabase, statement: str):
    """By rights; the triggers are not even asked."""
    with (
        psycopg.connect(database.writer.conninfo, options="-c search_path=cloister") as connection,
        pytest.raises(psycopg.errors.InsufficientPrivilege),
    ):
        connection.execute(statement.encode())


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE leaf SET actor = 'nobody'",
        "DELETE FROM leaf WHERE idx = 2",
        "TRUNCATE leaf",
        "TRUNCATE checkpoint",
        "DELETE FROM node",
        (
            "INSERT INTO leaf (idx, head, leaf_bytes, leaf_hash, kind, ts_us, epoch, actor, role, tenant, subject) "
            "SELECT idx + 2, head, leaf_bytes, leaf_hash, kind, ts_us, epoch, actor, role, tenant, subject FROM leaf"
        ),
        "INSERT INTO node VALUES (1, 5, '\\x00')",
        "INSERT INTO checkpoint VALUES (7, '\\x00', '')",
        "INSERT INTO pruning VALUES ('leaf', 256, 2)",
    ],
)
@pytest.mark.parametrize("as_replica", [False, True])
def test_the_fence_stands_for_owner_and_master_alike(database: LogDatabase, statement: str, as_replica: bool):
    """It has to be taken down on purpose; calling the session a replica is not enough."""
    with psycopg.connect(database.superuser, options="-c search_path=cloister") as connection:
        if as_replica:
            connection.execute("SET session_replication_role = replica")
        with pytest.raises(psycopg.IntegrityError):
            connection.execute(statement.encode())


CHANGES = {
    "a trigger disabled": "ALTER TABLE leaf DISABLE TRIGGER leaf_no_update",
    "a trigger that a replica skips": "ALTER TABLE leaf ENABLE TRIGGER leaf_no_update",
    "a trigger gone": "DROP TRIGGER leaf_no_truncate ON leaf",
    "a trigger of the same name that does less": (
        "DROP TRIGGER leaf_no_update ON leaf; "
        "CREATE TRIGGER leaf_no_update BEFORE UPDATE ON leaf FOR EACH ROW WHEN (OLD.idx > 5) "
        "EXECUTE FUNCTION refuse_change(); ALTER TABLE leaf ENABLE ALWAYS TRIGGER leaf_no_update"
    ),
    "a function that does nothing": (
        "CREATE OR REPLACE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RETURN NEW;; END$$"
    ),
    "a foreign function": "CREATE FUNCTION mine() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "a foreign table": "CREATE TABLE mine (x int)",
    "a foreign view": "CREATE VIEW mine AS SELECT 1",
    "a rule": "CREATE RULE mine AS ON INSERT TO leaf DO INSTEAD NOTHING",
    "row security": "ALTER TABLE leaf ENABLE ROW LEVEL SECURITY",
    "a table that a crash empties": "ALTER TABLE content SET UNLOGGED",
    "a column that may be empty": "ALTER TABLE leaf ALTER COLUMN actor DROP NOT NULL",
    "a column more": "ALTER TABLE leaf ADD COLUMN mine int",
    "an index gone": "DROP INDEX leaf_actor",
    "an index over less": "DROP INDEX leaf_actor; CREATE INDEX leaf_actor ON leaf (actor, idx) WHERE idx > 5",
    "a sweep that sweeps all": (
        "CREATE OR REPLACE FUNCTION sweep_pruned(step bigint) RETURNS boolean LANGUAGE plpgsql SECURITY DEFINER "
        "SET search_path = pg_catalog, pg_temp AS $$BEGIN DELETE FROM cloister.leaf;; RETURN false;; END$$"
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_schema_that_is_not_exactly_ours_is_not_written_to_and_is_found(database: LogDatabase, change: str):
    """By the writer's opening, and by anybody who verifies."""
    in_log(database, *(one.replace(";;", ";") for one in re.split(r"(?<!;); ", CHANGES[change])))
    with pytest.raises((AuditCorrupt, LogUnusable)):
        opened(database)
    try:
        report = verify_log(database.reader, [SIGNER.verifier], PAIRING)
    except LogUnusable:
        assert change == "row security"  # rows that are hidden are an error, never a shorter log
    else:
        assert Place.SCHEMA in {finding.place for finding in report.findings}


def test_what_the_owner_makes_is_exactly_what_is_checked(database: LogDatabase):
    """No fault on a fresh log."""
    engine = open_engine(database.reader, read_only=True)
    with engine.begin() as connection:
        assert schema_faults(connection) == []
    engine.dispose()


def test_a_log_is_made_once(database: LogDatabase):
    """Making it again would hide the one that is there."""
    with pytest.raises(LogExists):
        create_log(database.owner, [SIGNER], writer=WRITER, reader=READER)


@pytest.mark.parametrize(
    ("writer", "reader", "error"),
    [
        (WRITER, WRITER, AuditRefused),
        (OWNER, READER, AuditRefused),
        ("postgres", READER, SettingRefused),
        ("nobody_here", READER, SettingRefused),
        ('x"; DROP TABLE y; --', READER, AuditRefused),
    ],
)
def test_roles_that_could_undo_the_log_get_none(
    postgres_server: PostgresServer, writer: str, reader: str, error: type[Exception]
):
    """And nothing is left of the attempt."""
    database = postgres_server.empty_database()
    with pytest.raises(error):
        create_log(database.owner, [SIGNER], writer=writer, reader=reader)
    with psycopg.connect(database.superuser) as connection:
        assert connection.execute("SELECT to_regnamespace('cloister')").fetchone() == (None,)


def test_an_empty_database_is_no_log(postgres_server: PostgresServer):
    """None is made by opening it."""
    with pytest.raises(SettingRefused, match="missing"):
        AuditReader(postgres_server.empty_database().reader)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://w:secret@host/log",
        "postgresql://host/log?password=secret",
        "postgresql://host/log?options=-csynchronous_commit%3Doff",
        "postgresql://host/",
        "postgresql://w:secret[@host/log",
        "postgresql://w@[secret]/log",
        "mysql://host/log",
    ],
)
def test_a_url_that_holds_a_secret_or_an_unknown_option_is_refused_without_repeating_it(url: str):
    """A location stands in messages and records."""
    with pytest.raises(LocationRefused) as caught:
        PostgresLog(url)
    assert "secret" not in str(caught.value)
