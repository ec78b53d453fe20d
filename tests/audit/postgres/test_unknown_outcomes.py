"""The database goes away: what was acknowledged stays, what is unknown is asked for, nobody is let in meanwhile."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from audit_log_builder import PAIRING, PLACE, SIGNER, event_now
from real_postgres import LogDatabase, PostgresServer, binaries
from sqlalchemy import event
from sqlalchemy.exc import IntegrityError, OperationalError

from audit.batch import plan_batch
from audit.errors import AuditHalted, LogUnusable, WriterLocked
from audit.event import Floor, Pruned
from audit.leaf import draft_leaf
from audit.postgres.engine import Part, open_engine
from audit.reader import AuditReader
from audit.schema import leaf_table
from audit.store import bulk_insert
from audit.verify import verify_log
from audit.writer import AuditWriter, WriterConfig, WriterState

pytestmark = pytest.mark.postgres


class Interruptions:
    """What the writer said of the database, in order."""

    def __init__(self) -> None:
        self.said: list[str | None] = []
        self.began = threading.Event()

    def __call__(self, reason: str | None) -> None:
        """Take note, in the writer's thread."""
        self.said.append(reason)
        self.began.set()


@pytest.fixture
def database(postgres_server: PostgresServer) -> LogDatabase:
    """An empty log on the shared server."""
    return postgres_server.log_database(SIGNER)


@pytest.fixture
def own_server() -> Iterator[PostgresServer]:
    """A server that the test may stop and kill."""
    found = binaries()
    if not found:
        pytest.skip("no PostgreSQL server is installed")
    server = PostgresServer(found[0])
    yield server
    server.close()


def opened(database: LogDatabase, **arguments: Any) -> AuditWriter:
    """A writer as the appliance opens it."""
    config = WriterConfig(database.writer, "node-1", "boot-1", min_free_bytes=0, patience_s=20)
    return AuditWriter.open(config, [SIGNER], **arguments)


def assert_log(database: LogDatabase, num_leaves: int) -> None:
    """So many leaves, and a log that verifies."""
    report = verify_log(database.reader, [SIGNER.verifier], PAIRING)
    assert report.findings == ()
    assert report.num_leaves == num_leaves


def cut(server: PostgresServer, writer: AuditWriter) -> None:
    """End the writer's session from the server's side, as a network that breaks does."""
    server.sql("postgres", f"SELECT pg_terminate_backend({writer._log._hold._session}, 10000)")


def before_commit(server: PostgresServer, writer: AuditWriter) -> None:
    """The session ends before the commit is sent: nothing is durable."""
    _once(writer, lambda _: cut(server, writer))


def after_commit(server: PostgresServer, writer: AuditWriter) -> None:
    """The commit is done, and its answer is lost: all of it is durable."""

    def commit_and_cut(connection: Any) -> None:
        raw = connection.connection.dbapi_connection
        raw.commit()
        cut(server, writer)
        try:
            raw.execute("SELECT 1")
        except psycopg.OperationalError as broken:
            raise OperationalError("COMMIT", None, broken) from broken  # as the library says it of a commit

    _once(writer, commit_and_cut)


def between_batches(server: PostgresServer, writer: AuditWriter) -> None:
    """The session ended while nobody wrote."""
    cut(server, writer)


def _once(writer: AuditWriter, fault: Callable[[Any], None]) -> None:
    struck: list[bool] = []

    def strike(connection: Any) -> None:
        if not struck:
            struck.append(True)
            fault(connection)

    event.listen(writer._log._hold.engine, "commit", strike)


@pytest.mark.parametrize("fault", [before_commit, after_commit, between_batches])
def test_a_commit_of_unknown_outcome_is_asked_for_and_stands_once(
    postgres_server: PostgresServer, database: LogDatabase, fault: Callable[[PostgresServer, AuditWriter], None]
):
    """Each waiter gets the receipt of the one leaf that is there, whether the first try had done it or not."""
    interruptions = Interruptions()
    writer = opened(database, on_interruption=interruptions)
    writer.submit(event_now(0)).result()
    fault(postgres_server, writer)
    with writer._line._condition:  # both into one batch
        waiting = [writer.submit(event_now(number)) for number in (1, 2)]
    receipts = [future.result(timeout=60) for future in waiting]
    assert [receipt.index for receipt in receipts] == [1, 2]
    assert writer.submit(event_now(3)).result().index == 3
    with AuditReader(database.reader) as reader:
        assert [reader.entry(receipt.index).leaf_hash.hex() for receipt in receipts] == [r.leaf_hash for r in receipts]
    assert interruptions.said[0] is not None
    assert interruptions.said[-1] is None
    writer.close()
    assert writer.state is WriterState.CLOSED
    assert_log(database, 4)


@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_a_server_that_restarts_is_waited_for(own_server: PostgresServer, mode: str):
    """Whoever waits gets a receipt once the server is back, and nothing is there twice."""
    database = own_server.log_database(SIGNER)
    interruptions = Interruptions()
    writer = opened(database, on_interruption=interruptions)
    acknowledged = [writer.submit(event_now(number)).result() for number in range(5)]
    own_server.stop(mode)
    late = writer.submit(event_now(5))
    assert interruptions.began.wait(60)
    assert not late.done()
    own_server.start()
    assert late.result(timeout=60).index == 5
    with AuditReader(database.reader) as reader:
        for receipt in acknowledged:
            assert reader.entry(receipt.index).leaf_hash.hex() == receipt.leaf_hash
    writer.close()
    assert_log(database, 6)


def test_a_server_that_does_not_come_back_ends_the_writer_in_its_time(own_server: PostgresServer):
    """Patience has an end; what was acknowledged is there when the server is."""
    database = own_server.log_database(SIGNER)
    config = WriterConfig(database.writer, "node-1", "boot-1", min_free_bytes=0, patience_s=0.2)
    writer = AuditWriter.open(config, [SIGNER])
    writer.submit(event_now(0)).result()
    own_server.stop("immediate")
    with pytest.raises(AuditHalted, match="did not come back"):
        writer.submit(event_now(1)).result(timeout=60)
    writer.close()
    with pytest.raises(LogUnusable, match="check space, owner, permissions"):
        opened(database)
    own_server.start()
    again = opened(database)
    assert again.submit(event_now(2)).result().index == 1
    again.close()
    assert_log(database, 2)


def test_a_second_writer_is_refused_while_the_first_one_s_session_lives(database: LogDatabase):
    """The lock is the server's: it does not matter on which machine the other one runs."""
    writer = opened(database)
    with pytest.raises(WriterLocked):
        opened(database)
    writer.close()
    opened(database).close()


def test_a_writer_that_lost_its_place_to_another_never_writes_again(
    postgres_server: PostgresServer, database: LogDatabase
):
    """It was cut off, another one took over and wrote: coming back would fork the log."""
    first = opened(database)
    first.submit(event_now(0)).result()
    successors: list[AuditWriter] = []

    def take_over(_: Any) -> None:
        cut(postgres_server, first)
        successors.append(opened(database))
        successors[0].submit(event_now(1)).result()
        successors[0].close()

    _once(first, take_over)
    with pytest.raises(AuditHalted, match="the head in the store is 2"):
        first.submit(event_now(2)).result(timeout=60)
    first.close()
    assert_log(database, 2)


def test_a_standby_that_lacks_what_was_acknowledged_is_not_written_to(
    postgres_server: PostgresServer, database: LogDatabase
):
    """After a failover that lost a commit the head in memory is ahead: the loss is said, never papered over."""
    writer = opened(database)
    for number in range(3):
        writer.submit(event_now(number)).result()
    with psycopg.connect(database.superuser, autocommit=True, options="-c search_path=cloister") as master:
        for table, column in (("leaf", "idx"), ("leaf_policy", "idx"), ("node", "idx"), ("checkpoint", "size")):
            master.execute(f"ALTER TABLE {table} DISABLE TRIGGER ALL")
            bound = {"leaf": "= 2", "leaf_policy": "= 2", "node": "< 0", "checkpoint": "= 3"}[table]
            master.execute(f"DELETE FROM {table} WHERE {column} {bound}")
    cut(postgres_server, writer)
    with pytest.raises(AuditHalted, match=r"the head in the store is 2 .* in memory 3"):
        writer.submit(event_now(3)).result(timeout=60)
    writer.close()


def test_an_intruder_past_the_lock_is_stopped_by_the_tables(database: LogDatabase):
    """Even a session without the lock cannot write a second leaf at an index."""
    writer = opened(database)
    writer.submit(event_now(0)).result()
    plan = plan_batch(writer._log.edge, [draft_leaf(event_now(1), PLACE)], [SIGNER])
    writer.submit(event_now(2)).result()
    writer.close()
    engine = open_engine(database.writer, Part.WRITER)
    with engine.connect() as connection, pytest.raises(IntegrityError, match="duplicate key"):
        bulk_insert(connection, leaf_table, plan.leaf_rows)
    engine.dispose()
    assert_log(database, 2)


async def test_who_waits_in_a_coroutine_is_answered_too(postgres_server: PostgresServer, database: LogDatabase):
    """And the loop is not held up by the writer's waiting."""
    writer = opened(database)
    before_commit(postgres_server, writer)
    receipts = await asyncio.gather(*(writer.append(event_now(number)) for number in range(8)))
    assert sorted(receipt.index for receipt in receipts) == list(range(8))
    await asyncio.to_thread(writer.close)
    assert_log(database, 8)


def test_a_warning_of_the_server_at_a_commit_is_no_receipt(database: LogDatabase):
    """A standby that did not confirm is told by a warning, after which the commit counts as done."""
    writer = opened(database)
    writer.submit(event_now(0)).result()

    def warn(connection: Any) -> None:
        raw = connection.connection.dbapi_connection
        raw.execute("DO $$ BEGIN RAISE WARNING 'canceling wait for synchronous replication'; END $$")

    _once(writer, warn)
    with pytest.raises(AuditHalted, match="synchronous replication"):
        writer.submit(event_now(1)).result(timeout=60)
    writer.close()
    assert_log(database, 2)


def wait_for_standby(database: LogDatabase, *, after: int = 0) -> int:
    """Return the process that waits for a standby to confirm its commit, once another one than `after` does."""
    with psycopg.connect(database.superuser, autocommit=True) as master:
        while True:
            query = "SELECT pid FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND pid <> %s"
            found = master.execute(query, (after,)).fetchone()
            if found is not None:
                return int(found[0])


def set_on_server(server: PostgresServer, database: LogDatabase, name: str, value: str) -> None:
    """As the server's master, without a restart; in force when this returns."""
    server.sql(database.name, f"ALTER SYSTEM SET {name} = '{value}'", "SELECT pg_reload_conf()")
    with psycopg.connect(database.superuser, autocommit=True) as master:
        while master.execute("SELECT current_setting(%s)", (name,)).fetchone() != (value,):
            pass


def test_a_commit_that_no_standby_confirmed_is_not_believed_for_being_read_back(own_server: PostgresServer):
    """It is there on this server alone: a failover would lose what was acknowledged."""
    database = own_server.log_database(SIGNER)
    interruptions = Interruptions()
    writer = opened(database, on_interruption=interruptions)
    writer.submit(event_now(0)).result()
    set_on_server(own_server, database, "synchronous_standby_names", "nobody")
    waiting = writer.submit(event_now(1))
    session = wait_for_standby(database)
    own_server.sql(database.name, f"SELECT pg_terminate_backend({session}, 10000)")
    assert interruptions.began.wait(60)
    again = wait_for_standby(database, after=session)
    assert not waiting.done()
    own_server.sql(database.name, f"SELECT pg_cancel_backend({again})")
    with pytest.raises(AuditHalted, match="synchronous replication"):
        waiting.result(timeout=60)
    writer.close()


@pytest.mark.parametrize("name", ["fsync", "full_page_writes"])
def test_a_server_that_stops_being_durable_while_it_runs_is_not_written_to(own_server: PostgresServer, name: str):
    """Its master needs no restart for that."""
    database = own_server.log_database(SIGNER)
    writer = opened(database)
    writer.submit(event_now(0)).result()
    set_on_server(own_server, database, name, "off")
    raw = writer._log._hold.engine.raw_connection()
    while raw.driver_connection.execute(f"SHOW {name}").fetchone() != ("off",):
        pass
    raw.close()
    with pytest.raises(AuditHalted, match=f"{name} was set to off"):
        writer.submit(event_now(1)).result(timeout=60)
    writer.close()
    set_on_server(own_server, database, name, "on")
    assert_log(database, 1)


def test_a_session_that_somebody_else_used_meanwhile_is_not_the_one_that_won_the_lock(database: LogDatabase):
    """A pooler gives one server process to two clients: number and lock are the same for both."""
    writer = opened(database)
    writer.submit(event_now(0)).result()
    raw = writer._log._hold.engine.raw_connection()
    raw.driver_connection.execute("SELECT set_config('cloister.session', 'of the other writer', false)")
    raw.driver_connection.commit()
    raw.close()
    with pytest.raises(AuditHalted, match="pooler"):
        writer.submit(event_now(1)).result(timeout=60)
    writer.close()


def test_a_failure_that_passes_and_comes_again_ends_the_writer_in_its_time(database: LogDatabase):
    """A server that answers and fails every commit is not tried for ever."""
    writer = AuditWriter.open(WriterConfig(database.writer, "n", "b", min_free_bytes=0, patience_s=0.3), [SIGNER])
    writer.submit(event_now(0)).result()
    with psycopg.connect(database.superuser, autocommit=True, options="-c search_path=cloister") as master:
        master.execute(
            "CREATE FUNCTION conflict() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN RAISE EXCEPTION USING ERRCODE = 'serialization_failure'; END $$"
        )
        master.execute("CREATE TRIGGER conflict BEFORE INSERT ON leaf FOR EACH ROW EXECUTE FUNCTION conflict()")
    with pytest.raises(AuditHalted, match="again and again"):
        writer.submit(event_now(1)).result(timeout=60)
    writer.close()


async def test_a_sweep_that_meets_a_dead_session_goes_on_with_the_next(
    postgres_server: PostgresServer, database: LogDatabase
):
    """What is deleted was gone for readers already: no reason to shut the log."""
    interruptions = Interruptions()
    config = WriterConfig(database.writer, "n", "b", min_free_bytes=0, patience_s=20, sweep_len=64)
    writer = AuditWriter.open(config, [SIGNER], on_interruption=interruptions)
    for future in [writer.submit(event_now(number)) for number in range(600)]:
        future.result()
    num_commits = 0

    def strike(_: Any) -> None:
        nonlocal num_commits
        num_commits += 1
        if num_commits == 2:  # the first is the act of pruning
            cut(postgres_server, writer)

    event.listen(writer._log._hold.engine, "commit", strike)
    await writer.prune(event_now(0, "log:pruned", "log"), Floor(Pruned.LEAF, 512))
    await asyncio.to_thread(interruptions.began.wait, 60)
    assert (await writer.append(event_now(1, subject="after"))).index == 601
    await asyncio.to_thread(writer.close)
    assert writer.state is WriterState.CLOSED
    assert [reason is None for reason in interruptions.said] == [False, True]
    opened(database).close()
    report = verify_log(database.reader, [SIGNER.verifier], PAIRING)
    assert report.findings == ()
